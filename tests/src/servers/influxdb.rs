//! InfluxDB 1.x, as Debian packages it: the real TSM engine.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::http;
use crate::places::{self, RunDir};
use crate::process::{self, Server};

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
    process: Option<Server>,
    port: u16,
    dir: RunDir,
    options: InfluxOptions,
}

impl InfluxServer {
    /// Why it cannot be started here.
    pub(crate) fn missing() -> Option<String> {
        let there = places::program("influxd").is_some();
        (!there).then(|| "`influxd` is not installed (Debian: influxdb)".to_owned())
    }

    pub(crate) fn start(options: InfluxOptions) -> Result<InfluxServer> {
        let mut failure = None;
        // Ports are chosen before the server binds them; another process may be quicker.
        for _attempt in 0..3 {
            let dir = places::run_dir("influxdb")?;
            let port = places::free_port()?;
            let mut server = InfluxServer { process: None, port, dir, options: options.clone() };
            fs::write(server.dir.path().join("influxdb.conf"), server.configuration(places::free_port()?))?;
            match server.launch() {
                Ok(()) => {
                    server.create_administrator()?;
                    return Ok(server);
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| anyhow::anyhow!("InfluxDB was not tried")))
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills the server with SIGKILL; its data stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Ends the server in good order; its data stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Duration::from_secs(20));
        }
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing is answered.
    pub fn freeze(&self) {
        if let Some(process) = &self.process {
            process.signal(libc::SIGSTOP);
        }
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        if let Some(process) = &self.process {
            process.signal(libc::SIGCONT);
        }
    }

    /// Starts the server again on the same port with the same data, killing it first if it runs.
    ///
    /// # Errors
    /// When it does not come up; with the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.launch()
    }

    /// The end of the server's log.
    pub fn log_tail(&self) -> String {
        process::tail(&self.dir.path().join("server.log"), 6000)
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

    fn launch(&mut self) -> Result<()> {
        let program = places::program("influxd").context("`influxd` is not installed")?;
        let mut command = std::process::Command::new(program);
        command.arg("-config").arg(self.dir.path().join("influxdb.conf")).current_dir(self.dir.path());
        let mut process = Server::spawn("InfluxDB", command, &self.dir.path().join("server.log"))?;
        let url = self.url();
        process.wait_ready(READY_WITHIN, || {
            http::send(&url, "GET", "/ping", &[], b"").is_ok_and(|answer| answer.status == 204)
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn configuration(&self, internal_port: u16) -> String {
        let dir = self.dir.path().display();
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
            port = self.port,
            auth = self.options.auth.is_some(),
        );
        if let Some(bytes) = self.options.max_body {
            // Writing to a string does not fail.
            let _infallible = writeln!(text, "  max-body-size = {bytes}");
        }
        text
    }
}

impl Drop for InfluxServer {
    fn drop(&mut self) {
        self.kill();
    }
}
