//! One topic, every backend at once, on real servers. Services count a million increments of a thousand series while the
//! worker of each sink is killed twenty times. At the end every backend holds the same, to the last count.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise, in its helpers too")]

use std::time::{Duration, Instant};

use serde_json::Value;
use tallybus_e2e::torment::{Dice, Load, say, seed, torment_worker};
use tallybus_e2e::{Process, Stage, Tally, assert_same, influx_tally, sqlite_tally};
use tallybus_tests::{InfluxServer, KafkaServer, PostgresServer};

const SERVICE: &str = env!("CARGO_BIN_EXE_chaos-service");
const SERVICES: u64 = 4;
const LOAD: Load = Load { increments: 250_000, series: 250, seconds: 60 };
const KILLS: u32 = 20;

/// The backends, as long as they are needed.
struct Backends {
    influx: InfluxServer,
    postgres: PostgresServer,
}

impl Backends {
    /// `None` where one of them is not installed and need not be.
    fn start() -> Option<Self> {
        let influx = tallybus_tests::influxdb()?;
        influx.create_database("counts").unwrap();
        Some(Self { influx, postgres: tallybus_tests::postgres()? })
    }

    /// The sinks' tables, each with its name.
    fn sinks(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "influx",
                format!(
                    "kind = \"influxdb\"\napi = \"v1\"\nurl = \"{}\"\ndatabase = \"counts\"\ntimeout = \"5s\"\n",
                    self.influx.url()
                ),
            ),
            ("local", "kind = \"sqlite\"\npath = \"{dir}/counters.db\"\n".to_owned()),
            // A selection of its own: fewer series, longer windows, the same total.
            (
                "merged",
                "kind = \"sqlite\"\npath = \"{dir}/merged.db\"\nwindow = \"10s\"\n\
                 select = { drop_tags = [\"place\"], tags = { env = \"test\" } }\n"
                    .to_owned(),
            ),
            (
                "postgres",
                format!(
                    "kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"counters\"\nuser = \"{}\"\n\
                     password = \"{}\"\n",
                    self.postgres.port(),
                    self.postgres.user(),
                    self.postgres.password()
                ),
            ),
        ]
    }
}

#[test]
fn every_backend_holds_the_same_whatever_worker_dies() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(backends) = Backends::start() else { return };
    let seed = seed();
    say(&format!("backends: seed {seed} (TALLYBUS_SEED={seed} repeats the plan)"));
    let sinks = backends.sinks();
    let stage = Stage::new(&settings(&kafka, &sinks));
    stage.must(&["topic", "create"]);
    stage.must(&["doctor", "--fix"]);

    let began = Instant::now();
    let mut services: Vec<Process> =
        (0..SERVICES).map(|number| LOAD.start(SERVICE, &kafka, number, seed ^ number)).collect();
    std::thread::scope(|scope| {
        for (number, (sink, _)) in (1_u64..).zip(&sinks) {
            let stage = &stage;
            let dice = Dice::new(seed ^ number.wrapping_mul(0x9E37_79B9));
            scope.spawn(move || torment_worker(stage, sink, KILLS, dice));
        }
    });
    say(&format!("backends: torment over after {:.0} s", began.elapsed().as_secs_f64()));

    let mut expected = Tally::new();
    for service in &mut services {
        expected.extend(Load::report(service));
    }
    let emitted = SERVICES * LOAD.increments;
    assert_eq!((expected.len() as u64, expected.values().sum::<u64>()), (SERVICES * LOAD.series, emitted));

    let mut workers: Vec<Process> = sinks.iter().map(|(sink, _)| stage.worker(sink, sink)).collect();
    let report = stage.wait_until_equal(emitted, Duration::from_secs(180));
    for sink in report["sinks"].as_array().unwrap() {
        say(&format!(
            "backends: {}: total {}, missing {}, extra {}",
            sink["name"], sink["total"], sink["missing"], sink["extra"]
        ));
        assert_eq!((&sink["missing"], &sink["extra"]), (&Value::from(0), &Value::from(0)));
    }
    for worker in &mut workers {
        assert!(worker.terminate(Duration::from_secs(30)).success(), "a worker asked to stop ends well");
    }
    assert_same("SQLite", &sqlite_tally(&stage.path("counters.db")), &expected);
    assert_same("InfluxDB", &influx_tally(&backends.influx, "counts"), &expected);
    let merged = sqlite_tally(&stage.path("merged.db"));
    assert_eq!(merged.values().sum::<u64>(), emitted, "dropped tags merge series; the total stays");
    assert!(merged.len() < expected.len() && merged.keys().all(|series| series.contains("env=\"test\"")), "{merged:?}");
}

fn settings(kafka: &KafkaServer, sinks: &[(&str, String)]) -> String {
    let mut text = format!("[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\npartitions = 4\n", kafka.bootstrap());
    for (name, table) in sinks {
        text.push_str(&format!("\n[sinks.{name}]\n{table}"));
    }
    text
}
