//! A folder of this test's own; and a bucket, behind a proxy.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::Sink;
use tallybus_tests::{FaultProxy, Mode, MotoServer};

use super::{Backend, Server, Subject, Trouble, build};

pub(crate) const FOLDER: Subject = Subject { name: "parquet", kind: "parquet", start: || Some(Box::new(FolderServer)) };
pub(crate) const S3: Subject = Subject { name: "parquet, s3", kind: "parquet", start: S3Server::start };

struct FolderServer;

impl Server for FolderServer {
    fn backend(&self) -> Box<dyn Backend> {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("counts")).expect("a folder");
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
    fn fresh(&self) -> Box<dyn Backend> {
        FolderServer.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        build("parquet", json!({"path": self.path("counts")}), window, topics)
    }
    /// No folder can be where a file is.
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        build("parquet", json!({"path": self.path("a file/counts"), "create": true}), window, &["tallybus.counters"])
    }
    /// What the folder lies on is gone for a while.
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

struct S3Server(Arc<Shared>);

struct Shared {
    server: MotoServer,
    cases: AtomicU64,
}

const BUCKET: &str = "counts";

impl S3Server {
    fn start() -> Option<Box<dyn Server>> {
        let server = tallybus_tests::s3()?;
        server.create_bucket(BUCKET).expect("a bucket");
        Some(Box::new(Self(Arc::new(Shared { server, cases: AtomicU64::new(0) }))))
    }
}

impl Server for S3Server {
    fn backend(&self) -> Box<dyn Backend> {
        let upstream = self.0.server.url();
        let strict = FaultProxy::start(&upstream).expect("a proxy");
        // The server takes any key; S3 answers a wrong one so.
        strict.set(xml(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."));
        Box::new(S3Case {
            shared: Arc::clone(&self.0),
            number: self.0.cases.fetch_add(1, Ordering::SeqCst),
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
    shared: Arc<Shared>,
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
    fn fresh(&self) -> Box<dyn Backend> {
        S3Server(Arc::clone(&self.shared)).backend()
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
    fn trouble(&self, trouble: Option<Trouble>) -> bool {
        self.proxy.set(match trouble {
            None => Mode::Pass,
            Some(Trouble::Throttled) => xml(503, "SlowDown", "Please reduce your request rate."),
            Some(Trouble::Slow(pause)) => Mode::Delay(pause),
            Some(Trouble::CutRequest) => Mode::CutRequest,
            Some(Trouble::CutAnswer) => Mode::ApplyThenCut,
        });
        true
    }
}
