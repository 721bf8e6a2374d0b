//! A service answers by POST to a URL of the asker, and not on the bus. See README.md beside this file.
#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::json;
use tallybus::ask::{Asker, Question, To};
use tallybus::commands::callbacks::{AllowList, CallbackSettings};
use tallybus::commands::{Commands, Key, Signed};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Where this example may call back to. In a real service both come from its settings, and the key from a file.
const RECEIVER: &str = "http://127.0.0.1:";
const KEY: &str = "whsec_ZXhhbXBsZXMgbWF5IHNob3cgdGhlaXIga2V5cw==";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", bus, port] => serve(bus, port),
        ["ask", bus, port] => ask(bus, port.parse()?),
        _ => bail!("usage: callback-only serve BUS PORT | callback-only ask BUS PORT"),
    }
}

fn serve(bus: &str, port: &str) -> Result<()> {
    let guard = tallybus::init(bus, "reports")?;
    let allowed = AllowList::default().allow_origin(&format!("{RECEIVER}{port}"))?.allow_network("127.0.0.1")?;
    let commands = Commands::new()
        .allow_unsigned()
        .callbacks(CallbackSettings::new(allowed).sign_with(Key::parse(KEY)?))
        .on("monthly", |request| Ok::<_, String>(json!({ "month": request.arguments["month"], "orders": 1_234 })));
    guard.serve(commands)?;
    println!("{}", guard.address().unwrap_or_default());
    std::io::stdin().read_line(&mut String::new())?;
    println!("{}", guard.shutdown(Duration::from_secs(5)));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn ask(bus: &str, port: u16) -> Result<()> {
    let (post_report, mut reports) = mpsc::channel(1);
    let receive = move |headers: HeaderMap, body: Bytes| async move {
        if !is_genuine(&headers, &body) {
            return StatusCode::UNAUTHORIZED;
        }
        match post_report.send(body).await {
            Ok(()) => StatusCode::NO_CONTENT,
            Err(_) => StatusCode::GONE,
        }
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/report", post(receive))).await });

    let connection = tallybus::connect(bus)?;
    let question =
        Question::new(To::One("reports".to_owned()), "monthly", json!({ "month": "2026-11" }), Duration::from_secs(30));
    let question = question.with_callback(format!("{RECEIVER}{port}/report"));
    let accepted = tokio::task::spawn_blocking(move || Asker::open(connection)?.put(&question)).await??;
    if !accepted.is_good() {
        bail!("the report was not accepted: {accepted:?}");
    }
    let report = tokio::time::timeout(Duration::from_secs(30), reports.recv()).await?.context("no report came")?;
    println!("{}", String::from_utf8_lossy(&report));
    Ok(())
}

/// Whether a request is signed with the key, as Standard Webhooks has it.
fn is_genuine(headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Ok(timestamp) = header("webhook-timestamp").parse() else { return false };
    let signed = Signed { id: header("webhook-id"), timestamp, signature: header("webhook-signature") };
    Key::parse(KEY).is_ok_and(|key| key.verify(&signed, body))
}
