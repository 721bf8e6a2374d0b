//! A directory of this test's own; and a bucket, behind a proxy.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::{Backend, NetworkFault, Server};
use tallybus_sdk::{ShadowName, Sink};
use tallybus_tests::{FaultProxy, Mode, MotoServer};

use super::{build, number, questions, servers, shadow_of};

mod folder {
    tallybus_sdk::testkit::contract!(Some(&super::FolderServer));
}

mod s3 {
    tallybus_sdk::testkit::contract!(super::S3Server::new().as_ref());
}

struct FolderServer;

impl Server for FolderServer {
    fn backend(&self) -> Box<dyn Backend> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("counts")).expect("a directory");
        std::fs::write(dir.path().join("a file"), "").expect("a file");
        Box::new(FolderCase { dir })
    }
}

struct FolderCase {
    dir: tempfile::TempDir,
}

impl FolderCase {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[async_trait]
impl Backend for FolderCase {
    fn shadow(&self, window: i64, name: &ShadowName) -> Option<Arc<dyn Sink>> {
        Some(build(
            "parquet",
            shadow_of("parquet", json!({"path": self.path("counts")}), name),
            window,
            &["tallybus.counters"],
        ))
    }
    fn questions(&self) -> &'static [&'static str] {
        questions("parquet")
    }
    fn least_storage(&self) -> Option<u64> {
        Some(1)
    }
    fn fresh(&self) -> Box<dyn Backend> {
        FolderServer.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        build("parquet", json!({"path": self.path("counts")}), window, topics)
    }
    /// No directory can be where a file is.
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        build("parquet", json!({"path": self.path("a file/counts"), "create": true}), window, &["tallybus.counters"])
    }
    /// What the directory lies on is gone for a while.
    fn set_away(&self, away: bool) {
        let (here, there) = (self.path("counts"), self.path("elsewhere"));
        let (from, to) = if away { (here, there) } else { (there, here) };
        std::fs::rename(from, to).expect("moved");
    }
    async fn refuse(&self, _series: &Series, _start: i64) {}
    fn refuses(&self) -> bool {
        false
    }
    fn takes_parts(&self) -> bool {
        false
    }
}

#[derive(Clone, Copy)]
struct S3Server(&'static MotoServer);

pub(crate) const BUCKET: &str = "counts";

impl S3Server {
    fn new() -> Option<Self> {
        servers::s3().map(Self)
    }
}

impl Server for S3Server {
    fn backend(&self) -> Box<dyn Backend> {
        let upstream = self.0.url();
        let strict = FaultProxy::start(&upstream).expect("a proxy");
        // The server takes any key; S3 answers a wrong one so.
        strict.set(xml(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."));
        Box::new(S3Case {
            server: *self,
            number: number(),
            proxy: FaultProxy::start(&upstream).expect("a proxy"),
            strict,
        })
    }
}

fn xml(status: u16, code: &str, message: &str) -> Mode {
    Mode::Answer {
        status,
        headers: vec![("Content-Type".to_owned(), "application/xml".to_owned())],
        body: format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        ),
    }
}

struct S3Case {
    server: S3Server,
    number: u64,
    proxy: FaultProxy,
    strict: FaultProxy,
}

impl S3Case {
    fn settings(&self, endpoint: &str, secret: &str) -> Value {
        json!({
            "path": format!("s3://{BUCKET}/case {}/", self.number), "endpoint": endpoint, "region": "eu-west-1",
            "access_key_id": "tests", "secret_access_key": secret
        })
    }
}

#[async_trait]
impl Backend for S3Case {
    fn shadow(&self, window: i64, name: &ShadowName) -> Option<Arc<dyn Sink>> {
        Some(build(
            "parquet",
            shadow_of("parquet", self.settings(&self.proxy.url(), "a secret"), name),
            window,
            &["tallybus.counters"],
        ))
    }
    fn questions(&self) -> &'static [&'static str] {
        questions("parquet")
    }
    fn least_storage(&self) -> Option<u64> {
        Some(1)
    }
    fn fresh(&self) -> Box<dyn Backend> {
        self.server.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        build("parquet", self.settings(&self.proxy.url(), "a secret"), window, topics)
    }
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        build("parquet", self.settings(&self.strict.url(), "wrong-secret"), window, &["tallybus.counters"])
    }
    fn set_away(&self, away: bool) {
        self.proxy.set(if away { Mode::Refuse } else { Mode::Pass });
    }
    async fn refuse(&self, _series: &Series, _start: i64) {}
    fn refuses(&self) -> bool {
        false
    }
    fn takes_parts(&self) -> bool {
        false
    }
    fn inject(&self, fault: Option<NetworkFault>) -> bool {
        self.proxy.set(match fault {
            None => Mode::Pass,
            Some(NetworkFault::Throttled) => xml(503, "SlowDown", "Please reduce your request rate."),
            Some(NetworkFault::Slow(pause)) => Mode::Delay(pause),
            Some(NetworkFault::CutRequest) => Mode::CutRequest,
            Some(NetworkFault::CutAnswer) => Mode::ApplyThenCut,
        });
        true
    }
}
