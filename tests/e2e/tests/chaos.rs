//! The promise, under fire: three services emit while workers are killed, join and leave, the broker dies and comes back,
//! and InfluxDB fails in several ways. At the end every series is equal in both backends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise, in its helpers too")]

use std::time::{Duration, Instant};

use serde_json::Value;
use tallybus_e2e::fault_injection::{Load, inject_worker_faults, millis, say, seed};
use tallybus_e2e::{Fixture, Process, Tally, assert_same, influx_tally, sqlite_tally};
use tallybus_tests::{FaultProxy, KafkaServer, Mode, Rng};

const SERVICES: u64 = 3;
const LOAD: Load = Load { increments: 1_020_000, series: 340, seconds: 60 };
const SERVICE: &str = env!("CARGO_BIN_EXE_chaos-service");
const KILLS: u32 = 20;
const SINKS: [&str; 2] = ["influx", "local"];

#[test]
fn every_count_arrives_once_whatever_dies() {
    let Some(mut kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    let seed = seed();
    say(&format!("seed {seed} (TALLYBUS_SEED={seed} repeats the plan)"));
    influx.create_database("counts").unwrap();
    let proxy = FaultProxy::start(&influx.url()).unwrap();
    let fixture = Fixture::new(&settings(&kafka, &proxy));
    fixture.must(&["topic", "create"]);

    let mut services: Vec<Process> = (0..SERVICES).map(|number| LOAD.start(SERVICE, &kafka, number, seed)).collect();
    let disturbed = Instant::now();
    std::thread::scope(|scope| {
        for (number, sink) in SINKS.into_iter().enumerate() {
            let fixture = &fixture;
            let rng = Rng::new(seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9));
            scope.spawn(move || inject_worker_faults(fixture, sink, KILLS, rng));
        }
        scope.spawn(|| inject_backend_faults(&proxy, seed));
        inject_broker_faults(&mut kafka, seed);
    });
    say(&format!("fault_injection over after {:.0} s", disturbed.elapsed().as_secs_f64()));

    let mut expected = Tally::new();
    for service in &mut services {
        expected.extend(Load::report(service));
    }
    let emitted = SERVICES * LOAD.increments;
    assert_eq!(expected.values().sum::<u64>(), emitted);

    let mut workers: Vec<Process> = SINKS.iter().map(|sink| fixture.worker(sink, sink)).collect();
    let report = fixture.wait_until_equal(emitted, Duration::from_secs(90));
    say(&format!("equal after {:.0} s: {}", disturbed.elapsed().as_secs_f64(), report["sinks"]));
    for sink in report["sinks"].as_array().unwrap() {
        assert_eq!((&sink["missing"], &sink["extra"]), (&Value::from(0), &Value::from(0)));
    }
    for worker in &mut workers {
        assert!(worker.terminate(Duration::from_secs(20)).success(), "a worker asked to stop ends well");
    }
    assert_same("SQLite", &sqlite_tally(&fixture.path("counters.db")), &expected);
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

fn inject_backend_faults(proxy: &FaultProxy, seed: u64) {
    let mut rng = Rng::new(seed.wrapping_mul(3));
    let modes = [
        Mode::Unavailable { retry_after: Some(1) },
        Mode::ApplyThenCut,
        Mode::Refuse,
        Mode::CutRequest,
        Mode::Hang,
        Mode::Unavailable { retry_after: None },
    ];
    for mode in modes {
        std::thread::sleep(millis(&mut rng, 3_000, 8_000));
        proxy.set(mode);
        std::thread::sleep(millis(&mut rng, 1_000, 5_000));
        proxy.set(Mode::Pass);
    }
}

fn inject_broker_faults(kafka: &mut KafkaServer, seed: u64) {
    let mut rng = Rng::new(seed.wrapping_mul(7));
    std::thread::sleep(millis(&mut rng, 12_000, 30_000));
    kafka.kill();
    std::thread::sleep(millis(&mut rng, 500, 4_000));
    kafka.restart().unwrap();
}
