//! Workers that operators pause, drain, resume and ask, over real buses.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{Place, Ran, eventually};
use serde_json::Value;
use tallybus_bus::{Bus, BusAddress, NewRecord};
use tallybus_sdk::SealMetadata;
use tallybus_sdk::progress::GroupProgress;

const TOPIC: &str = "tallybus.counters";
const GROUP: &str = "tallybus.local";
const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_KEY: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

struct Worker {
    /// `None` once it has ended.
    child: Option<Child>,
    port: u16,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

/// A process that runs the workers of a place, under this name.
fn start(place: &Place, name: &str, args: &[&str], variables: &[(&str, &str)]) -> Worker {
    let port = tallybus_tests::free_port().unwrap();
    let mut command = place.command(&[&["run"], args].concat());
    command.env("TALLYBUS__STATUS__LISTEN", format!("127.0.0.1:{port}")).env("TALLYBUS__CONTROL__NAME", name);
    let worker = Worker { child: Some(place.spawn(command.envs(variables.iter().copied()))), port };
    eventually("the endpoints", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    worker
}

impl Worker {
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The state of its only sink.
    fn state(&self) -> String {
        let status: Value = serde_json::from_str(&self.get("/status").1).unwrap();
        status["sinks"][0]["state"].as_str().unwrap_or_default().to_owned()
    }

    fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").1;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(-1.0, |line| line.parse().unwrap())
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn kill(self) {
        drop(self);
    }

    fn end(mut self) -> Ran {
        self.signal("-TERM");
        Ran::of(self.child.take().unwrap().wait_with_output().unwrap()).expect(0)
    }
}

/// Everything that is sealed in the group, and how far it is settled in all.
fn progress(bus: &dyn Bus) -> GroupProgress {
    GroupProgress::read(bus.observer().unwrap().as_ref(), GROUP, &[TOPIC]).unwrap()
}

fn sum(place: &Place) -> i64 {
    let file = rusqlite::Connection::open(place.file("local.db")).unwrap();
    file.query_row("SELECT coalesce(sum(value), 0) FROM counters", [], |row| row.get(0)).unwrap_or_default()
}

#[test]
fn drained_is_said_once_it_is_true_survives_a_kill_and_ends_with_a_resume() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "3"]).expect(0);
    let worker = start(&place, "w-1", &[], &[]);
    eventually("the first counts", || sum(&place) == 3);
    let lock = rusqlite::Connection::open(place.file("local.db")).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    place.run(&["emit", "hits", "4"]).expect(0);
    let bus = place.bus();
    eventually("a sealed batch", || progress(&bus).sealed_batches() > 0);
    let args = ["ctl", "drain", "sink/local", "--deadline", "3s", "--reason", "disk change"];
    let expired = place.run(&args).expect(4);
    assert!(expired.out.contains("draining: ") && expired.out.contains("in flight"), "{}", expired.out);
    assert_eq!(worker.state(), "draining");
    assert!(progress(&bus).sealed_batches() > 0);
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    // The same again has the same answer, once it is true.
    let drained = place.run(&["ctl", "drain", "sink/local", "--reason", "disk change", "--json"]).expect(0).json();
    let one = &drained["addressees"][0];
    assert_eq!((&one["addressee"], &one["outcome"]), (&"sink/local@w-1".into(), &"done".into()));
    assert_eq!((progress(&bus).sealed_batches(), sum(&place)), (0, 7));
    assert_eq!(worker.state(), "drained");
    let (ready, why) = worker.get("/readyz");
    assert!(ready == 503 && why.contains("local: drained by ") && why.contains(": disk change"), "{ready} {why}");
    assert_eq!(worker.get("/healthz").0, 200);
    assert_eq!(worker.metric("tallybus_sink_control{sink=\"local\",state=\"drained\"}"), 1.0);
    let asked = place.run(&["ctl", "status", "worker/w-1"]).expect(0);
    assert!(asked.out.contains("sink/local@w-1 (") && asked.out.contains("drained"), "{}", asked.out);

    place.run(&["emit", "hits", "5"]).expect(0);
    worker.kill();
    let worker = start(&place, "w-1", &[], &[]);
    eventually("it to be drained again", || worker.state() == "drained");
    let shown = place.run(&["ctl", "show"]).expect(0).out;
    assert!(shown.contains("drained") && shown.contains("sink/local@w-1"), "{shown}");
    let refused = place.run(&["run", "--until-caught-up"]).expect(1);
    assert!(refused.err.contains("it is drained by") && refused.err.contains("ctl resume"), "{}", refused.err);
    assert_eq!(sum(&place), 7);
    let resumed = place.run(&["ctl", "resume", "all", "--json"]).expect(0).json();
    assert_eq!((&resumed["asked"], &resumed["answered"]), (&1.into(), &1.into()), "{resumed}");
    eventually("the rest of the counts", || sum(&place) == 12);
    assert_eq!(worker.state(), "running");
    let ran = worker.end();
    assert!(ran.err.contains("an operator wants another state"), "{}", ran.err);
    place.run(&["audit"]).expect(0);
}

