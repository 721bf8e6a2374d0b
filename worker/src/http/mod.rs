//! HTTP for people and programs that look: the status endpoints and the console answer through it. It bounds what clients can take,
//! and says who may ask. No TLS: that is a proxy's task.

mod access;
mod server;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

pub use self::access::{bearer, is_equal, is_loopback, is_of_this_machine};
pub use self::server::{Answering, Endless, Handler, Reply, Server};

/// The content type of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// An answer that no cache keeps, and that no browser takes for anything else than its content type.
pub fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

/// An answer in plain text.
pub fn text(status: StatusCode, text: &str) -> Response<Bytes> {
    page(status, TEXT, text.to_owned())
}
