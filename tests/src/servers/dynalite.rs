//! dynalite 4.0: DynamoDB over memory, from npm.
//!
//! It checks keys, types, sizes and conditions, speaks the whole expression language and computes consumed capacity. What it
//! lacks and a sink needs is made good by [`crate::DynamoDbFront`]: the item in the answer to a failed condition, times to live,
//! and unknown keys.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Recipe};
use crate::{http, places};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// It looks whether a request is signed, not by whom.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=tests/20260101/eu-west-1/dynamodb/aws4_request, \
                             SignedHeaders=host, Signature=0";

/// A DynamoDB of this test's own; what it holds is gone when it ends. Tables are ready at once.
#[derive(Debug)]
pub struct DynamoDbServer {
    daemon: Daemon,
    port: u16,
}

impl DynamoDbServer {
    /// Why it cannot be started here.
    pub(crate) fn missing() -> Option<String> {
        if places::program("node").is_none() {
            return Some("`node` is not installed (Debian: nodejs)".to_owned());
        }
        (!script().is_file()).then(|| "dynalite is not installed (npm: dynalite)".to_owned())
    }

    pub(crate) fn start() -> Result<DynamoDbServer> {
        Daemon::start_on_free_port("dynalite", |dir, port| {
            let command = move || {
                let mut command = Command::new(places::program("node").context("`node` is not installed")?);
                command.arg(script()).args(["--host", "127.0.0.1", "--port", &port.to_string()]);
                command.args(["--createTableMs", "0", "--deleteTableMs", "0", "--updateTableMs", "0"]);
                Ok(command)
            };
            let url = format!("http://127.0.0.1:{port}");
            let ready = move || call(&url, "ListTables", &json!({})).is_ok();
            let recipe = Recipe {
                name: "dynalite",
                command: Box::new(command),
                ready: Box::new(ready),
                ready_within: READY_WITHIN,
            };
            Ok(DynamoDbServer { daemon: Daemon::start(dir, recipe)?, port })
        })
    }

    /// `http://127.0.0.1:port`, the endpoint for the AWS SDK.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Asks a DynamoDB at this URL something, such as `PutItem`, without a client.
///
/// # Errors
/// When it does not answer, or refuses.
pub fn call(url: &str, operation: &str, input: &Value) -> Result<Value> {
    let headers = [
        ("Authorization".to_owned(), AUTHORIZATION.to_owned()),
        ("Content-Type".to_owned(), "application/x-amz-json-1.0".to_owned()),
        ("X-Amz-Date".to_owned(), "20260101T000000Z".to_owned()),
        ("X-Amz-Target".to_owned(), format!("DynamoDB_20120810.{operation}")),
    ];
    let answer = http::send(url, "POST", "/", &headers, input.to_string().as_bytes())?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    anyhow::ensure!(answer.status == 200, "{operation}: {}: {text}", answer.status);
    serde_json::from_str(&text).with_context(|| format!("{operation}: {text}"))
}

fn script() -> PathBuf {
    places::servers_dir().join("dynalite-4.0.0/node_modules/dynalite/cli.js")
}

impl Deref for DynamoDbServer {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for DynamoDbServer {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}
