//! What a running worker process shows: endpoints over HTTP, and heartbeats on the bus.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Place, Ran, eventually};
use serde_json::Value;
use tallybus_bus::{Bus, BusAddress, TopicOptions};
use tallybus_sdk::clock::Clock;
use tallybus_tests::json_schema::JsonSchema;
use tallybus_verify::heartbeats::{Heartbeats, Presence};
use tallybus_worker::SystemClock;

const TOPIC: &str = "tallybus.control";

struct Worker {
    child: Child,
    port: u16,
}

/// A process that runs the workers of a place, with endpoints.
fn start(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Worker {
    let port = tallybus_tests::free_port().unwrap();
    let mut command = place.command(&[&["run"], args].concat());
    command.env("TALLYBUS__STATUS__LISTEN", format!("127.0.0.1:{port}")).envs(variables.iter().copied());
    let worker = Worker { child: place.spawn(&mut command), port };
    eventually("the endpoints", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    worker
}

impl Worker {
    /// Status and body of an answer.
    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status", "").1).unwrap()
    }

    /// The value of a series; `None` while it is absent.
    fn metric(&self, series: &str) -> Option<f64> {
        let page = self.get("/metrics", "").1;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    fn signal(&self, name: &str) {
        common::signal(&self.child, name);
    }

    fn end(self) -> Ran {
        self.signal("-TERM");
        let output: Output = self.child.wait_with_output().unwrap();
        Ran::of(output).expect(0)
    }
}

/// The presence of each worker process, oldest id first.
fn presences(beats: &mut Heartbeats) -> Vec<(String, Presence)> {
    beats.refresh(Duration::from_secs(5)).unwrap();
    beats.workers().map(|worker| (worker.document.worker.clone(), worker.presence)).collect()
}

fn heartbeats(bus: Arc<dyn Bus>) -> Heartbeats {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Heartbeats::new(bus, TOPIC, clock)
}

#[test]
fn a_working_process_counts_exactly_what_it_settled_and_is_ready() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "3"]).expect(0);
    place.publish(0, &[b"{\"name\":\"hits\",\"value\":4}\ngarbage\n"]);
    let worker = start(&place, &[], &[]);
    eventually("all of it settled", || worker.metric("tallybus_sink_lag_messages{sink=\"local\"}") == Some(0.0));
    for (series, value) in [
        ("tallybus_sink_settled_value_total{sink=\"local\"}", 7.0),
        ("tallybus_sink_dead_letters_total{sink=\"local\"}", 1.0),
        ("tallybus_sink_lag_seconds{sink=\"local\"}", 0.0),
        ("tallybus_sink_partitions{sink=\"local\"}", 4.0),
        ("tallybus_sink_up{sink=\"local\",kind=\"sqlite\"}", 1.0),
        ("tallybus_sink_failing{sink=\"local\"}", 0.0),
        ("tallybus_sink_rebalances_total{sink=\"local\",change=\"assigned\"}", 1.0),
    ] {
        eventually(series, || worker.metric(series) == Some(value));
    }
    let count = |name: &str| worker.metric(&format!("tallybus_sink_{name}{{sink=\"local\"}}")).unwrap();
    assert!(count("settled_batches_total") >= 1.0);
    assert_eq!(count("settled_batches_total"), count("sealed_batches_total"));
    assert_eq!(count("settled_batches_total"), count("batch_events_count"));
    assert_eq!(count("settled_events_total"), count("batch_events_sum"));
    eventually("ready", || worker.get("/readyz", "") == (200, "ok\n".to_owned()));
    assert_eq!(worker.get("/healthz", ""), (200, "ok\n".to_owned()));
    let open_metrics = worker.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n").1;
    assert!(open_metrics.ends_with("# EOF\n"), "{open_metrics}");

    let status = worker.status();
    let schema = format!("{}/../../docs/status.schema.json", env!("CARGO_MANIFEST_DIR"));
    let mut schema = JsonSchema::new(serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap());
    assert_eq!(schema.violations(&status), [""; 0]);
    let local = &status["sinks"][0];
    assert_eq!((&local["name"], &local["state"], &local["value"]), (&"local".into(), &"running".into(), &"7".into()));
    let ran = worker.end();
    assert!(!ran.err.contains("heartbeat"), "{}", ran.err);
}

#[test]
fn endpoints_answer_while_the_bus_is_away_and_what_is_unknown_is_absent() {
    let place = Place::with_local();
    let away = format!("kafka://127.0.0.1:{}", tallybus_tests::free_port().unwrap());
    let worker = start(&place, &["--bus", &away], &[]);
    let begun = Instant::now();
    assert_eq!(worker.get("/healthz", ""), (200, "ok\n".to_owned()));
    assert_eq!(worker.get("/readyz", ""), (503, "waiting for the bus\n".to_owned()));
    assert_eq!(worker.status()["state"], "starting");
    assert_eq!(worker.metric("tallybus_sink_lag_messages{sink=\"local\"}"), None);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let ran = worker.end();
    assert!(!ran.err.contains("heartbeat"), "{}", ran.err);
}

