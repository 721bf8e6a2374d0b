//! A service outside this workspace: it links what it asked for, builds, runs, and its counts arrive.
//!
//! The services lie in `examples/`. They are compiled into `target/examples`, which both share.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{Bus, TopicOptions, read_topic};
use tallybus_schemas::{Decoder, Encoding, Events};
use tallybus_tests::KafkaServer;

const TOPIC: &str = "tallybus.counters";

fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples").join(name)
}

/// The packages of a `Cargo.lock`, by name.
fn locked_packages(service: &str) -> Vec<String> {
    let lock = std::fs::read_to_string(package(service).join("Cargo.lock")).unwrap();
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = "));
    names.map(|name| name.trim_matches('"').to_owned()).collect()
}

fn is_aws(name: &str) -> bool {
    name.starts_with("aws-")
}

/// Compiles the service, which fails where its `Cargo.lock` is out of date, and returns the program.
fn build(service: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("examples");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--manifest-path"])
        .arg(package(service).join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        // Nothing is debugged, and a quarter of the time is saved.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "{service}: {}", String::from_utf8_lossy(&output.stderr));
    target.join("debug").join(service)
}

/// Runs the service with a broker, and returns what it printed.
fn run(program: &Path, kafka: &KafkaServer) -> String {
    let output = Command::new(program)
        .env("TALLYBUS_COLLECTOR_BUS", format!("kafka://{}", kafka.bootstrap()))
        .env("TALLYBUS_COLLECTOR_KAFKA_CLIENT_ID", "a-service")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The sum of all counts on the bus.
fn total(bus: &KafkaBus) -> u64 {
    let (mut total, mut decoder) = (0, Decoder::new());
    read_topic(bus, &*bus.observer().unwrap(), TOPIC, Duration::from_secs(30), &mut |record| {
        let mut events = Events::new();
        decoder.decode(Some(Encoding::Native), record.payload, 0, &mut events).unwrap();
        total += events.iter().map(|(_, value, _)| value).sum::<u64>();
    })
    .unwrap();
    total
}

fn broker() -> Option<(KafkaServer, KafkaBus)> {
    let kafka = tallybus_tests::kafka()?;
    let bus = KafkaBus::new(&kafka.bootstrap(), &std::collections::BTreeMap::new()).unwrap();
    assert!(bus.create_topic(TOPIC, &TopicOptions::new(2)).unwrap());
    Some((kafka, bus))
}

#[test]
fn a_service_with_kafka_only_links_no_sqlite_and_delivers() {
    let packages = locked_packages("minimal-service");
    for unwanted in ["rusqlite", "libsqlite3-sys", "reqwest", "openssl-src"] {
        assert!(!packages.iter().any(|name| name == unwanted), "{unwanted}");
    }
    assert!(packages.iter().any(|name| name == "rdkafka") && !packages.iter().any(|name| is_aws(name)));
    let lines = std::fs::read_to_string(package("minimal-service").join("src/main.rs")).unwrap();
    assert!(lines.lines().count() <= 10, "a service of ten lines");
    let Some((kafka, bus)) = broker() else { return };
    let printed = run(&build("minimal-service"), &kafka);
    assert!(printed.starts_with("emitted 3, delivered 3"), "{printed}");
    assert_eq!(total(&bus), 3);
}

#[test]
fn a_service_with_sqlite_of_its_own_links_it_beside_the_collector_and_delivers() {
    let packages = locked_packages("service-with-sqlx");
    assert_eq!(packages.iter().filter(|name| *name == "libsqlite3-sys").count(), 1);
    assert!(!packages.iter().any(|name| name == "rusqlite" || name == "reqwest" || is_aws(name)));
    let Some((kafka, bus)) = broker() else { return };
    let printed = run(&build("service-with-sqlx"), &kafka);
    assert!(printed.starts_with("3 rows; emitted 3, delivered 3"), "{printed}");
    assert_eq!(total(&bus), 3);
}
