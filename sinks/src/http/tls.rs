//! The TLS identity: trusted authorities and the client certificate.

use std::fmt;

use reqwest::{Certificate, ClientBuilder, Identity};
use tallybus_sdk::config::ConfigTable;

/// Read from the files that the settings name.
#[derive(Clone, Default)]
pub(super) struct Tls {
    /// The only trusted authorities, if any; otherwise those of the system.
    trusted: Vec<Certificate>,
    shown: Option<Identity>,
}

impl Tls {
    /// Reads the files; `None` when a problem was recorded.
    pub(super) fn parse(section: &mut ConfigTable<'_>) -> Option<Self> {
        let (has_ca, has_cert, has_key) = (section.has("ca"), section.has("client_cert"), section.has("client_key"));
        let trusted = match has_ca {
            true => parse_trusted(section),
            false => Some(Vec::new()),
        };
        match (has_cert, has_key) {
            (true, false) => section.problem("client_key", "is missing; a certificate alone proves nothing"),
            (false, true) => section.problem("client_cert", "is missing; a key alone says nothing"),
            _ => {}
        }
        if !has_cert && !has_key {
            return Some(Self { trusted: trusted?, shown: None });
        }
        let (cert, key) = (read_file(section, "client_cert"), read_file(section, "client_key"));
        match Identity::from_pkcs8_pem(&cert?, &key?) {
            Ok(identity) => Some(Self { trusted: trusted?, shown: Some(identity) }),
            Err(_) => {
                // The library's message about a key is not repeated.
                section.problem(
                    "client_cert",
                    "certificate and key do not fit together: both must be PEM, the key in PKCS #8 (BEGIN PRIVATE KEY)",
                );
                None
            }
        }
    }

    pub(super) fn apply(&self, client: ClientBuilder) -> ClientBuilder {
        let client = match self.trusted.is_empty() {
            true => client,
            false => client.tls_certs_only(self.trusted.clone()),
        };
        match &self.shown {
            Some(identity) => client.identity(identity.clone()),
            None => client,
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("trusted", &self.trusted.len()).field("shows", &self.shown.is_some()).finish()
    }
}

fn parse_trusted(section: &mut ConfigTable<'_>) -> Option<Vec<Certificate>> {
    let pem = read_file(section, "ca")?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(trusted) if !trusted.is_empty() => Some(trusted),
        _ => {
            section.problem("ca", "the file holds no certificate in PEM (BEGIN CERTIFICATE)");
            None
        }
    }
}

fn read_file(section: &mut ConfigTable<'_>, key: &str) -> Option<Vec<u8>> {
    let path = section.string(key)?;
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            section.problem(key, format!("cannot read the file {path}: {error}"));
            None
        }
    }
}
