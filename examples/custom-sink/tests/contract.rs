//! The contract that every sink keeps.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tallybus_sdk::config::read_for_test;
use tallybus_sdk::testkit::contract::{Backend, Server};
use tallybus_sdk::{Series, Sink, SinkContext};

tallybus_sdk::testkit::contract!(Some(&Directories));

/// Each test has a directory of its own.
struct Directories;

impl Server for Directories {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(Directory(tempfile::tempdir().expect("a directory")))
    }
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn path(&self) -> PathBuf {
        self.0.path().join("counts")
    }

    fn sink_in(path: PathBuf, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        let (build, problems) = read_for_test(&serde_json::json!({ "directory": path }), custom_sink::KIND.parse);
        assert!(problems.is_empty(), "{problems:?}");
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let context = SinkContext { name: "tested".to_owned(), topics, window };
        build.expect("the settings are right")(&context).expect("a sink")
    }
}

#[async_trait]
impl Backend for Directory {
    fn fresh(&self) -> Box<dyn Backend> {
        Directories.backend()
    }

    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        std::fs::create_dir_all(self.path()).expect("a directory");
        Self::sink_in(self.path(), window, topics)
    }

    /// A file stands where the directory should be.
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        let path = self.0.path().join("a-file");
        std::fs::write(&path, "").expect("a file");
        Self::sink_in(path, window, &["tallybus.counters"])
    }

    fn let_in(&self) {
        let path = self.0.path().join("a-file");
        std::fs::remove_file(&path).expect("the file");
        std::fs::create_dir(path).expect("a directory");
    }

    /// As a disk that is not mounted.
    fn set_away(&self, away: bool) {
        let aside = self.0.path().join("aside");
        let (from, to) = if away { (self.path(), aside) } else { (aside, self.path()) };
        std::fs::rename(from, to).expect("the directory is moved");
    }

    async fn refuse(&self, _series: &Series, _start: i64) {}

    fn refuses(&self) -> bool {
        false
    }

    fn takes_parts(&self) -> bool {
        false
    }
}
