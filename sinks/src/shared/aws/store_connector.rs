//! Recognises answers that S3 does not give, before the object store takes a page for an empty list.

use async_trait::async_trait;
use http::header::CONTENT_TYPE;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use thiserror::Error;

use crate::shared::http::is_page;

/// Something in front of S3 answered, or another server.
#[derive(Debug, Error)]
#[error("the server answered {status} with a page for a browser")]
pub(super) struct NotS3 {
    status: u16,
}

/// The store's own client, whose answers are checked.
#[derive(Debug)]
pub(super) struct StoreConnector;

impl HttpConnector for StoreConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Checked(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Checked(HttpClient);

#[async_trait]
impl HttpService for Checked {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !response.status().is_success() || !kind.trim_start().to_ascii_lowercase().starts_with("text/html") {
            return Ok(response);
        }
        // Some servers that offer S3 give this type to answers without a body.
        let (parts, body) = response.into_parts();
        let body = body.bytes().await?;
        match is_page(&body) {
            true => Err(HttpError::new(HttpErrorKind::Decode, NotS3 { status: parts.status.as_u16() })),
            false => Ok(HttpResponse::from_parts(parts, body.into())),
        }
    }
}
