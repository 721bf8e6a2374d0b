//! Offsets of Kafka at which no record can be read: markers of transactions, aborted and open ones, and records that
//! cannot be decompressed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use common::Place;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use tallybus_tests::KafkaServer;

const TOPIC: &str = "tallybus.counters";
const WAIT: Duration = Duration::from_secs(30);

fn fixture(kafka: &KafkaServer, more: &str) -> Place {
    let place = Place::new();
    place.write(
        "tallybus.toml",
        &format!(
            r#"
[bus]
kind = "kafka"
brokers = "{}"
partitions = 1
{more}
[sinks.local]
kind = "sqlite"
path = "counters.db"
batch = {{ max_delay = "100ms" }}
"#,
            kafka.bootstrap()
        ),
    );
    place.run(&["topic", "create"]).expect(0);
    place
}

fn producer(kafka: &KafkaServer, properties: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap());
    for (name, value) in properties {
        config.set(*name, *value);
    }
    config.create().unwrap()
}

/// A producer whose transaction is open.
fn in_transaction(kafka: &KafkaServer, id: &str, events: usize) -> BaseProducer {
    let producer = producer(kafka, &[("transactional.id", id)]);
    producer.init_transactions(WAIT).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "{\"name\":\"hits\"}", events);
    producer
}

fn send(producer: &BaseProducer, payload: &str, records: usize) {
    for _ in 0..records {
        let record = BaseRecord::<(), str>::to(TOPIC).partition(0).payload(payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(WAIT).unwrap();
}

/// As retention does.
fn delete_below(kafka: &KafkaServer, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(TOPIC, 0, Offset::Offset(offset)).unwrap();
    let options = AdminOptions::new();
    let mut asked = std::pin::pin!(admin.delete_records(&offsets, &options));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while asked.as_mut().poll(&mut context).is_pending() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the backend holds, equal to the bus, with nothing behind.
fn total(place: &Place) -> u64 {
    let audit = place.run(&["audit", "--json"]).expect(0).json();
    assert_eq!((&audit["equal"], &audit["sinks"][0]["behind"]), (&json!(true), &json!(0)), "{audit:#}");
    audit["sinks"][0]["total"].as_u64().unwrap()
}

/// What the backend holds.
fn sum(place: &Place) -> i64 {
    let database = rusqlite::Connection::open(place.file("counters.db")).unwrap();
    database.query_row("SELECT sum(total) FROM counts", [], |row| row.get(0)).unwrap()
}

#[test]
fn markers_and_aborted_records_are_settled_and_are_no_gap_after_retention() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = fixture(&kafka, "");
    in_transaction(&kafka, "one", 3).commit_transaction(WAIT).unwrap();
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place), 3);
    in_transaction(&kafka, "two", 5).abort_transaction(WAIT).unwrap();
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place), 3, "nothing of the aborted transaction, and nothing behind");

    // A quiet topic is emptied, marker and all: 3 records, a marker, 5 records, a marker.
    delete_below(&kafka, 10);
    in_transaction(&kafka, "three", 4).commit_transaction(WAIT).unwrap();
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(sum(&place), 7);
}

#[test]
fn a_compacted_topic_is_refused_by_run_and_doctor_and_doctor_says_how_long_records_are_kept() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = fixture(&kafka, "");
    place.run(&["emit", "hits", "3"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    kafka.alter_topic(TOPIC, "retention.ms=172800000,retention.bytes=5000").unwrap();
    let doctor = place.run(&["doctor"]).expect(0);
    for expected in [
        "retention of tallybus.counters: records are kept for 2d, or 5,000 bytes a partition if that is reached first",
        "retention of offsets: kept for 7d after the last commit",
    ] {
        assert!(doctor.out.contains(expected), "{doctor:?}");
    }
    kafka.alter_topic(TOPIC, "cleanup.policy=[compact,delete]").unwrap();
    let refused = place.run(&["run", "--until-caught-up"]).expect(2);
    assert!(refused.err.contains("is compacted") && refused.err.contains("Nothing was read from it"), "{refused:?}");
    let doctor = place.run(&["doctor"]).expect(1);
    assert!(doctor.out.contains("FAIL  retention of tallybus.counters"), "{doctor:?}");
    kafka.alter_topic(TOPIC, "cleanup.policy=delete").unwrap();
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place), 3);
}

#[test]
fn records_behind_an_open_transaction_are_behind_and_not_caught_up_with() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = fixture(&kafka, "");
    send(&producer(&kafka, &[]), "{\"name\":\"hits\"}", 2);
    let open = in_transaction(&kafka, "open", 5);
    send(&producer(&kafka, &[]), "{\"name\":\"hits\"}", 7);

    let mut run = place.command(&["run", "--until-caught-up"]).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(12));
    assert!(run.try_wait().unwrap().is_none(), "it claims to be caught up");
    let audit = place.run(&["audit", "--json"]).json();
    assert_eq!(audit["sinks"][0]["behind"], 12, "{audit:#}");
    let doctor = place.run(&["doctor"]);
    assert!(doctor.out.contains("messages behind") && doctor.out.contains("transaction is open"), "{doctor:#?}");
    open.commit_transaction(WAIT).unwrap();
    let output = run.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("a producer's transaction is open before them"), "{log}");
    assert_eq!(total(&place), 14);
}

#[test]
fn records_that_expand_beyond_the_bound_are_dead_letters_and_stop_nothing() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let bound = "[bus.kafka]\n\"receive.message.max.bytes\" = \"300000\"\n\"fetch.max.bytes\" = \"200000\"\n\
                 \"message.max.bytes\" = \"200000\"\n";
    let place = fixture(&kafka, bound);
    send(&producer(&kafka, &[]), "{\"name\":\"hits\"}", 3);
    // Three records in one compressed batch, and one alone: 3 to 5, and 6.
    let bomb = "{\"name\":\"m\"}\n".repeat(30_000);
    let compressed = [("compression.type", "zstd"), ("message.max.bytes", "5000000"), ("linger.ms", "2000")];
    let bombs = producer(&kafka, &compressed);
    send(&bombs, &bomb, 3);
    send(&bombs, &bomb, 1);
    send(&producer(&kafka, &[]), "{\"name\":\"hits\"}", 2);

    let run = place.run(&["run", "--until-caught-up"]).expect(0);
    assert!(run.err.contains("records cannot be decompressed: each becomes a dead letter"), "{}", run.err);
    assert_eq!(sum(&place), 5);
    let audit = place.run(&["audit", "--json"]).expect(0).json();
    let sink = &audit["sinks"][0];
    assert_eq!((&audit["equal"], &audit["undecodable"]), (&json!(true), &json!(4)), "{audit:#}");
    assert_eq!((&sink["dead_letters"], &sink["behind"]), (&json!(4), &json!(0)), "{audit:#}");
    let count = place.run(&["count", "--json"]).expect(0).json();
    assert_eq!((&count["total"], &count["undecodable"]), (&json!(5), &json!(4)), "{count}");
    let shown = place.run(&["replay", "show", "tallybus.counters/0/4"]).expect(0);
    assert!(shown.out.contains("receive.message.max.bytes"), "{shown:#?}");
    // They are not sent as nothing, and count once the bound is raised.
    let replay = place.run(&["replay", "run", "--sink", "local"]);
    assert!(replay.err.contains("stays on the bus"), "{replay:#?}");
    let settings = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    place.write("tallybus.toml", &settings.replace(bound, ""));
    place.run(&["replay", "run", "--sink", "local"]).expect(0);
    assert_eq!(sum(&place), 5 + 4 * 30_000);
}
