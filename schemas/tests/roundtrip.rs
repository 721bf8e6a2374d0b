//! Whatever events there are, every encoding gives them back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first surprise"
)]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use support::bodies;
use support::model::Batch;
use tallybus_schemas::{Decoder, Encoding, Event, Events, NativeEncoder, Origin};

fn origin() -> impl Strategy<Value = Origin> {
    (any::<[u8; 16]>(), any::<u64>(), support::times(), support::times(), any::<u64>(), any::<u64>()).prop_map(
        |(producer, sequence, interval_start, interval_end, partition_total, emitted_total)| Origin {
            producer,
            sequence,
            interval_start,
            interval_end,
            partition_total,
            emitted_total,
        },
    )
}

fn pairs(tags: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn push(encoder: &mut NativeEncoder, event: &Event, end: i64) {
    let tags: Vec<(&str, &str)> = event.series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
    if event.time == end {
        encoder.push(event.series.name(), &tags, event.value);
    } else {
        encoder.push_at(event.series.name(), &tags, event.value, event.time);
    }
}

proptest! {
    #[test]
    fn json_gives_events_back(events in support::events()) {
        bodies::through_json(&events);
    }

    #[test]
    fn line_protocol_gives_events_back(events in support::events()) {
        bodies::through_lines(&events);
    }

    #[test]
    fn native_gives_events_back(events in support::events()) {
        bodies::through_native(&events);
    }

    /// Common tags, times, several messages from one encoder; and `prost` reads the same as our own decoder.
    #[test]
    fn prost_reads_what_the_encoder_writes(
        common in support::tags(),
        messages in prop::collection::vec((origin(), support::events(), any::<bool>()), 1..3),
    ) {
        let mut encoder = NativeEncoder::new(&pairs(&common));
        let mut decoder = Decoder::new();
        for (origin, mut events, is_uniform) in messages {
            if is_uniform {
                events.iter_mut().for_each(|event| event.time = origin.interval_end);
            }
            events.iter().for_each(|event| push(&mut encoder, event, origin.interval_end));
            prop_assert_eq!(encoder.events(), events.len());
            prop_assert_eq!(encoder.is_empty(), events.is_empty());
            let total = events.iter().fold(0_u64, |sum, event| sum.wrapping_add(event.value));
            prop_assert_eq!(encoder.total(), total);
            let estimate = encoder.len_estimate();
            let message = encoder.finish(&origin);
            prop_assert!(message.len() <= estimate);
            prop_assert!(encoder.is_empty() && encoder.total() == 0);

            for event in &mut events {
                let mut tags = common.clone();
                let own = event.series.tags().iter().map(|(key, value)| (key.to_string(), value.to_string()));
                tags.extend(own);
                event.series = support::series(event.series.name(), &tags);
            }
            let batch = Batch::decode(message.as_slice()).unwrap();
            prop_assert_eq!(batch.origin(), origin);
            prop_assert_eq!(&batch.events(), &events);
            prop_assert_eq!(batch.event_time.is_empty(), is_uniform || batch.event_value.is_empty()
                || events.iter().all(|event| event.time == origin.interval_end));

            let mut received = Events::new();
            decoder.decode(None, &message, 0, &mut received).unwrap();
            prop_assert_eq!(received.to_vec(), events);
            prop_assert_eq!(received.last_origin(), Some(&origin));
        }
    }

    #[test]
    fn the_decoder_reads_what_prost_writes(origin in origin(), events in support::events()) {
        let message = Batch::plain(&origin, &events).encode_to_vec();
        let mut received = Events::new();
        Decoder::new().decode(Some(Encoding::Native), &message, 0, &mut received).unwrap();
        prop_assert_eq!(received.to_vec(), events);
        prop_assert_eq!(received.last_origin(), Some(&origin));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(message in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = bodies::decode(None, &message);
        for encoding in Encoding::ALL {
            support::body(encoding)(&message);
        }
    }
}

#[test]
fn a_series_is_stored_once_however_many_events_it_has() {
    let mut encoder = NativeEncoder::new(&[]);
    for value in 0..1_000 {
        encoder.push("http.requests", &[("route", "/v1/sites")], value);
    }
    assert_eq!(encoder.events(), 999, "a value of 0 is nothing");
    assert_eq!(encoder.total(), 499_500);
    let origin = Origin {
        producer: [1; 16],
        sequence: 1,
        interval_start: 0,
        interval_end: 1,
        partition_total: 499_500,
        emitted_total: 499_500,
    };
    let batch = Batch::decode(encoder.finish(&origin).as_slice()).unwrap();
    assert_eq!(batch.strings, ["http.requests", "route", "/v1/sites"]);
    assert_eq!(batch.series_name, [0]);
    assert_eq!(batch.event_series, [0; 999]);
}