#[test]
fn endpoints_answer_while_a_backend_hangs_and_its_lag_grows_while_the_other_sink_writes() {
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::with_settings(&format!(
        "[sinks.hangs]\nkind = \"influxdb\"\napi = \"v1\"\nurl = \"http://{}\"\ndatabase = \"d\"\n\
         [sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\nbatch = {{ max_delay = \"50ms\" }}\n",
        silent.local_addr().unwrap()
    ));
    place.run(&["emit", "hits", "3"]).expect(0);
    let worker = start(&place, &[], &[]);
    eventually("one second behind", || {
        worker.metric("tallybus_sink_lag_seconds{sink=\"hangs\"}").is_some_and(|seconds| seconds > 1.0)
    });
    eventually("the other one to write", || worker.metric("tallybus_sink_lag_messages{sink=\"local\"}") == Some(0.0));
    let begun = Instant::now();
    assert_eq!(worker.get("/healthz", "").0, 200);
    let (ready, reasons) = worker.get("/readyz", "");
    assert!(ready == 503 && reasons.contains("hangs: the backend is not ready yet"), "{ready} {reasons}");
    assert_eq!(worker.metric("tallybus_sink_lag_messages{sink=\"hangs\"}"), Some(1.0));
    let status = worker.status();
    assert_eq!((&status["sinks"][0]["name"], &status["sinks"][0]["ready"]), (&"hangs".into(), &false.into()));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    worker.signal("-KILL");
    let mut killed = worker.child;
    killed.wait().unwrap();
}

#[test]
fn a_token_is_demanded_where_it_is_set_and_elsewhere_than_loopback_settings_without_one_are_refused() {
    let place = Place::with_local();
    let open = |place: &Place, listen: &str, token: Option<&str>| {
        let mut command = place.command(&["run"]);
        command.env("TALLYBUS__STATUS__LISTEN", listen);
        if let Some(token) = token {
            command.env("TALLYBUS__STATUS__TOKEN", token);
        }
        Ran::of(command.output().unwrap())
    };
    let refused = open(&place, "0.0.0.0:0", None).expect(2);
    assert!(refused.err.contains("status.listen") && refused.err.contains("set `token`"), "{}", refused.err);
    let refused = open(&place, "0.0.0.0:0", Some("env:NO_SUCH_VARIABLE")).expect(2);
    assert!(refused.err.contains("status.token") && refused.err.contains("NO_SUCH_VARIABLE"), "{}", refused.err);

    let variables = [("TALLYBUS__STATUS__TOKEN", "env:STATUS_TOKEN"), ("STATUS_TOKEN", "hunter2-hunter2")];
    let worker = start(&place, &[], &variables);
    assert_eq!(worker.get("/status", "").0, 401);
    assert_eq!(worker.get("/metrics", "Authorization: Bearer wrong\r\n").0, 401);
    assert_eq!(worker.get("/metrics", "Authorization: Bearer hunter2-hunter2\r\n").0, 200);
    assert_eq!(worker.get("/healthz", "").0, 200);
    let ran = worker.end();
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    // Commands that listen on nothing need no token.
    place.write(
        "tallybus.toml",
        &format!("{}[status]\nlisten = \"0.0.0.0:1\"\ntoken = \"env:NO_SUCH_VARIABLE\"\n", {
            std::fs::read_to_string(place.file("tallybus.toml")).unwrap()
        }),
    );
    place.run(&["count"]).expect(0);
    let shown = place.run(&["config", "show"]).expect(0).out;
    assert!(shown.contains("env:NO_SUCH_VARIABLE (not set)"), "{shown}");
}

#[test]
fn a_port_that_is_in_use_ends_the_start_with_a_message_that_names_the_setting() {
    let place = Place::with_local();
    let worker = start(&place, &[], &[]);
    let mut second = place.command(&["run"]);
    second.env("TALLYBUS__STATUS__LISTEN", format!("127.0.0.1:{}", worker.port));
    let refused = Ran::of(second.output().unwrap()).expect(2);
    assert!(refused.err.contains("cannot listen on") && refused.err.contains("[status]"), "{}", refused.err);
    worker.end();
}

