//! The watermark against the truth: services are killed, hang, end, start and have wrong clocks, workers are killed, and whatever
//! moment is looked at, a sink has everything that its watermark claims. Whether it had is known in the end, when all events are
//! on the bus.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::{Place, eventually};
use rusqlite::{Connection, OpenFlags};
use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{Bus, Observer, read_topic};
use tallybus_schemas::{Decoder, Encoding, Events};
use tallybus_verify::live::WatchedSink;
use tallybus_verify::producers::{ProducersTopic, Watermark, read_sinks, watermark};

const TOPIC: &str = "tallybus.counters";
/// The window of the sink.
const WINDOW: i64 = 1_000_000;
const SOON: Duration = Duration::from_secs(60);
/// How many moments are looked at while services and workers live and die.
const MOMENTS: usize = 400;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, mode, bus, name, offset] = &args[..]
        && mode == "service"
    {
        return service(bus, name, offset.parse().unwrap());
    }
    // The harness lists tests of a binary in this way.
    if args.iter().any(|arg| arg == "--list") {
        println!("the_watermark_is_never_ahead_of_the_truth: test");
        return;
    }
    on_the_embedded_bus();
    on_kafka();
}

/// By how many seconds the clock of this service is off.
static OFFSET: AtomicI64 = AtomicI64::new(0);

fn wall_clock() -> SystemTime {
    let offset = OFFSET.load(Ordering::Relaxed);
    let length = Duration::from_secs(offset.unsigned_abs());
    if offset < 0 { SystemTime::now() - length } else { SystemTime::now() + length }
}

/// Counts until its standard input is closed.
fn service(bus: &str, name: &str, offset: i64) {
    OFFSET.store(offset, Ordering::Relaxed);
    let builder = tallybus::builder().service(name).instance("one").create_topic(3).with_wall_clock(wall_clock);
    let builder = builder.flush_interval(Duration::from_millis(40)).checkpoint_interval(Duration::from_millis(200));
    let guard = builder.start(tallybus::connect(bus).unwrap()).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _end = std::io::stdin().read_to_end(&mut Vec::new());
            is_over.store(true, Ordering::Relaxed);
        });
        let mut number = 0u64;
        while !is_over.load(Ordering::Relaxed) {
            tallybus::count!("events", route = number % 17);
            number += 1;
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(guard.shutdown(SOON).is_complete());
}

/// A child that does not outlive the test.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Closes its standard input and waits for its end.
    fn end(&mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_over = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn on_the_embedded_bus() {
    let place = Place::with_settings(
        "[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\nwindow = \"1ms\"\nbatch = { max_delay = \"50ms\" }\n",
    );
    let bus: Arc<dyn Bus> = Arc::new(place.bus());
    let address = format!("embedded:{}", place.file("bus.db").display());
    Fixture { place, bus, address }.run();
}

fn on_kafka() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = Place::new();
    let brokers = kafka.bootstrap();
    place.write(
        "tallybus.toml",
        &format!(
            "[bus]\nkind = \"kafka\"\nbrokers = \"{brokers}\"\n[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n\
             window = \"1ms\"\nbatch = {{ max_delay = \"50ms\" }}\n"
        ),
    );
    let bus: Arc<dyn Bus> = Arc::new(KafkaBus::new(&brokers, &BTreeMap::new()).unwrap());
    Fixture { place, bus, address: format!("kafka://{brokers}") }.run();
}

struct Fixture {
    place: Place,
    bus: Arc<dyn Bus>,
    address: String,
}

/// What a sink was claimed to have, and had.
struct Moment {
    before: i64,
    /// The sum in the backend of the windows that end before.
    had: u64,
}

