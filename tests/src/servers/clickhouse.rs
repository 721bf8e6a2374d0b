//! ClickHouse: the real engine as a library (chdb, from PyPI), behind a front that speaks its HTTP interface.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::daemon::{Daemon, Recipe};
use crate::{http, places};

const READY_WITHIN: Duration = Duration::from_secs(60);
const USER: &str = "tallybus";
const PASSWORD: &str = "a passw:rd";

/// A ClickHouse of this test's own.
#[derive(Debug)]
pub struct ClickHouseServer {
    daemon: Daemon,
    port: u16,
}

impl ClickHouseServer {
    /// Why it cannot be started here.
    pub(crate) fn missing() -> Option<String> {
        (!python().is_file()).then(|| "chdb is not installed (PyPI: chdb-core)".to_owned())
    }

    pub(crate) fn start() -> Result<ClickHouseServer> {
        Daemon::start_on_free_port("clickhouse", |dir, port| {
            let data = dir.path().join("data");
            let command = move || {
                let mut command = Command::new(python());
                command.arg(places::crate_dir().join("servers/clickhouse-front.py"));
                command.arg(port.to_string()).arg(&data).args([USER, PASSWORD]);
                Ok(command)
            };
            let url = format!("http://127.0.0.1:{port}");
            let ready = move || http::send(&url, "GET", "/ping", &[], b"").is_ok_and(|answer| answer.status == 200);
            let recipe = Recipe {
                name: "ClickHouse",
                command: Box::new(command),
                ready: Box::new(ready),
                ready_within: READY_WITHIN,
            };
            Ok(ClickHouseServer { daemon: Daemon::start(dir, recipe)?, port })
        })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The one user's name.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// The user's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Runs a query and answers its output.
    ///
    /// # Errors
    /// When the server refuses it, with its words.
    pub fn query(&self, query: &str) -> Result<String> {
        let headers = [("X-ClickHouse-User", USER), ("X-ClickHouse-Key", PASSWORD)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let answer = http::send(&self.url(), "POST", "/", &headers, query.as_bytes())?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 200, "{query}: {text}");
        Ok(text)
    }
}

impl Deref for ClickHouseServer {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for ClickHouseServer {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

fn python() -> PathBuf {
    places::servers_dir().join("chdb-26.9.0/bin/python3")
}
