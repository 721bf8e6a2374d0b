//! One POST, and what came of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client};
use url::Url;

use super::allow::{AllowList, literal};
use super::resolve::Resolve;
use crate::signature::{HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, Key};

/// Why an attempt failed, or why there is none. Names nothing of the receiver but its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum FailedAttempt {
    /// The receiver answered with this status, which is none of 200 to 299.
    #[error("status {0}")]
    Status(u16),
    /// The receiver wants no more callbacks: status 410.
    #[error("status 410: the receiver wants no more callbacks")]
    Gone,
    /// It was not answered in time.
    #[error("no answer in time")]
    TimedOut,
    /// The name has no address, or no name server answered.
    #[error("the host's name could not be resolved")]
    NotResolved,
    /// The host has an address that is not public, and whose network is not listed.
    #[error("the host has an address that is not public and of no network that is listed; it was not connected to")]
    Address,
    /// No connection was made, or its certificate is not trusted.
    #[error("no connection, or its certificate is not trusted")]
    NotConnected,
    /// The connection ended before the status came.
    #[error("the connection ended before a status came")]
    Disconnected,
    /// The HTTP client cannot be used with these settings.
    #[error("the HTTP client cannot be created")]
    Client,
    /// There are too many callbacks under way, or they take up too much memory.
    #[error("too many callbacks under way")]
    TooMany,
    /// The process ends.
    #[error("the process ended before it was delivered")]
    Stopped,
}

impl FailedAttempt {
    /// Whether another attempt would end alike.
    fn is_final(self) -> bool {
        matches!(self, Self::Gone | Self::Address | Self::Client)
    }
}

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attempted {
    Delivered,
    Repeat { reason: FailedAttempt, asked: Option<Duration> },
    End(FailedAttempt),
}

impl From<FailedAttempt> for Attempted {
    fn from(reason: FailedAttempt) -> Self {
        if reason.is_final() { Self::End(reason) } else { Self::Repeat { reason, asked: None } }
    }
}

/// What all attempts have in common.
pub(super) struct Attempts {
    pub(super) allowed: AllowList,
    pub(super) keys: Vec<Key>,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) timeout: Duration,
    pub(super) trusted: Vec<Certificate>,
}

impl Attempts {
    pub(super) async fn post(&self, id: &str, url: &Url, body: &[u8]) -> Attempted {
        match tokio::time::timeout(self.timeout, self.try_post(id, url, body)).await {
            Ok(Ok(attempted)) => attempted,
            Ok(Err(reason)) => reason.into(),
            Err(_) => FailedAttempt::TimedOut.into(),
        }
    }

    async fn try_post(&self, id: &str, url: &Url, body: &[u8]) -> Result<Attempted, FailedAttempt> {
        let addresses = self.addresses(url).await?;
        let client = self.client(url, &addresses)?;
        let timestamp = seconds_now();
        // One signature for each key, while keys are being replaced.
        let signatures: Vec<String> = self.keys.iter().map(|key| key.sign(id, timestamp, body)).collect();
        let mut request = client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(HEADER_ID, id)
            .header(HEADER_TIMESTAMP, timestamp)
            .body(body.to_vec());
        if !signatures.is_empty() {
            request = request.header(HEADER_SIGNATURE, signatures.join(" "));
        }
        let response = request.send().await.map_err(|error| reason_of(&error))?;
        // The body is not read: the connection ends with the client.
        Ok(judge(response.status().as_u16(), response.headers()))
    }

    /// The addresses of the host, each of which may be connected to.
    async fn addresses(&self, url: &Url) -> Result<Vec<IpAddr>, FailedAttempt> {
        let found = match literal(url) {
            Some(address) => vec![address],
            None => {
                let (resolver, host) = (Arc::clone(&self.resolver), url.host_str().unwrap_or_default().to_owned());
                let resolved = tokio::task::spawn_blocking(move || resolver.resolve(&host)).await;
                resolved.ok().and_then(Result::ok).ok_or(FailedAttempt::NotResolved)?
            }
        };
        if found.is_empty() {
            return Err(FailedAttempt::NotResolved);
        }
        // All of them: a name with one address inside and one outside is no name to trust.
        if found.iter().all(|address| self.allowed.permits(*address)) { Ok(found) } else { Err(FailedAttempt::Address) }
    }

    /// A client for one request, which connects to these addresses and to no other.
    fn client(&self, url: &Url, addresses: &[IpAddr]) -> Result<Client, FailedAttempt> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let pinned: Vec<SocketAddr> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .resolve_to_addrs(host, &pinned)
            .timeout(self.timeout)
            .user_agent(concat!("tallybus/", env!("CARGO_PKG_VERSION")));
        if !self.trusted.is_empty() {
            builder = builder.tls_certs_only(self.trusted.clone());
        }
        builder.build().map_err(|_| FailedAttempt::Client)
    }
}

fn judge(status: u16, headers: &HeaderMap) -> Attempted {
    match status {
        200..=299 => Attempted::Delivered,
        410 => Attempted::End(FailedAttempt::Gone),
        status => Attempted::Repeat { reason: FailedAttempt::Status(status), asked: retry_after(headers) },
    }
}

/// What `Retry-After` asks for: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
}

/// The library's own text is not used: it repeats the URL, which may hold a secret.
fn reason_of(error: &reqwest::Error) -> FailedAttempt {
    if error.is_timeout() {
        FailedAttempt::TimedOut
    } else if error.is_connect() {
        FailedAttempt::NotConnected
    } else {
        FailedAttempt::Disconnected
    }
}

fn seconds_now() -> i64 {
    millis_now().div_euclid(1_000)
}

/// Milliseconds since the Unix epoch by this host's clock; 0 for a clock before it, which receivers then refuse as too old.
pub(super) fn millis_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, after: Option<&str>) -> Attempted {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(RETRY_AFTER, after.parse().unwrap());
        }
        judge(status, &headers)
    }

    #[test]
    fn only_2xx_delivers_410_ends_and_all_else_is_repeated() {
        for status in [200, 202, 204, 299] {
            assert_eq!(judged(status, None), Attempted::Delivered);
        }
        assert_eq!(judged(410, Some("1")), Attempted::End(FailedAttempt::Gone));
        for status in [100, 300, 301, 302, 307, 308, 400, 401, 404, 429, 500, 503] {
            assert_eq!(judged(status, None), Attempted::Repeat { reason: FailedAttempt::Status(status), asked: None });
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date_and_otherwise_not_at_all() {
        let asked = |after: &str| match judged(503, Some(after)) {
            Attempted::Repeat { asked, .. } => asked,
            other => panic!("{other:?}"),
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(asked("Sat, 06 Nov 2094 08:49:37 GMT") > Some(Duration::from_secs(86_400)));
        for wrong in ["-1", "soon", ""] {
            assert_eq!(asked(wrong), None);
        }
    }

    #[test]
    fn only_what_may_end_otherwise_is_repeated() {
        assert_eq!(Attempted::from(FailedAttempt::Address), Attempted::End(FailedAttempt::Address));
        let repeated = Attempted::Repeat { reason: FailedAttempt::TimedOut, asked: None };
        assert_eq!(Attempted::from(FailedAttempt::TimedOut), repeated);
    }
}
