use tallybus_control::{Address, Desired};

use super::super::tests::{process, status};
use super::*;

#[test]
fn a_document_says_what_is_unknown_and_is_read_again_as_it_was_written() {
    let document = process(status()).document();
    let sink = &document.sinks[0];
    assert_eq!((sink.state, sink.lag_messages, sink.lag_seconds), (SinkState::Halted, None, None));
    assert_eq!((sink.events, sink.value.as_str()), (70, "18446744073709551616"));
    assert_eq!(sink.halts, ["a/b.c/1: was recreated"]);
    let [running, halted] = &sink.partitions[..] else { panic!("{sink:?}") };
    assert_eq!((running.topic.as_str(), running.partition, running.settled), ("a/b.c", 0, Some(5)));
    assert_eq!((halted.settled, halted.next, halted.end), (None, None, None));
    assert_eq!(halted.halted.as_ref().map(|halted| halted.cause.as_str()), Some("recreated"));
    let text = serde_json::to_string(&document).unwrap();
    assert_eq!(serde_json::from_str::<StatusDocument>(&text).unwrap(), document);
}

#[test]
fn a_partition_that_its_backend_halts_is_halted_and_one_that_is_retried_is_not() {
    let failure = |reason: &str, at: &str| crate::status::BackendFailure {
        reason: reason.to_owned(),
        partitions: vec![at.to_owned()],
    };
    let mut status = status();
    let (_, mut other) = status.partitions.pop_last().unwrap();
    other.state = PartitionState::Running;
    status.partitions.insert("a/b.c/1".to_owned(), other);
    let halted = format!("{}: no table", crate::failure_log::HALTED);
    status.backend_failures = vec![failure(&halted, "a/b.c/0"), failure("no answer", "a/b.c/1")];
    let sink = process(status).document().sinks.remove(0);
    let expected = HaltedPartition { cause: "backend".to_owned(), reason: "no table".to_owned() };
    assert_eq!((&sink.partitions[0].halted, sink.partitions[0].settled), (&Some(expected), Some(5)));
    assert_eq!(sink.partitions[1].halted, None);
}

#[test]
fn the_published_schema_describes_what_is_written() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/status.schema.json");
    let root: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(root["properties"]["version"]["const"], DOCUMENT_VERSION);
    let enums = |pointer: &str| root.pointer(pointer).unwrap().clone();
    let names = |labels: Vec<&str>| serde_json::to_value(labels).unwrap();
    let causes = crate::HaltCause::ALL.iter().map(|cause| cause.name()).collect();
    assert_eq!(enums("/$defs/halted/properties/cause/enum"), names(causes));
    let holds = crate::Hold::ALL.iter().map(|hold| hold.name()).collect();
    assert_eq!(enums("/$defs/sink/properties/hold/oneOf/1/enum"), names(holds));
    let mut schema = tallybus_tests::json_schema::JsonSchema::new(root);
    let halted = process(status()).document();
    let mut running = status();
    running.partitions.remove("a/b.c/1");
    let running = process(running).document();
    let resting = crate::Duty::Resting(crate::Rest {
        desired: Desired {
            version: 1,
            id: "1".to_owned(),
            issuer: "ada@desk".to_owned(),
            issued_ms: 1,
            target: Address::All,
            state: DesiredState::Drained,
            reason: "x".repeat(10_000),
        },
        progress: crate::RestProgress::Settled(Vec::new()),
    });
    let drained = process(WorkerStatus { duty: resting, ..WorkerStatus::default() });
    assert!(drained.obstacles().iter().any(|obstacle| obstacle.starts_with("influx: drained by ada@desk since 1970")));
    let drained = drained.document();
    assert_eq!(drained.sinks[0].state, SinkState::Drained);
    assert!(drained.sinks[0].control.as_ref().is_some_and(|control| control.text.len() <= MAX_TEXT));
    for document in
        [halted, drained, running.clone(), process(status()).farewell(), StatusDocument { sinks: vec![], ..running }]
    {
        assert_eq!(schema.violations(&serde_json::to_value(&document).unwrap()), [""; 0]);
    }
    let unused = schema.unused();
    assert!(unused.iter().all(|one| one.contains('=')), "not written: {unused:?}");
}

#[test]
fn the_lag_is_unknown_while_the_bus_does_not_answer() {
    let mut status = status();
    status.partitions.remove("a/b.c/1");
    let known = process(status.clone()).document();
    assert_eq!(known.sinks[0].lag_messages, Some(7));
    assert!(known.sinks[0].lag_seconds.is_some_and(|seconds| (30.0..40.0).contains(&seconds)));
    let failing = WorkerStatus { is_bus_failing: true, last_error: Some("away".to_owned()), ..status };
    let unknown = process(failing).document();
    let sink = &unknown.sinks[0];
    assert_eq!((sink.lag_messages, sink.lag_seconds, sink.oldest_unsettled_ms), (None, None, None));
    assert_eq!(sink.state, SinkState::Retrying);
}

#[test]
fn a_document_of_any_number_of_partitions_and_of_long_errors_fits_into_a_record() {
    let mut status = status();
    let (_, mut halted) = status.partitions.pop_last().unwrap();
    halted.state = PartitionState::Stopped { cause: crate::HaltCause::Start, reason: "x".repeat(10_000) };
    let name = "t".repeat(249);
    for number in 0..3_000 {
        status.partitions.insert(format!("{name}/{number}"), halted.clone());
    }
    status.last_error = Some("é".repeat(10_000));
    let document = process(status).document();
    assert_eq!((document.sinks[0].partitions.len(), document.partitions_left_out), (1_000, 2_001));
    let length = serde_json::to_string(&document).unwrap().len();
    assert!(length < 1_000_000, "{length} bytes");
}
