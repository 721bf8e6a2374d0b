//! Drives `http-service` and keeps a tally of its own from the answers it gets: what the backends must hold in the end.
//!
//! ```sh
//! cargo run --release -p tallybus-examples --bin http-load -- --address 127.0.0.1:8080 --requests 100000
//! ```
#![allow(clippy::print_stdout, reason = "its tally is what it is for")]

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use tallybus_sdk::Rng;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const CONNECTIONS: u64 = 16;

type Tally = BTreeMap<String, u64>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = argument("--address").context("--address HOST:PORT is missing")?;
    let requests: u64 = argument("--requests").context("--requests N is missing")?.parse()?;
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        let share = requests / CONNECTIONS + u64::from(number < requests % CONNECTIONS);
        connections.push(tokio::spawn(drive(address.clone(), share, number)));
    }
    let mut total = Tally::new();
    for connection in connections {
        for (series, count) in connection.await?? {
            *total.entry(series).or_default() += count;
        }
    }
    println!("{}", serde_json::to_string(&total)?);
    Ok(())
}

async fn drive(address: String, requests: u64, seed: u64) -> anyhow::Result<Tally> {
    let mut stream = BufReader::new(TcpStream::connect(&address).await?);
    let mut tally = Tally::new();
    let mut rng = Rng::new(seed);
    for _ in 0..requests {
        let (method, path, route, body) = match rng.below(10) {
            0..=5 => ("GET", format!("/v1/sites/{}", rng.below(1_000)), "/v1/sites/{site}", 0),
            6 => ("GET", "/nowhere".to_owned(), "none", 0),
            _ => ("POST", "/v1/builds".to_owned(), "/v1/builds", usize::try_from(rng.below(500))?),
        };
        let status = exchange(&mut stream, method, &path, body).await?;
        let mut add = |series: String, count: u64| *tally.entry(series).or_default() += count;
        add(format!(r#"http.requests{{method="{method}",route="{route}",status="{status}"}}"#), 1);
        if body > 0 {
            add(format!(r#"http.request.bytes{{route="{route}"}}"#), body as u64);
        }
        if status == 202 {
            add("builds.started".to_owned(), 1);
        }
    }
    Ok(tally)
}

/// One request on a connection that is kept; answers the status.
async fn exchange(stream: &mut BufReader<TcpStream>, method: &str, path: &str, body: usize) -> anyhow::Result<u16> {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {body}\r\n\r\n").into_bytes();
    request.resize(request.len() + body, b'x');
    stream.get_mut().write_all(&request).await?;
    let (mut line, mut status, mut length) = (String::new(), 0, 0);
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "the service closed the connection");
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some(rest) = header.strip_prefix("HTTP/1.1 ") {
            status = rest[..3].parse()?;
        } else if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(status)
}

fn argument(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.next();
    args.next()
}
