//! The promise, under fire: three services emit while workers are killed, join and leave, the broker dies and comes back,
//! and InfluxDB fails in several ways. At the end every series is equal in both backends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise, in its helpers too")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tallybus_e2e::{Process, Stage, Tally, assert_same, influx_tally, sqlite_tally};
use tallybus_tests::{FaultProxy, KafkaServer, Mode};

const SERVICES: u64 = 3;
const INCREMENTS: u64 = 1_020_000;
const SERIES: u64 = 340;
const KILLS: u32 = 20;
const SINKS: [&str; 2] = ["influx", "local"];

/// The numbers of a seed: the same seed, the same plan.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// Also when the test passes, and as it happens.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "chaos: {line}");
}

fn seed() -> u64 {
    let given = std::env::var("TALLYBUS_SEED").ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    given.unwrap_or_else(|| u64::try_from(now.as_millis()).unwrap())
}

#[test]
fn every_count_arrives_once_whatever_dies() {
    let Some(mut kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    let seed = seed();
    say(&format!("seed {seed} (TALLYBUS_SEED={seed} repeats the plan)"));
    influx.create_database("counts").unwrap();
    let proxy = FaultProxy::start(&influx.url()).unwrap();
    let stage = Stage::new(&settings(&kafka, &proxy));
    stage.must(&["topic", "create"]);

    let mut services: Vec<Process> = (0..SERVICES).map(|number| service(&kafka, number, seed)).collect();
    let disturbed = Instant::now();
    std::thread::scope(|scope| {
        for (number, sink) in SINKS.into_iter().enumerate() {
            let stage = &stage;
            scope.spawn(move || torment_worker(stage, sink, seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9)));
        }
        scope.spawn(|| torment_backend(&proxy, seed));
        torment_broker(&mut kafka, seed);
    });
    say(&format!("torment over after {:.0} s", disturbed.elapsed().as_secs_f64()));

    let mut expected = Tally::new();
    for service in &mut services {
        expected.extend(report_of(service));
    }
    let emitted = SERVICES * INCREMENTS;
    assert_eq!(expected.values().sum::<u64>(), emitted);

    let mut workers: Vec<Process> = SINKS.iter().map(|sink| stage.worker(sink, sink)).collect();
    let report = stage.wait_until_equal(emitted, Duration::from_secs(90));
    say(&format!("equal after {:.0} s: {}", disturbed.elapsed().as_secs_f64(), report["sinks"]));
    for sink in report["sinks"].as_array().unwrap() {
        assert_eq!((&sink["missing"], &sink["extra"]), (&Value::from(0), &Value::from(0)));
    }
    for worker in &mut workers {
        assert!(worker.terminate(Duration::from_secs(20)).success(), "a worker asked to stop ends well");
    }
    assert_same("SQLite", &sqlite_tally(&stage.path("counters.db")), &expected);
    assert_same("InfluxDB", &influx_tally(&influx, "counts"), &expected);
}

fn settings(kafka: &KafkaServer, proxy: &FaultProxy) -> String {
    format!(
        r#"
[bus]
kind = "kafka"
brokers = "{}"
partitions = 4

[sinks.influx]
kind = "influxdb"
url = "{}"
api = "v1"
database = "counts"
timeout = "2s"
batch = {{ max_events = 1000, max_delay = "150ms" }}

[sinks.local]
kind = "sqlite"
path = "{{dir}}/counters.db"
batch = {{ max_events = 1000, max_delay = "150ms" }}
"#,
        kafka.bootstrap(),
        proxy.url()
    )
}

fn service(kafka: &KafkaServer, number: u64, seed: u64) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos-service"));
    command.args(["--bus", &format!("kafka://{}", kafka.bootstrap())]);
    command.args(["--service", &format!("service-{number}")]);
    command.args(["--series", &SERIES.to_string(), "--increments", &INCREMENTS.to_string()]);
    command.args(["--seconds", "60", "--seed", &(seed ^ number).to_string()]);
    Process::start({
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    })
}

/// What the service itself counted, by series.
fn report_of(service: &mut Process) -> Tally {
    let mut output = service.child().stdout.take().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut output, &mut text).unwrap();
    assert!(service.wait(Duration::from_secs(60)).success(), "the service delivers everything: {text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["undelivered"], 0, "{report}");
    report["series"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(series, total)| (series.clone(), total.as_u64().unwrap()))
        .collect()
}

/// Kills the sink's worker again and again, and lets a second one join and leave meanwhile.
fn torment_worker(stage: &Stage, sink: &str, seed: u64) {
    let mut dice = Dice(seed | 1);
    let mut worker = stage.worker(sink, sink);
    let mut second: Option<Process> = None;
    for kill in 0..KILLS {
        // Some kills hit a worker that is joining, some one that writes.
        let wait = if kill % 4 == 0 { dice.millis(7_000, 11_000) } else { dice.millis(50, 5_000) };
        std::thread::sleep(wait);
        assert!(worker.is_alive(), "the {sink} worker ended by itself:\n{}", stage.log_tail(sink));
        worker.kill();
        worker = stage.worker(sink, sink);
        if kill % 5 == 2 {
            second = Some(stage.worker(sink, &format!("{sink}-second")));
        }
        if kill % 5 == 4
            && let Some(mut leaving) = second.take()
        {
            let asked = Instant::now();
            let status = leaving.terminate(Duration::from_secs(30));
            say(&format!("{sink}: {kill} kills, and a second worker left in {:.1} s", asked.elapsed().as_secs_f64()));
            assert!(
                status.success(),
                "the second {sink} worker leaves well:\n{}",
                stage.log_tail(&format!("{sink}-second"))
            );
        }
    }
    std::thread::sleep(dice.millis(100, 2_000));
    worker.kill();
}

fn torment_backend(proxy: &FaultProxy, seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(3) | 1);
    let modes = [
        Mode::Unavailable { retry_after: Some(1) },
        Mode::ApplyThenCut,
        Mode::Refuse,
        Mode::CutRequest,
        Mode::Hang,
        Mode::Unavailable { retry_after: None },
    ];
    for mode in modes {
        std::thread::sleep(dice.millis(3_000, 8_000));
        proxy.set(mode);
        std::thread::sleep(dice.millis(1_000, 5_000));
        proxy.set(Mode::Pass);
    }
}

fn torment_broker(kafka: &mut KafkaServer, seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(7) | 1);
    std::thread::sleep(dice.millis(12_000, 30_000));
    kafka.kill();
    std::thread::sleep(dice.millis(500, 4_000));
    kafka.restart().unwrap();
}