#[test]
fn heartbeats_show_processes_that_live_left_and_were_killed_and_take_one_record_each() {
    let place = Place::with_local();
    place.run(&["topic", "create"]).expect(0);
    let mut beats = heartbeats(Arc::new(place.bus()));
    assert!(!beats.refresh(Duration::from_millis(10)).unwrap(), "there is no topic yet");
    let (first, second) = (start(&place, &[], &[]), start(&place, &[], &[]));
    let ids = [&first, &second].map(|worker| worker.status()["worker"].as_str().unwrap().to_owned());
    let is =
        |beats: &mut Heartbeats, id: &str, presence: Presence| presences(beats).contains(&(id.to_owned(), presence));
    eventually("both", || ids.iter().all(|id| is(&mut beats, id, Presence::Live)));
    first.end();
    eventually("the first to have left", || is(&mut beats, &ids[0], Presence::Left));
    second.signal("-KILL");
    eventually("the second to be silent", || is(&mut beats, &ids[1], Presence::Silent));
    assert_eq!((beats.skipped(), beats.left_out()), (0, 0));
    assert!(is(&mut beats, &ids[0], Presence::Left));
    let document = beats.workers().find(|worker| worker.document.worker == ids[1]).unwrap();
    assert_eq!(document.document.sinks[0].name, "local");
    // One who comes later sees the same, and the file does not grow with them.
    let mut fresh = heartbeats(Arc::new(place.bus()));
    assert_eq!(presences(&mut fresh).len(), 2);
    let file = rusqlite::Connection::open(place.file("bus.db")).unwrap();
    let records =
        "SELECT count(*) FROM records r JOIN partitions p ON r.id >> 40 = p.id JOIN topics t ON t.id = p.topic
                   WHERE t.name = ?1";
    let records: u64 = file.query_row(records, [TOPIC], |row| row.get(0)).unwrap();
    assert_eq!(records, 2);
    let mut killed = second.child;
    killed.wait().unwrap();
}

#[test]
fn without_heartbeats_there_is_no_topic_of_them() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "3"]).expect(0);
    let mut command = place.command(&["run", "--until-caught-up"]);
    Ran::of(command.env("TALLYBUS__STATUS__HEARTBEATS", "false").output().unwrap()).expect(0);
    assert_eq!(place.bus().observer().unwrap().partitions(&[TOPIC]).unwrap(), [None]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(place.bus().observer().unwrap().partitions(&[TOPIC]).unwrap(), [Some(1)]);
}

#[test]
fn a_control_topic_that_cannot_be_written_is_one_warning_and_nothing_waits_for_it() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "3"]).expect(0);
    // A topic whose rows another program has taken away: every heartbeat fails.
    place.bus().create_topic(TOPIC, &TopicOptions::new(1)).unwrap();
    let file = rusqlite::Connection::open(place.file("bus.db")).unwrap();
    file.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON records WHEN new.id >> 40 = (SELECT p.id FROM partitions p JOIN topics t ON \
         t.id = p.topic WHERE t.name = 'tallybus.control') BEGIN SELECT RAISE(ABORT, 'refused for the test'); END",
        [],
    )
    .unwrap();
    let worker = start(&place, &[], &[]);
    eventually("the counts", || worker.metric("tallybus_sink_settled_value_total{sink=\"local\"}") == Some(3.0));
    // Longer than a heartbeat may take to be confirmed.
    eventually("failed heartbeats", || {
        worker.metric("tallybus_heartbeats_failed_total").is_some_and(|count| count >= 1.0)
    });
    let begun = Instant::now();
    let ran = worker.end();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let warnings: Vec<&str> = ran.err.lines().filter(|line| line.contains("publishing heartbeats failed")).collect();
    assert_eq!(warnings.len(), 1, "{}", ran.err);
    assert!(warnings[0].contains("heartbeats = false in [status]"), "{}", warnings[0]);
}

#[test]
fn heartbeats_on_kafka_are_on_a_compacted_topic_and_are_read_without_a_group() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = Place::with_local();
    let url = format!("kafka://{}", kafka.bootstrap());
    let bus = BusAddress::parse(&url).unwrap();
    let worker = start(&place, &["--bus", &url], &[]);
    let id = worker.status()["worker"].as_str().unwrap().to_owned();
    let bus: Arc<dyn Bus> = Arc::from(bus.open().unwrap());
    let mut beats = heartbeats(Arc::clone(&bus));
    eventually("its heartbeat", || presences(&mut beats).contains(&(id.clone(), Presence::Live)));
    eventually("some more", || worker.metric("tallybus_heartbeats_total").is_some_and(|count| count >= 3.0));
    assert!(bus.observer().unwrap().retention(&[TOPIC]).unwrap()[0].compacts);
    worker.end();
    eventually("it to have left", || presences(&mut beats).contains(&(id.clone(), Presence::Left)));
    assert_eq!(beats.skipped(), 0);
}

#[test]
fn a_broker_that_is_away_is_a_failing_bus_also_after_a_session_without_it() {
    let Some(mut kafka) = tallybus_tests::kafka() else { return };
    let place = Place::with_local();
    let url = format!("kafka://{}", kafka.bootstrap());
    place.run(&["topic", "create", "--bus", &url]).expect(0);
    let worker = start(&place, &["--bus", &url], &[]);
    eventually("it to be ready", || worker.get("/readyz", "").0 == 200);
    kafka.kill();
    let is_failing = || worker.metric("tallybus_sink_bus_failing{sink=\"local\"}") == Some(1.0);
    eventually("the failure", is_failing);
    // Longer than a session: a member without one gives its partitions up, and has nothing left to ask the bus for.
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        assert!(is_failing());
        std::thread::sleep(Duration::from_millis(200));
    }
    let ran = worker.end();
    assert!(!ran.err.contains("the bus has recovered"), "{}", ran.err);
}
