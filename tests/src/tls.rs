//! TLS before a server that speaks plain HTTP, with certificates made for the occasion.

use std::io::BufReader;
use std::net::TcpStream;

use anyhow::Result;
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod, SslVerifyMode};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509NameBuilder};

use crate::front::Front;
use crate::http::{self, Response};

/// An authority, and what it vouches for: a server at 127.0.0.1 or `receiver.test`, and a client.
pub struct Certificates {
    authority: X509,
    server: (X509, PKey<Private>),
    client: (X509, PKey<Private>),
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// Makes new ones, good for a day.
    ///
    /// # Errors
    /// When OpenSSL refuses.
    pub fn make() -> Result<Certificates> {
        let key = new_key()?;
        let authority = certificate("authority of a test", &key, None)?;
        let vouch = |name| -> Result<(X509, PKey<Private>)> {
            let own = new_key()?;
            Ok((certificate(name, &own, Some((&authority, &key)))?, own))
        };
        let (server, client) = (vouch("server")?, vouch("client")?);
        Ok(Certificates { authority, server, client })
    }

    /// The authority's certificate, in PEM.
    ///
    /// # Errors
    /// When OpenSSL refuses.
    pub fn authority_pem(&self) -> Result<Vec<u8>> {
        Ok(self.authority.to_pem()?)
    }

    /// The server's certificate and its key (PKCS #8), in PEM.
    ///
    /// # Errors
    /// When OpenSSL refuses.
    pub fn server_pem(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((self.server.0.to_pem()?, self.server.1.private_key_to_pem_pkcs8()?))
    }

    /// The client's certificate and its key (PKCS #8), in PEM.
    ///
    /// # Errors
    /// When OpenSSL refuses.
    pub fn client_pem(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((self.client.0.to_pem()?, self.client.1.private_key_to_pem_pkcs8()?))
    }
}

/// Takes TLS connections and hands their requests on. It ends when dropped.
#[derive(Debug)]
pub struct TlsFront(Front);

impl TlsFront {
    /// Starts before `upstream`, a URL such as `http://127.0.0.1:8086`. With `asks_for_client` only clients that the
    /// authority vouches for are let in.
    ///
    /// # Errors
    /// When no port can be had, or OpenSSL refuses.
    pub fn start(upstream: &str, certificates: &Certificates, asks_for_client: bool) -> Result<TlsFront> {
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        acceptor.set_certificate(&certificates.server.0)?;
        acceptor.set_private_key(&certificates.server.1)?;
        if asks_for_client {
            let mut store = X509StoreBuilder::new()?;
            store.add_cert(certificates.authority.clone())?;
            acceptor.set_verify_cert_store(store.build())?;
            acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        let (acceptor, upstream) = (acceptor.build(), upstream.to_owned());
        let front = Front::accept("tls-front", move |stream, _| {
            // Who is not let in, or goes, ends the connection.
            let _ended = serve(&acceptor, stream, &upstream);
        })?;
        Ok(TlsFront(front))
    }

    /// `https://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.0.port())
    }
}

fn serve(acceptor: &SslAcceptor, stream: TcpStream, upstream: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(acceptor.accept(stream)?);
    while let Some(mut request) = http::read_head(&mut reader)? {
        http::read_body(&mut reader, &mut request)?;
        let answer = http::send(upstream, &request.method, &request.target, &request.headers, &request.body);
        let answer = answer.unwrap_or_else(|error| Response::new(502, "text/plain", format!("{error:#}")));
        answer.write(reader.get_mut())?;
    }
    Ok(())
}

fn new_key() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

/// Signed by its own key where there is no authority yet.
fn certificate(name: &str, key: &PKey<Private>, by: Option<(&X509, &PKey<Private>)>) -> Result<X509> {
    let mut subject = X509NameBuilder::new()?;
    subject.append_entry_by_text("CN", name)?;
    let subject = subject.build();
    let mut serial = BigNum::new()?;
    serial.rand(128, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(&subject)?;
    builder.set_issuer_name(by.map_or(&subject, |(authority, _)| authority.subject_name()))?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    builder.set_pubkey(key)?;
    if by.is_none() {
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    } else {
        let names = SubjectAlternativeName::new()
            .ip("127.0.0.1")
            .dns("receiver.test")
            .build(&builder.x509v3_context(None, None))?;
        builder.append_extension(names)?;
    }
    builder.sign(by.map_or(key, |(_, authority)| authority), MessageDigest::sha256())?;
    Ok(builder.build())
}
