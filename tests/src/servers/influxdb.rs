//! InfluxDB 1.x, as Debian packages it: the real TSM engine.

use std::fmt::Write as _;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::daemon::{Daemon, Recipe};
use crate::{http, places, ports};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// How the server is set up.
#[derive(Debug, Clone, Default)]
pub struct InfluxOptions {
    /// Asks every request for a user; an administrator of this name and password is made.
    pub auth: Option<(String, String)>,
    /// The largest request body, in bytes; the server's own default (25,000,000) when absent.
    pub max_body: Option<u64>,
}

/// An InfluxDB 1.x of this test's own.
#[derive(Debug)]
pub struct InfluxServer {
    daemon: Daemon,
    port: u16,
    options: InfluxOptions,
}

impl InfluxServer {
    /// Why it cannot be started here.
    pub(crate) fn missing() -> Option<String> {
        let there = places::program("influxd").is_some();
        (!there).then(|| "`influxd` is not installed (Debian: influxdb)".to_owned())
    }

    pub(crate) fn start(options: InfluxOptions) -> Result<InfluxServer> {
        Daemon::start_on_free_port("influxdb", |dir, port| {
            let settings = dir.path().join("influxdb.conf");
            fs::write(&settings, configuration(dir.path(), port, ports::free_port()?, &options))?;
            let command = move || {
                let mut command = Command::new(places::program("influxd").context("`influxd` is not installed")?);
                command.arg("-config").arg(&settings);
                Ok(command)
            };
            let url = format!("http://127.0.0.1:{port}");
            let ready = move || http::send(&url, "GET", "/ping", &[], b"").is_ok_and(|answer| answer.status == 204);
            let recipe = Recipe {
                name: "InfluxDB",
                command: Box::new(command),
                ready: Box::new(ready),
                ready_within: READY_WITHIN,
            };
            let server = InfluxServer { daemon: Daemon::start(dir, recipe)?, port, options: options.clone() };
            server.create_administrator()?;
            Ok(server)
        })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Creates a database.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.query("", &format!("CREATE DATABASE \"{name}\"")).map(drop)
    }

    /// Runs InfluxQL and answers the JSON text, times in nanoseconds.
    ///
    /// # Errors
    /// When the server does not answer 200, or answers with an error inside.
    pub fn query(&self, database: &str, influxql: &str) -> Result<String> {
        let form = format!("epoch=ns&db={}&q={}", http::percent_encode(database), http::percent_encode(influxql));
        let mut headers = vec![("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
        headers.extend(self.authorization());
        let answer = http::send(&self.url(), "POST", "/query", &headers, form.as_bytes())?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 200 && !text.contains("\"error\""), "InfluxDB answered {}: {text}", answer.status);
        Ok(text)
    }

    /// The rows of a query as `(series' name, columns…)` text, for tests that need not parse JSON: InfluxDB's own CSV.
    ///
    /// # Errors
    /// When the server does not answer 200.
    pub fn query_csv(&self, database: &str, influxql: &str) -> Result<String> {
        let form = format!("epoch=ns&db={}&q={}", http::percent_encode(database), http::percent_encode(influxql));
        let mut headers = vec![
            ("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
            ("Accept".to_owned(), "application/csv".to_owned()),
        ];
        headers.extend(self.authorization());
        let answer = http::send(&self.url(), "POST", "/query", &headers, form.as_bytes())?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 200, "InfluxDB answered {}: {text}", answer.status);
        Ok(text)
    }

    /// The header that the server's administrator sends; nothing without authentication.
    pub(crate) fn authorization(&self) -> Option<(String, String)> {
        let (user, password) = self.options.auth.as_ref()?;
        Some(("Authorization".to_owned(), format!("Basic {}", http::base64(format!("{user}:{password}").as_bytes()))))
    }

    fn create_administrator(&self) -> Result<()> {
        let Some((user, password)) = &self.options.auth else { return Ok(()) };
        let statement =
            format!("CREATE USER \"{user}\" WITH PASSWORD '{}' WITH ALL PRIVILEGES", password.replace('\'', "\\'"));
        let path = format!("/query?q={}", http::percent_encode(&statement));
        let answer = http::send(&self.url(), "POST", &path, &[], b"")?;
        ensure!(answer.status == 200, "InfluxDB makes no administrator: {}", String::from_utf8_lossy(&answer.body));
        Ok(())
    }
}

impl Deref for InfluxServer {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for InfluxServer {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

fn configuration(dir: &Path, port: u16, internal_port: u16, options: &InfluxOptions) -> String {
    let dir = dir.display();
    let mut text = format!(
        "reporting-disabled = true\n\
             bind-address = \"127.0.0.1:{internal_port}\"\n\
             [meta]\n  dir = \"{dir}/meta\"\n\
             [data]\n  dir = \"{dir}/data\"\n  wal-dir = \"{dir}/wal\"\n  query-log-enabled = false\n\
             \x20 max-series-per-database = 0\n  max-values-per-tag = 0\n\
             [monitor]\n  store-enabled = false\n\
             [subscriber]\n  enabled = false\n\
             [continuous_queries]\n  enabled = false\n\
             [http]\n  bind-address = \"127.0.0.1:{port}\"\n  log-enabled = false\n  auth-enabled = {auth}\n",
        auth = options.auth.is_some(),
    );
    if let Some(bytes) = options.max_body {
        // Writing to a string does not fail.
        let _infallible = writeln!(text, "  max-body-size = {bytes}");
    }
    text
}
