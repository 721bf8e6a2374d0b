//! The endpoints over HTTP. They have a thread and a runtime of their own: a sink that blocks the threads of the workers, and a
//! bus that does not answer, delay no answer here.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tallybus_sdk::config::Secret;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::Process;
use super::respond::Responder;

/// How many connections are open at a time. One more closes the oldest, so that clients that send nothing keep no probe out.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take in all: one that reads its answer slowly is closed.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// The most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// The pause after a connection could not be accepted, such as without file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why the endpoints cannot be served.
#[derive(Debug, Error)]
#[error("cannot listen on {address}, `listen` of [status]: {error}; choose another address or port")]
pub struct EndpointsError {
    address: SocketAddr,
    error: std::io::Error,
}

/// The endpoints of a process, until dropped.
#[derive(Debug)]
pub struct Endpoints {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoints {
    /// Listens on the address, and answers from now on. `token`: what `/metrics` and `/status` demand.
    ///
    /// # Errors
    /// The address is in use or not this machine's, or the system has no thread for it.
    pub fn start(address: SocketAddr, token: Option<Secret>, process: Process) -> Result<Self, EndpointsError> {
        let failed = |error| EndpointsError { address, error };
        // Bound here, so that an address that is in use is found before anything else starts.
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(failed)?
        };
        let (end, ended) = oneshot::channel();
        let responder = Responder::new(process, token);
        let serving = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, responder) => {}
                    _ = ended => {}
                }
            });
        };
        let thread = thread::Builder::new().name("status".to_owned()).spawn(serving).map_err(failed)?;
        tracing::info!(address = %bound, "status endpoints: /healthz, /readyz, /metrics, /status");
        Ok(Self { address: bound, end: Some(end), thread: Some(thread) })
    }

    /// Where it listens: the port is the system's choice where the settings say 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, responder: Responder) {
    // Each is served in milliseconds; one that is still open when 64 others have come is slow or silent.
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection to the status endpoints could not be accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        if open.len() >= MAX_CONNECTIONS {
            open.retain(|connection| !connection.is_finished());
        }
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(answer_one(stream, responder.clone())).abort_handle());
    }
}

/// Answers one request of a connection, within the limits of time and size.
async fn answer_one(stream: TcpStream, responder: Responder) {
    let service = service_fn(move |request| {
        let response = responder.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD).keep_alive(false);
    // What went wrong with a client is the client's affair.
    let _closed = timeout(CONNECTION_TIMEOUT, server.serve_connection(TokioIo::new(stream), service)).await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;
    use std::time::Instant;

    use super::super::tests::{process, status};
    use super::*;

    fn start() -> Endpoints {
        Endpoints::start("127.0.0.1:0".parse().unwrap(), None, process(status())).unwrap()
    }

    fn connect(endpoints: &Endpoints) -> Client {
        let client = Client::connect(endpoints.address()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client
    }

    /// All that the server sends to this text until it closes the connection.
    fn exchange(mut client: Client, request: &str) -> String {
        // A server that refuses a long request closes while it is sent.
        let _sent = client.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _reset = client.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    const GET: &str = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

    #[test]
    fn a_request_is_answered_and_the_connection_closed() {
        let endpoints = start();
        let answer = exchange(connect(&endpoints), GET);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("tallybus_sink_up"), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
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

    #[test]
    fn a_head_that_is_too_large_is_refused() {
        let endpoints = start();
        let long = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD * 4));
        let answer = exchange(connect(&endpoints), &long);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(exchange(connect(&endpoints), GET).starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn clients_that_send_nothing_are_closed_after_a_while_and_keep_no_other_one_out() {
        let endpoints = start();
        let mut silent: Vec<Client> = (0..MAX_CONNECTIONS + 3).map(|_| connect(&endpoints)).collect();
        let begun = Instant::now();
        for _ in 0..3 {
            assert!(exchange(connect(&endpoints), GET).starts_with("HTTP/1.1 200"));
        }
        assert!(begun.elapsed() < HEAD_TIMEOUT, "{:?}", begun.elapsed());
        for client in &mut silent {
            let mut rest = Vec::new();
            let _reset = client.read_to_end(&mut rest);
        }
        assert!(begun.elapsed() < HEAD_TIMEOUT + Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(exchange(connect(&endpoints), GET).starts_with("HTTP/1.1 200"));
    }
}
