//! Every message that was ever valid still decodes to the same events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first surprise"
)]

mod support;

use std::path::Path;

use support::bodies::RECORD_TIME;
use tallybus_schemas::{Decoder, Encoding, Events, json};

fn as_text(events: &Events) -> String {
    let mut out = String::new();
    if let Some(origin) = events.last_origin() {
        let producer: String = origin.producer.iter().map(|byte| format!("{byte:02x}")).collect();
        out += &format!("{{\"producer\":\"{producer}\",\"sequence\":{},", origin.sequence);
        out += &format!("\"interval_start\":{},\"interval_end\":{},", origin.interval_start, origin.interval_end);
        out +=
            &format!("\"partition_total\":{},\"emitted_total\":{}}}\n", origin.partition_total, origin.emitted_total);
    }
    for event in events.to_vec() {
        let mut line = Vec::new();
        json::write_event(&mut line, &event);
        out += std::str::from_utf8(&line).unwrap();
        out.push('\n');
    }
    out
}

#[test]
fn every_golden_message_decodes_to_what_is_expected() {
    for encoding in Encoding::ALL {
        for (path, message) in support::golden(encoding) {
            let expected = std::fs::read_to_string(path.with_extension("expected"))
                .unwrap_or_else(|error| panic!("{} has no .expected file: {error}", path.display()));
            for named in [Some(encoding), None] {
                let mut events = Events::new();
                Decoder::new()
                    .decode(named, &message, RECORD_TIME, &mut events)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert_eq!(as_text(&events), expected, "{}", path.display());
            }
        }
    }
}

#[test]
fn every_expected_file_has_its_message() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    for encoding in Encoding::ALL {
        let messages = support::golden(encoding).len();
        let files = std::fs::read_dir(golden.join(encoding.name())).unwrap().count();
        assert_eq!(files, 2 * messages, "each message of {encoding} has one .expected file, and nothing else is there");
    }
}

#[test]
fn golden_native_messages_are_protobuf() {
    use prost::Message;
    for (path, message) in support::golden(Encoding::Native) {
        let batch = support::model::Batch::decode(message.as_slice()).unwrap();
        let mut events = Events::new();
        Decoder::new().decode(None, &message, 0, &mut events).unwrap();
        assert_eq!(batch.events(), events.to_vec(), "{}", path.display());
        assert_eq!(Some(&batch.origin()), events.last_origin());
    }
}
