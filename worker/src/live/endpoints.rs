//! The endpoints over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use tallybus_sdk::config::Secret;
use thiserror::Error;

use super::Process;
use super::respond::Responder;
use crate::http::Server;

/// Why the endpoints cannot be served.
#[derive(Debug, Error)]
#[error("cannot listen on {address}, `listen` of [status]: {error}; choose another address or port")]
pub struct EndpointsError {
    address: SocketAddr,
    error: std::io::Error,
}

/// The endpoints of a process, until dropped.
#[derive(Debug)]
pub struct Endpoints(Server);

impl Endpoints {
    /// Listens on the address, and answers from now on. `token`: what `/metrics` and `/status` demand.
    ///
    /// # Errors
    /// The address is in use or not this machine's, or the system has no thread for it.
    pub fn start(address: SocketAddr, token: Option<Secret>, process: Process) -> Result<Self, EndpointsError> {
        let server = Server::start("status", address, Arc::new(Responder::new(process, token)));
        let server = server.map_err(|error| EndpointsError { address, error })?;
        tracing::info!(address = %server.address(), "status endpoints: /healthz, /readyz, /metrics, /status");
        Ok(Self(server))
    }

    /// Where it listens: the port is the system's choice where the settings say 0.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;
    use std::time::Duration;

    use super::super::tests::{process, status};
    use super::*;

    fn start() -> Endpoints {
        Endpoints::start("127.0.0.1:0".parse().unwrap(), None, process(status())).unwrap()
    }

    #[test]
    fn a_request_is_answered_and_the_connection_closed() {
        let endpoints = start();
        let mut client = Client::connect(endpoints.address()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("tallybus_sink_up"), "{answer}");
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_the_setting() {
        let endpoints = start();
        let error = Endpoints::start(endpoints.address(), None, process(status())).unwrap_err().to_string();
        assert!(error.contains(&endpoints.address().to_string()) && error.contains("`listen` of [status]"), "{error}");
        let address = endpoints.address();
        drop(endpoints);
        assert!(Client::connect(address).is_err(), "it still listens");
    }
}
