//! A group of Kafka whose offsets another program has set, or deleted, and the way out of the halt: nothing is counted twice or
//! passed over unless the operator accepts it by name.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Place;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tallybus_tests::KafkaServer;

const TOPIC: &str = "tallybus.counters";
const AT: &str = "--partition tallybus.counters/0";

/// Twenty messages of one in InfluxDB and SQLite.
fn written(kafka: &KafkaServer, influx: &str) -> Place {
    let place = Place::new();
    place.write(
        "tallybus.toml",
        &format!(
            "[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\npartitions = 1\n\
             [sinks.influx]\nkind = \"influxdb\"\nurl = \"{influx}\"\napi = \"v1\"\ndatabase = \"counts\"\n\
             [sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n",
            kafka.bootstrap()
        ),
    );
    place.run(&["topic", "create"]).expect(0);
    emit(&place, 20);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place
}

/// A message for each event.
fn emit(place: &Place, events: usize) {
    for _ in 0..events {
        place.run(&["emit", "hits", "1"]).expect(0);
    }
}

fn totals(place: &Place) -> Vec<Value> {
    let audit = place.run(&["audit", "--json"]).expect(0).json();
    assert_eq!(audit["equal"], true, "{audit}");
    audit["sinks"].as_array().unwrap().iter().map(|sink| sink["total"].clone()).collect()
}

/// Commits without metadata, as other programs do.
fn set_offset(kafka: &KafkaServer, group: &str, offset: i64) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("group.id", group);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(TOPIC, 0, Offset::Offset(offset)).unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn after_a_foreign_commit_or_a_deleted_group_a_reset_counts_nothing_twice_and_passes_nothing_over() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    influx.create_database("counts").unwrap();
    let place = written(&kafka, &influx.url());
    let refused = |sink: &str, to: &str, expected: &[&str]| {
        let ran = place.run(&["group", "reset", sink, "--to", to, "--yes"]).expect(2);
        for expected in expected {
            assert!(flat(&ran.err).contains(expected), "no {expected:?} in {ran:?}");
        }
    };
    let set = |sink: &str, to: &str| {
        place.run(&["group", "reset", sink, "--to", to, "--yes"]).expect(0);
    };

    // To the oldest offset, by Kafka's own tool.
    for group in ["tallybus.influx", "tallybus.local"] {
        kafka.reset_group(group, TOPIC).unwrap();
    }
    refused(
        "influx",
        "oldest",
        &[
            "20 messages are read again: counted twice in influxdb",
            "the group had settled everything up to 20, as its workers last noted",
            &format!("`tallybus group reset influx --to 20 {AT} --yes`"),
            "--accept-double`",
        ],
    );
    let dry = place.run(&["group", "reset", "local", "--to", "oldest"]).expect(0);
    assert!(flat(&dry.out).contains("the sink halts and counts none twice"), "{dry:?}");
    for sink in ["influx", "local"] {
        set(sink, "20");
    }
    emit(&place, 10);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(totals(&place), [json!(30), json!(30)]);

    // To the newest one, past messages that are not written.
    emit(&place, 10);
    for (sink, group) in [("influx", "tallybus.influx"), ("local", "tallybus.local")] {
        set_offset(&kafka, group, 40);
        let expected =
            ["10 messages are passed over: never counted", &format!("--to 30 {AT} --yes`"), "--accept-loss`"];
        refused(sink, "newest", &expected);
        set(sink, "30");
    }
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(totals(&place), [json!(40), json!(40)]);

    // Deleted.
    for group in ["tallybus.influx", "tallybus.local"] {
        kafka.delete_group(group).unwrap();
    }
    refused("influx", "oldest", &["40 messages are read again: counted twice in influxdb", "--accept-double`"]);
    let audit = place.run(&["audit", "--json"]).expect(1).json();
    for sink in audit["sinks"].as_array().unwrap() {
        assert_eq!((&sink["never_ran"], &sink["offsets_gone"]), (&json!(false), &json!(true)), "{sink}");
    }
    for sink in ["influx", "local"] {
        set(sink, "40");
    }
    emit(&place, 1);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(totals(&place), [json!(41), json!(41)]);
}
