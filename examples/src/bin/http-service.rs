//! An HTTP service that counts its requests: the whole of what a service does to be counted.
//!
//! ```sh
//! cargo run --release -p tallybus-examples --bin http-service -- --bus embedded:tallybus.db --listen 127.0.0.1:8080
//! ```
#![allow(clippy::print_stdout, reason = "it says where it listens")]

use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{MatchedPath, Path, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use tallybus::count;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let bus = argument("--bus").context("--bus kafka://HOST:PORT or --bus embedded:PATH is missing")?;
    let listen = argument("--listen").unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let counts = tallybus::builder().service("sites-api").create_topic(4).start(tallybus::connect(&bus)?)?;

    let listener = TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, routes()).with_graceful_shutdown(terminated()).await?;

    let report = counts.shutdown(Duration::from_secs(10));
    println!("{report}");
    anyhow::ensure!(report.is_complete(), "not every count was delivered");
    Ok(())
}

fn routes() -> Router {
    Router::new().route("/v1/sites/{site}", get(site)).route("/v1/builds", post(build)).layer(from_fn(counted))
}

/// Counts every request by route, method and status, and the bytes of the bodies that came in.
async fn counted(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let length = request.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    count!("http.requests", route = route, method = method.as_str(), status = response.status().as_u16());
    count!("http.request.bytes", length.unwrap_or(0), route = route);
    response
}

async fn site(Path(site): Path<u64>) -> Result<String, StatusCode> {
    if site.is_multiple_of(7) {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok(format!("site {site}\n"))
}

async fn build(body: Bytes) -> (StatusCode, String) {
    count!("builds.started");
    (StatusCode::ACCEPTED, format!("building {} bytes\n", body.len()))
}

async fn terminated() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn argument(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.next();
    args.next()
}