#[test]
fn each_exit_status_says_what_came_of_it_and_what_is_no_command_is_refused_and_counted() {
    let place = Place::with_local();
    place.run(&["topic", "create"]).expect(0);
    let none = place.run(&["ctl", "pause", "sink/local"]).expect(2);
    assert!(
        none.err.contains("no worker runs that sink/local means") && none.err.contains("--for-later"),
        "{}",
        none.err
    );
    place.run(&["ctl", "pause", "sink/local", "--for-later"]).expect(0);
    let worker = start(&place, "w-1", &[], &[]);
    eventually("it to be paused", || worker.state() == "paused");
    place.run(&["emit", "hits", "3"]).expect(0);
    place.run(&["ctl", "resume", "kind/sqlite"]).expect(0);
    eventually("the counts", || sum(&place) == 3);

    eventually("a dump of all partitions", || {
        let dump = place.run(&["ctl", "dump", "all", "--json"]).expect(0).json();
        let held = &dump["addressees"][0]["data"];
        held["state"] == "running" && held["partitions"].as_array().unwrap().len() == 4
    });
    let tried = place.run(&["ctl", "retry-now", "all"]).expect(0);
    assert!(tried.out.contains("tried at once: partitions that wait for their backend: 0"), "{}", tried.out);
    place.run(&["ctl", "status", "service/orders"]).expect(2);
    place.run(&["ctl", "status", "local"]).expect(2);

    let command = |id: &str, expires_ms: i64, name: &str| {
        format!(
            r#"{{"version":1,"id":"{id}","issuer":"x","issued_ms":{},"expires_ms":{expires_ms},"target":"all","name":"{name}"}}"#,
            expires_ms - 60_000
        )
    };
    let soon = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap() + 60_000;
    for payload in [
        "{".to_owned(),
        command("old", 1_000_000, "status"),
        command("unknown", soon, "shutdown"),
        command("twice", soon, "status"),
        command("twice", soon, "status"),
    ] {
        place.publish_with("tallybus.commands", payload.as_bytes(), &[]);
    }
    for reason in ["malformed", "expired", "unknown", "repeated"] {
        let series = format!("tallybus_commands_refused_total{{reason=\"{reason}\"}}");
        eventually(reason, || worker.metric(&series) == 1.0);
    }
    worker.signal("-STOP");
    let silent = place.run(&["ctl", "status", "all", "--wait", "1s"]).expect(3);
    assert!(silent.out.contains("0 of 1 answered") && silent.out.contains("silent, last seen"), "{}", silent.out);
    worker.signal("-CONT");
    let ran = worker.end();
    assert_eq!(ran.err.matches("a command was refused").count(), 4, "{}", ran.err);
}

#[test]
fn with_keys_only_what_one_of_them_signed_is_taken_and_only_signed_answers_count() {
    let place = Place::with_local();
    place.run(&["topic", "create"]).expect(0);
    // Those who ask have settings of their own, without a key.
    let settings = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    place.write("worker.toml", &format!("{settings}[control]\nkeys = [\"env:CTL_KEY\"]\n"));
    let worker = start(&place, "w-1", &["--config", "worker.toml"], &[("CTL_KEY", KEY)]);
    let ctl = |args: &[&str], key: &str| Ran::of(place.command(args).env("K", key).output().unwrap());
    eventually("it to be known", || ctl(&["ctl", "status", "all", "--key", "env:K"], KEY).status == 0);
    let unsigned = ctl(&["ctl", "status", "all"], "").expect(1);
    assert!(unsigned.out.contains("refused: not signed"), "{}", unsigned.out);
    // The answer to it is signed with a key that this asker does not know.
    let wrong = ctl(&["ctl", "status", "all", "--key", "env:K", "--wait", "1s"], OTHER_KEY).expect(3);
    assert!(!wrong.out.contains(OTHER_KEY) && !wrong.err.contains(OTHER_KEY));
    // It would take the place of a signed one on the bus.
    let unsigned = ctl(&["ctl", "drain", "all", "--wait", "1s"], "").expect(2);
    assert!(unsigned.err.contains("takes signed commands only"), "{}", unsigned.err);
    let long = "x".repeat(1_001);
    ctl(&["ctl", "drain", "all", "--key", "env:K", "--reason", &long], KEY).expect(2);
    assert_eq!(worker.metric("tallybus_commands_refused_total{reason=\"wrong_signature\"}"), 1.0);
    eventually("the unsigned one", || worker.metric("tallybus_commands_refused_total{reason=\"unsigned\"}") == 1.0);
    assert_ne!(worker.state(), "drained");
    ctl(&["ctl", "drain", "all", "--key", "env:K"], KEY).expect(0);
    assert_eq!(worker.state(), "drained");
    let ran = worker.end();
    assert!(!ran.err.contains(KEY), "{}", ran.err);
    let on_the_line = ctl(&["ctl", "status", "all", "--key", KEY], "").expect(2);
    assert!(!on_the_line.err.contains(KEY), "{}", on_the_line.err);
}

