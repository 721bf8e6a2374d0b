//! VictoriaMetrics, as Debian packages it.

use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::daemon::{Daemon, Recipe};
use crate::{http, places};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A VictoriaMetrics of this test's own, which keeps everything for a hundred years.
#[derive(Debug)]
pub struct VictoriaMetricsServer {
    daemon: Daemon,
    port: u16,
}

impl VictoriaMetricsServer {
    /// Why it cannot be started here.
    pub(crate) fn missing() -> Option<String> {
        let there = places::program("victoria-metrics").is_some();
        (!there).then(|| "`victoria-metrics` is not installed (Debian: victoria-metrics)".to_owned())
    }

    pub(crate) fn start(flags: &[&str]) -> Result<VictoriaMetricsServer> {
        Daemon::start_on_free_port("victoria-metrics", |dir, port| {
            let data = dir.path().join("data");
            let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let command = move || {
                let program = places::program("victoria-metrics").context("`victoria-metrics` is not installed")?;
                let mut command = Command::new(program);
                command.arg(format!("-storageDataPath={}", data.display()));
                command.arg(format!("-httpListenAddr=127.0.0.1:{port}")).arg("-retentionPeriod=100y");
                // Half of a small machine's memory is more than a test needs.
                command.arg("-memory.allowedBytes=256MiB").args(&flags);
                Ok(command)
            };
            let url = format!("http://127.0.0.1:{port}");
            let ready = move || http::send(&url, "GET", "/health", &[], b"").is_ok_and(|answer| answer.status == 200);
            let recipe = Recipe {
                name: "VictoriaMetrics",
                command: Box::new(command),
                ready: Box::new(ready),
                ready_within: READY_WITHIN,
            };
            Ok(VictoriaMetricsServer { daemon: Daemon::start(dir, recipe)?, port })
        })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes what was written visible to queries; otherwise that takes a second or so.
    ///
    /// # Errors
    /// When the server does not answer 200.
    pub fn flush(&self) -> Result<()> {
        let answer = http::send(&self.url(), "GET", "/internal/force_flush", &[], b"")?;
        ensure!(answer.status == 200, "VictoriaMetrics answered {} to a flush", answer.status);
        Ok(())
    }

    /// Evaluates PromQL at a time (seconds since the Unix epoch) and answers the JSON text.
    ///
    /// # Errors
    /// When the server does not answer 200.
    pub fn query(&self, promql: &str, time: i64) -> Result<String> {
        let target = format!("/api/v1/query?nocache=1&time={time}&query={}", http::percent_encode(promql));
        let answer = http::send(&self.url(), "GET", &target, &[], b"")?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 200, "VictoriaMetrics answered {}: {text}", answer.status);
        Ok(text)
    }
}

impl Deref for VictoriaMetricsServer {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for VictoriaMetricsServer {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}
