//! The SDK's requests over the HTTP client that every other sink uses, so that the binary holds one TLS library.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use tallybus_sdk::SinkError;

use crate::shared::http as shared_http;

#[derive(Debug, Clone)]
struct Connector(reqwest::Client);

/// A client whose requests take no longer than `timeout`.
pub(super) fn client(timeout: Duration) -> Result<SharedHttpClient, SinkError> {
    let http = shared_http::build(shared_http::client(timeout))?;
    let connector = SharedHttpConnector::new(Connector(http));
    Ok(http_client_fn(move |_, _| connector.clone()))
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let http = self.0.clone();
        HttpConnectorFuture::new(async move { send(&http, request).await })
    }
}

async fn send(http: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (parts, body) = request.into_parts();
    let Some(body) = body.bytes().map(bytes::Bytes::copy_from_slice) else {
        return Err(ConnectorError::user("a request that streams its body".into()));
    };
    let request = reqwest::Request::try_from(http::Request::from_parts(parts, body))
        .map_err(|error| ConnectorError::user(error.into()))?;
    let response = http.execute(request).await.map_err(failure)?;
    let mut answer = http::Response::new(());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = response.headers().clone();
    let body = response.bytes().await.map_err(failure)?;
    HttpResponse::try_from(answer.map(|()| SdkBody::from(body)))
        .map_err(|error| ConnectorError::other(error.into(), None))
}

fn failure(error: reqwest::Error) -> ConnectorError {
    if error.is_timeout() { ConnectorError::timeout(error.into()) } else { ConnectorError::io(error.into()) }
}