/// Publishes events of value 1 until it is stopped, and counts them.
struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Load {
    fn start(bus: Arc<dyn Bus>) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let publish = move || {
            let mut publisher = bus.publisher().unwrap();
            while !stopped.load(Ordering::Acquire) {
                for partition in 0..4 {
                    let payload = b"{\"name\":\"hits\",\"value\":1}";
                    let record =
                        NewRecord { topic: TOPIC, partition: Some(partition), key: None, payload, headers: &[] };
                    publisher.publish(record, 1).unwrap();
                }
                let mut deliveries = Vec::new();
                while deliveries.len() < 4 {
                    publisher.poll(Duration::from_millis(100), &mut deliveries);
                }
                assert!(deliveries.iter().all(|delivery| delivery.outcome.is_ok()));
                counted.fetch_add(4, Ordering::AcqRel);
                thread::sleep(Duration::from_millis(2));
            }
        };
        Self { stop, count, thread: thread::spawn(publish) }
    }

    /// How many there were.
    fn end(self) -> i64 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
        i64::try_from(self.count.load(Ordering::Acquire)).unwrap()
    }
}

#[test]
fn of_two_workers_on_kafka_one_is_drained_under_load_and_the_other_takes_over_exactly() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = Place::with_local();
    let url = format!("kafka://{}", kafka.bootstrap());
    let bus: Arc<dyn Bus> = Arc::from(BusAddress::parse(&url).unwrap().open().unwrap());
    let ctl = |args: &[&str]| place.run(&[&["ctl"], args, &["--bus", &url]].concat());
    place.run(&["topic", "create", "--bus", &url]).expect(0);
    let deaf = start(&place, "w-0", &["--bus", &url], &[]);
    eventually("a worker that takes no commands", || ctl(&["status", "all"]).status == 3);
    deaf.end();

    let variables = [("TALLYBUS__CONTROL__UNSIGNED", "true")];
    let (first, second) =
        (start(&place, "w-1", &["--bus", &url], &variables), start(&place, "w-2", &["--bus", &url], &variables));
    let load = Load::start(Arc::clone(&bus));
    let owns = |worker: &Worker| worker.metric("tallybus_sink_partitions{sink=\"local\"}");
    eventually("both to have partitions", || owns(&first) > 0.0 && owns(&second) > 0.0);
    let settled = |worker: &Worker| worker.metric("tallybus_sink_settled_events_total{sink=\"local\"}");
    eventually("both to write", || settled(&first) > 0.0 && settled(&second) > 0.0);

    let drained = ctl(&["drain", "sink/local@w-1", "--json"]).expect(0).json();
    // Nothing of what it names is taken back, and others go on from there.
    for partition in drained["addressees"][0]["data"]["partitions"].as_array().unwrap() {
        let held = progress(bus.as_ref());
        let named = partition["partition"].as_str().unwrap();
        let at = held.partitions.iter().find(|one| one.at.to_string() == named).unwrap();
        assert!(at.settled >= partition["offset"].as_u64(), "{named}: {at:?} and {partition}");
    }
    assert_eq!(first.state(), "drained");
    eventually("the other one to have all", || owns(&second) == 4.0);
    let written = settled(&first);
    let asked = ctl(&["status", "sink/local", "--json"]).expect(0).json();
    assert_eq!(asked["answered"], 2, "{asked}");

    // Nobody else has partitions: what it names is what the group holds, and nothing is sealed.
    let drained = ctl(&["drain", "sink/local@w-2", "--json"]).expect(0).json();
    let held = bus.observer().unwrap().committed(&[(GROUP, TOPIC)]).unwrap().remove(0);
    let named = drained["addressees"][0]["data"]["partitions"].as_array().unwrap();
    assert_eq!(named.len(), 4, "{drained}");
    for partition in named {
        let number: usize = partition["partition"].as_str().unwrap().rsplit_once('/').unwrap().1.parse().unwrap();
        let held = held[number].as_ref().unwrap();
        assert_eq!(Some(held.offset), partition["offset"].as_u64());
        assert!(SealMetadata::parse(held.offset, &held.metadata).unwrap().ends.is_empty());
    }
    assert_eq!(settled(&first), written);
    second.kill();
    let second = start(&place, "w-2", &["--bus", &url], &variables);
    eventually("it to be drained again", || second.state() == "drained");
    ctl(&["resume", "all"]).expect(0);
    let count = load.end();
    eventually("all to be written", || sum(&place) == count);
    first.end();
    second.end();
    place.run(&["audit", "--bus", &url]).expect(0);
}
