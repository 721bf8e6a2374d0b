//! What the endpoints answer.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use sha2::{Digest, Sha256};
use tallybus_sdk::config::Secret;

use super::Process;
use crate::metrics::{self, Format};

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers requests about a process.
#[derive(Debug, Clone)]
pub(super) struct Responder {
    process: Process,
    /// What `/metrics` and `/status` demand; `None` where only this machine can ask.
    token: Option<Secret>,
}

impl Responder {
    pub(super) fn new(process: Process, token: Option<Secret>) -> Self {
        Self { process, token }
    }

    /// Answers one request. Never waits.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if *request.method() != Method::GET && *request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
        }
        let headers = request.headers();
        if self.token.is_none() && !is_of_this_machine(headers) {
            return text(
                StatusCode::FORBIDDEN,
                "the request names another host than an IP address or localhost: a web page may have sent it\n",
            );
        }
        let may_read = self.token.as_ref().is_none_or(|token| has_token(headers, token.expose()));
        match request.uri().path() {
            "/healthz" => probe(&self.process.faults(), may_read),
            "/readyz" => probe(&self.process.obstacles(), may_read),
            "/metrics" | "/status" if !may_read => unauthorized(),
            "/metrics" => {
                let format = Format::accepted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
                page(StatusCode::OK, format.content_type(), metrics::render(&self.process, format))
            }
            "/status" => match serde_json::to_string(&self.process.document()) {
                Ok(document) => page(StatusCode::OK, "application/json", document),
                Err(error) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the status cannot be written: {error}\n"))
                }
            },
            _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz, /metrics and /status\n"),
        }
    }
}

/// An answer to a probe: it needs no token, and without one it says no reasons.
fn probe(obstacles: &[String], may_read: bool) -> Response<Full<Bytes>> {
    match obstacles {
        [] => text(StatusCode::OK, "ok\n"),
        _ if may_read => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", obstacles.join("\n"))),
        _ => text(StatusCode::SERVICE_UNAVAILABLE, "not ok\n"),
    }
}

fn unauthorized() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::UNAUTHORIZED, "the token of [status] is missing or wrong\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    page(status, TEXT, text.to_owned())
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let (scheme, given) = given.split_at(given.len().min("Bearer ".len()));
    scheme.eq_ignore_ascii_case(b"Bearer ") && is_equal(given, token.as_bytes())
}

/// Whether two secrets are equal. How long it takes says nothing of them: what is compared, to its end, are their hashes.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    a.iter().zip(b.iter()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Whether a request is addressed to an IP address or to `localhost`. A web page that had its own name point to this machine
/// would be allowed by a browser to read the answer.
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::super::tests::{process, status};
    use super::*;

    async fn ask(responder: &Responder, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = responder.answer(&request.body(()).unwrap());
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn each_path_has_its_page_and_its_content_type() {
        let responder = Responder::new(process(status()), None);
        for (path, accept, expected, content_type, part) in [
            ("/healthz", "*/*", 200, TEXT, "ok\n"),
            ("/readyz", "*/*", 503, TEXT, "influx: the backend is not ready yet"),
            ("/metrics", "*/*", 200, "text/plain; version=0.0.4; charset=utf-8", "# TYPE tallybus_build_info gauge"),
            (
                "/metrics",
                "application/openmetrics-text; version=1.0.0",
                200,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                "# EOF",
            ),
            ("/status", "*/*", 200, "application/json", "\"version\":1"),
            ("/", "*/*", 404, TEXT, "/healthz, /readyz"),
        ] {
            let (status, headers, body) = ask(&responder, path, &[("accept", accept)]).await;
            assert_eq!((status, headers[CONTENT_TYPE].to_str().unwrap()), (expected, content_type), "{path}");
            assert!(body.contains(part), "{path}: {body}");
            assert_eq!(headers[CACHE_CONTROL], "no-store");
        }
        let post = Request::builder().method("POST").uri("/metrics").body(()).unwrap();
        assert_eq!(responder.answer(&post).status(), 405);
    }

    #[tokio::test]
    async fn with_a_token_only_probes_are_answered_without_it_and_give_no_reasons() {
        let responder = Responder::new(process(status()), Some(Secret::new("hunter2-hunter2")));
        let authorizations = ["", "Bearer ", "Bearer hunter2", "Bearer hunter2-hunter2x", "Basic hunter2-hunter2"];
        for wrong in authorizations {
            for path in ["/metrics", "/status"] {
                let (status, headers, body) = ask(&responder, path, &[("authorization", wrong)]).await;
                assert_eq!((status, headers.contains_key(WWW_AUTHENTICATE)), (401, true), "{path} {wrong}");
                assert!(!body.contains("hunter2"), "{body}");
            }
        }
        let right = [("authorization", "bearer hunter2-hunter2")];
        assert_eq!(ask(&responder, "/status", &right).await.0, 200);
        assert_eq!(ask(&responder, "/readyz", &[]).await.2, "not ok\n");
        assert!(ask(&responder, "/readyz", &right).await.2.contains("not ready yet"));
        assert_eq!(ask(&responder, "/healthz", &[]).await.2, "ok\n");
    }

    #[tokio::test]
    async fn a_page_of_another_name_cannot_read_what_needs_no_token() {
        let responder = Responder::new(process(status()), None);
        for (host, expected) in [
            ("127.0.0.1:9464", 200),
            ("localhost:9464", 200),
            ("[::1]:9464", 200),
            ("[::1]", 200),
            ("127.0.0.1", 200),
            ("evil.example:9464", 403),
            ("evil.example", 403),
        ] {
            assert_eq!(ask(&responder, "/status", &[("host", host)]).await.0, expected, "{host}");
        }
        let open = Responder::new(process(status()), Some(Secret::new("hunter2-hunter2")));
        let headers = [("host", "worker.example:9464"), ("authorization", "Bearer hunter2-hunter2")];
        assert_eq!(ask(&open, "/status", &headers).await.0, 200);
    }
}
