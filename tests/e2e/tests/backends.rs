//! One topic, every backend at once, on real servers. Services count a million increments of a thousand series while the
//! worker of each sink is killed twenty times. At the end every backend holds the same, to the last count.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise, in its helpers too")]

use std::time::{Duration, Instant};

use serde_json::Value;
use tallybus_e2e::backends::{Backends, settings};
use tallybus_e2e::fault_injection::{Load, inject_worker_faults, say, seed};
use tallybus_e2e::{Fixture, Process, Tally, assert_same, influx_tally, sqlite_tally};
use tallybus_tests::{FrontMode, Rng};

const SERVICE: &str = env!("CARGO_BIN_EXE_chaos-service");
const SERVICES: u64 = 4;
const LOAD: Load = Load { increments: 250_000, series: 250, seconds: 60 };
const KILLS: u32 = 20;

#[test]
fn every_backend_holds_the_same_whatever_worker_dies() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(backends) = Backends::start() else { return };
    let seed = seed();
    say(&format!("backends: seed {seed} (TALLYBUS_SEED={seed} repeats the plan)"));
    let sinks = backends.sinks();
    let fixture = Fixture::new(&settings(&kafka, &sinks));
    fixture.must(&["topic", "create"]);
    fixture.must(&["doctor", "--fix"]);

    let began = Instant::now();
    let mut services: Vec<Process> =
        (0..SERVICES).map(|number| LOAD.start(SERVICE, &kafka, number, seed ^ number)).collect();
    std::thread::scope(|scope| {
        for (number, (sink, _)) in (1_u64..).zip(&sinks) {
            let fixture = &fixture;
            let rng = Rng::new(seed ^ number.wrapping_mul(0x9E37_79B9));
            scope.spawn(move || inject_worker_faults(fixture, sink, KILLS, rng));
        }
    });
    say(&format!("backends: fault_injection over after {:.0} s", began.elapsed().as_secs_f64()));

    let mut expected = Tally::new();
    for service in &mut services {
        expected.extend(Load::report(service));
    }
    let emitted = SERVICES * LOAD.increments;
    assert_eq!((expected.len() as u64, expected.values().sum::<u64>()), (SERVICES * LOAD.series, emitted));

    let mut workers: Vec<Process> = sinks.iter().map(|(sink, _)| fixture.worker(sink, sink)).collect();
    let report = fixture.wait_until_equal(emitted, Duration::from_secs(180));
    for sink in report["sinks"].as_array().unwrap() {
        let (total, missing, extra) = (&sink["total"], &sink["missing"], &sink["extra"]);
        say(&format!("backends: {}: total {total}, missing {missing}, extra {extra}", sink["name"]));
        assert_eq!((missing, extra), (&Value::from(0), &Value::from(0)));
    }
    for worker in &mut workers {
        assert!(worker.terminate(Duration::from_secs(30)).success(), "a worker asked to stop ends well");
    }
    assert_same("SQLite", &sqlite_tally(&fixture.path("counters.db")), &expected);
    assert_same("InfluxDB", &influx_tally(&backends.influx, "counts"), &expected);
    assert_eq!(backends.receiver.total(), emitted);
    let merged = sqlite_tally(&fixture.path("merged.db"));
    assert_eq!(merged.values().sum::<u64>(), emitted, "dropped tags merge series; the total stays");
    assert!(merged.len() < expected.len(), "{} series of {}", merged.len(), expected.len());
    assert!(merged.keys().all(|series| series.contains("env=\"test\"")), "{merged:?}");
}

/// Two backends take nothing for a minute: their own lag grows, the others do not notice, and the log tells it once.
#[test]
fn a_backend_that_takes_nothing_hurts_no_other() {
    const AWAY: Duration = Duration::from_secs(60);
    const SMALL: Load = Load { increments: 100_000, series: 100, seconds: 20 };
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(backends) = Backends::start() else { return };
    let sinks = backends.sinks();
    let fixture = Fixture::new(&settings(&kafka, &sinks));
    fixture.must(&["topic", "create"]);
    fixture.must(&["doctor", "--fix"]);
    backends.dynamodb.set(FrontMode { throttle: 100, ..FrontMode::default() });
    backends.redshift.behave(|behaviour| behaviour.statements_exceeded = true);
    let began = Instant::now();

    // One process for all: they share nothing but that.
    let log = std::fs::File::create(fixture.path("all.log")).unwrap();
    let mut command = fixture.tallybus(&["run"]);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mut workers = Process::start(command);
    let mut service = SMALL.start(SERVICE, &kafka, 0, 1);
    let expected = Load::report(&mut service);
    let emitted: u64 = expected.values().sum();

    let healthy = ["influx", "local", "postgres", "vendor", "click", "files", "merged"];
    let mut args = vec!["audit"];
    healthy.iter().for_each(|sink| args.extend(["--sink", *sink]));
    loop {
        let (_, report) = fixture.json(&args);
        let sinks = report["sinks"].as_array().unwrap();
        if sinks.iter().all(|sink| sink["total"] == emitted && sink["missing"] == 0 && sink["extra"] == 0) {
            break;
        }
        assert!(began.elapsed() < AWAY, "the others wait for the two that are stuck: {report:#}");
        std::thread::sleep(Duration::from_millis(300));
    }
    say(&format!("backends: the others were equal after {:.0} s", began.elapsed().as_secs_f64()));
    let (_, stuck) = fixture.json(&["audit", "--sink", "dynamo", "--sink", "redshift"]);
    for sink in stuck["sinks"].as_array().unwrap() {
        // Redshift takes no question either.
        let is_behind = sink["behind"].as_u64().is_some_and(|behind| behind > 0);
        assert!(is_behind || sink["error"].to_string().contains("ActiveStatementsExceeded"), "{stuck:#}");
    }

    std::thread::sleep(AWAY.saturating_sub(began.elapsed()));
    let told = std::fs::read_to_string(fixture.path("all.log")).unwrap();
    for word in ["ProvisionedThroughputExceededException", "ActiveStatementsExceededException"] {
        let lines: Vec<&str> = told.lines().filter(|line| line.contains(word)).collect();
        assert!((1..=2).contains(&lines.len()), "{word} is told {} times:\n{}", lines.len(), lines.join("\n"));
    }
    backends.dynamodb.set(FrontMode::default());
    backends.redshift.behave(|behaviour| behaviour.statements_exceeded = false);
    fixture.wait_until_equal(emitted, Duration::from_secs(120));
    assert!(workers.terminate(Duration::from_secs(30)).success());
}