impl Fixture {
    fn service(&self, name: &str, offset: i64) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["service", &self.address, name, &offset.to_string()]).stdin(Stdio::piped());
        Process(command.spawn().unwrap())
    }

    fn worker(&self) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(self.place.file("log")).unwrap();
        Process(self.place.command(&["run"]).stderr(log).spawn().unwrap())
    }

    fn run(&self) {
        self.place.run(&["topic", "create", "--partitions", "3"]).expect(0);
        // A broker that has just started may still be loading its groups.
        eventually("an answer about the group", || self.place.run(&["settled"]).status == 0);
        let nothing = self.place.run(&["settled", "--json"]).expect(0).json();
        assert!(nothing["sinks"][0]["complete_before"].is_null(), "no service has said anything: {nothing}");
        let mut topic = ProducersTopic::new(Arc::clone(&self.bus), "tallybus.producers");
        let observer = self.bus.observer().unwrap();
        let mut moments = self.live_and_die(observer.as_ref(), &mut topic);

        // The killed one holds the watermark until it is dismissed.
        let until = Instant::now() + SOON;
        let held = loop {
            let held = self.place.run(&["settled", "--json"]).expect(0).json()["sinks"][0].clone();
            if held["holders"] == 1 && held["held_by"][0]["cause"] == "silent" {
                break held;
            }
            assert!(Instant::now() < until, "not only the killed service holds the watermark: {held:#}");
            thread::sleep(Duration::from_millis(200));
        };
        let holder = &held["held_by"][0];
        assert_eq!((&holder["service"], &holder["cause"]), (&"killed".into(), &"silent".into()), "{held}");
        self.place.run(&["settled", "--at", "now"]).expect(1);
        let table = self.place.run(&["producers", "--all"]).expect(0).out;
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert!(table.contains("killed/one") && table.contains("silent") && table.contains("ended"), "{table}");
        let listed = self.place.run(&["producers", "--json", "--service", "killed"]).expect(0).json();
        assert_eq!(listed["producers"].as_array().unwrap().len(), 1, "{listed}");
        let id = holder["producer"].as_str().unwrap();
        self.place.run(&["producers", "dismiss", &id[..12]]).expect(0);
        self.place.run(&["producers", "dismiss", "0000"]).expect(2);

        let begun = Instant::now();
        let settled = self.place.run(&["settled", "--wait", "60s", "--json"]).expect(0).json();
        println!("settled --wait returned after {:?}: {settled}", begun.elapsed());
        moments.push(self.look(observer.as_ref(), &mut topic).unwrap());
        self.check(observer.as_ref(), &moments);
        self.place.run(&["audit"]).expect(0);
    }

    /// Services and workers come and go, while moments are looked at.
    fn live_and_die(&self, observer: &dyn Observer, topic: &mut ProducersTopic) -> Vec<Moment> {
        let mut killed = self.service("killed", 0);
        let mut steady = self.service("steady", 0);
        let mut hung = self.service("hung", 0);
        let mut short = self.service("short", 0);
        let mut ahead = self.service("ahead", 3_600);
        let mut late = None;
        let mut worker = self.worker();
        eventually("the first watermark", || self.look(observer, topic).is_some());
        let mut moments = Vec::new();
        let mut strict = 0;
        for number in 0..MOMENTS {
            match number * 100 / MOMENTS {
                10 if late.is_none() => late = Some(self.service("late", 0)),
                20 if short.0.stdin.is_some() => short.end(),
                _ => {}
            }
            if number == MOMENTS * 3 / 10 {
                killed.kill();
            }
            if number == MOMENTS * 4 / 10 {
                hung.signal("-STOP");
            }
            if number == MOMENTS * 7 / 10 {
                hung.signal("-CONT");
            }
            if number == MOMENTS / 4 || number == MOMENTS * 6 / 10 {
                worker.kill();
                worker = self.worker();
            }
            // Every fourth moment the worker stands still: nothing is settled between the claim and the look at the backend.
            let is_strict = number % 4 == 0;
            if is_strict {
                worker.signal("-STOP");
            }
            let moment = self.look(observer, topic);
            if is_strict {
                worker.signal("-CONT");
                strict += usize::from(moment.is_some());
            }
            moments.extend(moment);
            thread::sleep(Duration::from_millis(20));
        }
        assert!(moments.len() > MOMENTS / 2 && strict > MOMENTS / 10, "{} moments, {strict} strict", moments.len());
        let values: std::collections::BTreeSet<i64> = moments.iter().map(|moment| moment.before).collect();
        assert!(values.len() > 10, "the watermark moves: {values:?}");
        for service in [&mut steady, &mut hung, &mut ahead, late.as_mut().unwrap()] {
            service.end();
        }
        worker.signal("-TERM");
        assert!(worker.0.wait().unwrap().success());
        self.place.run(&["run", "--until-caught-up"]).expect(0);
        moments
    }

    /// The watermark now, and what the backend has; `None` while it is unknown.
    fn look(&self, observer: &dyn Observer, topic: &mut ProducersTopic) -> Option<Moment> {
        let before = self.watermark(observer, topic)?.before?;
        Some(Moment { before, had: sum_in(&self.place.file("local.db"), window_of(before))? })
    }

    fn watermark(&self, observer: &dyn Observer, topic: &mut ProducersTopic) -> Option<Watermark> {
        let sink = WatchedSink {
            name: "local".to_owned(),
            kind: None,
            group: "tallybus.local".to_owned(),
            topics: vec![TOPIC.to_owned()],
            dead_letter_topic: "tallybus.dead.local".to_owned(),
            replay_topic: "tallybus.replay.local".to_owned(),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        topic.refresh(observer).unwrap();
        let sinks = read_sinks(observer, &[sink]).unwrap();
        Some(watermark(topic.known(), sinks.first()?, i64::try_from(now.as_nanos()).unwrap()))
    }

    /// Compares every moment with what is now known to be dated before its watermark.
    fn check(&self, observer: &dyn Observer, moments: &[Moment]) {
        let mut dated: Vec<(i64, u64)> = Vec::new();
        let mut decoder = Decoder::new();
        read_topic(self.bus.as_ref(), observer, TOPIC, SOON, &mut |record| {
            let mut events = Events::new();
            decoder.decode(Some(Encoding::Native), record.payload, 0, &mut events).unwrap();
            dated.extend(events.iter().map(|(_, value, time)| (time, value)));
        })
        .unwrap();
        let true_sum =
            |before: i64| dated.iter().filter(|(time, _)| *time < before).map(|(_, value)| value).sum::<u64>();
        for (number, moment) in moments.iter().enumerate() {
            let expected = true_sum(window_of(moment.before));
            assert_eq!(moment.had, expected, "moment {number} of {}: watermark {}", moments.len(), moment.before);
        }
        // At rest it is as far as it can be: beyond every event of a clock that is right.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_nanos()).unwrap();
        let last = dated.iter().map(|(time, _)| *time).filter(|time| *time < now).max().unwrap();
        assert!(moments.last().unwrap().before > last && moments.last().unwrap().had > 0);
        println!("{} moments, {} events: the watermark was never ahead", moments.len(), dated.len());
    }
}

fn window_of(time: i64) -> i64 {
    time - time.rem_euclid(WINDOW)
}

/// The sum of the windows before; `None` while the sink has created nothing.
fn sum_in(database: &Path, before: i64) -> Option<u64> {
    let sqlite = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    sqlite.busy_timeout(SOON).unwrap();
    let query = "SELECT coalesce(sum(value), 0) FROM counters WHERE window_start < ?1";
    sqlite.query_row(query, [before], |row| row.get::<_, i64>(0)).ok().map(i64::unsigned_abs)
}
