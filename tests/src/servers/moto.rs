//! moto: S3 as far as a sink needs it, from PyPI.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::daemon::{Daemon, Recipe};
use crate::http::{self, Response};
use crate::places;

const READY_WITHIN: Duration = Duration::from_secs(60);
/// It takes any key; a request with none is a stranger's.
const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A moto of this test's own. It takes whatever key it is shown, and keeps everything in memory.
#[derive(Debug)]
pub struct MotoServer {
    daemon: Daemon,
    port: u16,
}

impl MotoServer {
    /// Why it cannot be started here.
    pub(crate) fn missing() -> Option<String> {
        (!python().is_file()).then(|| "moto is not installed (PyPI: moto)".to_owned())
    }

    pub(crate) fn start() -> Result<MotoServer> {
        Daemon::start_on_free_port("moto", |dir, port| {
            let command = move || {
                let mut command = Command::new(python());
                command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
                Ok(command)
            };
            let url = format!("http://127.0.0.1:{port}");
            let ready =
                move || http::send(&url, "GET", "/moto-api/", &[], b"").is_ok_and(|answer| answer.status == 200);
            let recipe =
                Recipe { name: "moto", command: Box::new(command), ready: Box::new(ready), ready_within: READY_WITHIN };
            Ok(MotoServer { daemon: Daemon::start(dir, recipe)?, port })
        })
    }

    /// `http://127.0.0.1:port`, the endpoint for the AWS SDK and for S3 with the bucket in the path.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Creates a bucket.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        let answer = self.send("PUT", &format!("/{name}"))?;
        ensure!(answer.status == 200, "no bucket {name}: {}", String::from_utf8_lossy(&answer.body));
        Ok(())
    }

    /// An object's bytes.
    ///
    /// # Errors
    /// When there is none, or the server does not answer.
    pub fn object(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        let key: Vec<String> = key.split('/').map(http::percent_encode).collect();
        let answer = self.send("GET", &format!("/{bucket}/{}", key.join("/")))?;
        ensure!(answer.status == 200, "no object: {}", String::from_utf8_lossy(&answer.body));
        Ok(answer.body)
    }

    fn send(&self, method: &str, target: &str) -> Result<Response> {
        let headers = [("Authorization".to_owned(), AUTHORIZATION.to_owned())];
        http::send(&self.url(), method, target, &headers, b"")
    }
}

impl Deref for MotoServer {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for MotoServer {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

fn python() -> PathBuf {
    places::servers_dir().join("moto-5.2.5/bin/python3")
}
