//! What the endpoints answer.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use tallybus_sdk::config::Secret;

use super::Process;
use crate::http::{Answering, Handler, Reply, bearer, is_equal, is_of_this_machine, page, text};
use crate::metrics::{self, Format};

/// Answers requests about a process.
#[derive(Debug)]
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
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Bytes> {
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
        let may_read = self
            .token
            .as_ref()
            .is_none_or(|token| bearer(headers).is_some_and(|given| is_equal(given, token.expose().as_bytes())));
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

impl Handler for Responder {
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering {
        Box::pin(std::future::ready(Reply::Whole(Self::answer(&self, &request))))
    }
}

/// An answer to a probe: it needs no token, and without one it says no reasons.
fn probe(obstacles: &[String], may_read: bool) -> Response<Bytes> {
    match obstacles {
        [] => text(StatusCode::OK, "ok\n"),
        _ if may_read => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", obstacles.join("\n"))),
        _ => text(StatusCode::SERVICE_UNAVAILABLE, "not ok\n"),
    }
}

fn unauthorized() -> Response<Bytes> {
    let mut response = text(StatusCode::UNAUTHORIZED, "the token of [status] is missing or wrong\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};

    use super::super::tests::{process, status};
    use super::*;
    use crate::http::TEXT;

    fn ask(responder: &Responder, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = responder.answer(&request.body(()).unwrap());
        let (head, body) = response.into_parts();
        (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn each_path_has_its_page_and_its_content_type() {
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
            let (status, headers, body) = ask(&responder, path, &[("accept", accept)]);
            assert_eq!((status, headers[CONTENT_TYPE].to_str().unwrap()), (expected, content_type), "{path}");
            assert!(body.contains(part), "{path}: {body}");
            assert_eq!(headers[CACHE_CONTROL], "no-store");
        }
        let post = Request::builder().method("POST").uri("/metrics").body(()).unwrap();
        assert_eq!(responder.answer(&post).status(), 405);
    }

    #[test]
    fn with_a_token_only_probes_are_answered_without_it_and_give_no_reasons() {
        let responder = Responder::new(process(status()), Some(Secret::new("hunter2-hunter2")));
        let authorizations = ["", "Bearer ", "Bearer hunter2", "Bearer hunter2-hunter2x", "Basic hunter2-hunter2"];
        for wrong in authorizations {
            for path in ["/metrics", "/status"] {
                let (status, headers, body) = ask(&responder, path, &[("authorization", wrong)]);
                assert_eq!((status, headers.contains_key(WWW_AUTHENTICATE)), (401, true), "{path} {wrong}");
                assert!(!body.contains("hunter2"), "{body}");
            }
        }
        let right = [("authorization", "bearer hunter2-hunter2")];
        assert_eq!(ask(&responder, "/status", &right).0, 200);
        assert_eq!(ask(&responder, "/readyz", &[]).2, "not ok\n");
        assert!(ask(&responder, "/readyz", &right).2.contains("not ready yet"));
        assert_eq!(ask(&responder, "/healthz", &[]).2, "ok\n");
    }

    #[test]
    fn a_page_of_another_name_cannot_read_what_needs_no_token() {
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
            assert_eq!(ask(&responder, "/status", &[("host", host)]).0, expected, "{host}");
        }
        let open = Responder::new(process(status()), Some(Secret::new("hunter2-hunter2")));
        let headers = [("host", "worker.example:9464"), ("authorization", "Bearer hunter2-hunter2")];
        assert_eq!(ask(&open, "/status", &headers).0, 200);
    }
}
