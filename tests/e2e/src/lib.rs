//! Drives the real `tallybus` binary: a directory with settings and databases, processes to start and kill, and independent
//! looks at what the backends hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests stops the test at the first surprise"
)]

pub mod backends;
pub mod fault_injection;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tallybus_tests::InfluxServer;
use tempfile::TempDir;

/// Totals by series, a series as `name{key="value",…}`.
pub type Tally = BTreeMap<String, u64>;

/// A directory with settings, and the binary.
pub struct Fixture {
    dir: TempDir,
}

impl Fixture {
    /// Writes `tallybus.toml`; `{dir}` in it stands for the directory.
    pub fn new(settings: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let settings = settings.replace("{dir}", dir.path().to_str().unwrap());
        std::fs::write(dir.path().join("tallybus.toml"), settings).unwrap();
        Self { dir }
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command of the binary with this fixture's settings.
    pub fn tallybus(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).arg("--config").arg(self.path("tallybus.toml")).current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; answers its exit status and the JSON it printed.
    pub fn json(&self, args: &[&str]) -> (i32, Value) {
        let output = self.tallybus(args).arg("--json").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let value = serde_json::from_str(text.trim())
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON object ({error}):\n{text}\n{errors}"));
        (output.status.code().unwrap_or(-1), value)
    }

    /// Runs a command that must succeed; answers what it printed.
    pub fn must(&self, args: &[&str]) -> String {
        let output = self.tallybus(args).output().unwrap();
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?} failed with {}:\n{text}\n{errors}", output.status);
        text.into_owned()
    }

    /// Starts a worker of one sink; its log goes to `<log>.log` in the directory.
    pub fn worker(&self, sink: &str, log: &str) -> Process {
        let file =
            std::fs::OpenOptions::new().create(true).append(true).open(self.path(&format!("{log}.log"))).unwrap();
        let mut command = self.tallybus(&["run", "--sink", sink]);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Process::start(command)
    }

    /// The last lines of a worker's log, for messages.
    pub fn log_tail(&self, log: &str) -> String {
        let text = std::fs::read_to_string(self.path(&format!("{log}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Waits until `audit` finds all sinks equal and nothing behind, or fails with what it said last.
    pub fn wait_until_equal(&self, emitted: u64, within: Duration) -> Value {
        let deadline = Instant::now() + within;
        loop {
            let (code, report) = self.json(&["audit"]);
            let sinks = report["sinks"].as_array().cloned().unwrap_or_default();
            let done = sinks.iter().all(|sink| sink["total"].as_u64() == Some(emitted));
            if code == 0 && report["equal"] == true && report["bus"].as_u64() == Some(emitted) && done {
                return report;
            }
            assert!(
                Instant::now() < deadline,
                "the sinks never became equal to {emitted}: exit status {code}, {report:#}"
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// A process that is killed at the latest when it is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it; it does not outlive this one.
    pub fn start(mut command: Command) -> Self {
        Self { child: command.spawn().unwrap() }
    }

    /// SIGKILL: no goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its end.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).unwrap();
        signal(pid, libc::SIGTERM);
        self.wait(within)
    }

    /// Its end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process did not end within {within:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The child itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[allow(unsafe_code, reason = "kill(2) of a child that has not been waited for: the pid is its own")]
fn signal(pid: i32, signal: i32) {
    unsafe { libc::kill(pid, signal) };
}

/// The `tallybus` binary of this build.
pub fn binary() -> &'static Path {
    built("tallybus-command", "tallybus")
}

/// Builds a package of the workspace once and answers where its binary lies.
pub fn built(package: &str, name: &str) -> &'static Path {
    static BUILT: OnceLock<std::sync::Mutex<BTreeMap<String, &'static Path>>> = OnceLock::new();
    let mut known = BUILT.get_or_init(Default::default).lock().unwrap();
    if let Some(path) = known.get(name) {
        return path;
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "-p", package, "--bin", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "{package} does not build");
    // target/release/deps/test-… → target/release
    let release = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf();
    let path: &'static Path = Box::leak(release.join(name).into_boxed_path());
    assert!(path.is_file(), "{} is not there", path.display());
    known.insert(name.to_owned(), path);
    path
}

/// What a SQLite sink's file holds, read with SQL.
pub fn sqlite_tally(path: &Path) -> Tally {
    let database = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = database.prepare("SELECT name, tags, sum(value) FROM counters GROUP BY name, tags").unwrap();
    let rows =
        rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)));
    rows.unwrap()
        .map(|row| {
            let (name, tags, total) = row.unwrap();
            let tags: BTreeMap<String, String> = serde_json::from_str(&tags).unwrap();
            (series(&name, &tags), u64::try_from(total).unwrap())
        })
        .collect()
}

/// What an InfluxDB holds, read with InfluxQL.
pub fn influx_tally(influx: &InfluxServer, database: &str) -> Tally {
    let answer = influx.query(database, "SELECT sum(value) FROM /.*/ GROUP BY *").unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let mut tally = Tally::new();
    for found in answer["results"][0]["series"].as_array().unwrap_or(&Vec::new()) {
        let tags = found["tags"].as_object().cloned().unwrap_or_default();
        // InfluxQL lists a tag that the series lacks as an empty one.
        let tags = tags.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_owned()));
        let tags: BTreeMap<String, String> = tags.filter(|(_, value)| !value.is_empty()).collect();
        let total = found["values"][0][1].as_u64().unwrap();
        tally.insert(series(found["name"].as_str().unwrap(), &tags), total);
    }
    tally
}

/// A series in its readable form.
pub fn series(name: &str, tags: &BTreeMap<String, String>) -> String {
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    if tags.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", tags.join(",")) }
}

/// Fails with the first differences.
pub fn assert_same(what: &str, found: &Tally, expected: &Tally) {
    let keys: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|key| found.get(*key) != expected.get(*key))
        .map(|key| format!("{key}: found {:?}, expected {:?}", found.get(key), expected.get(key)))
        .collect();
    assert!(
        differing.is_empty(),
        "{what}: {} series differ:\n{}",
        differing.len(),
        differing[..differing.len().min(10)].join("\n")
    );
}
