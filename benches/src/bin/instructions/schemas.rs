//! Encodings.

use anyhow::{Result, ensure};
use tallybus_benches::workload::{Input, NATIVE_EVENTS};
use tallybus_schemas::{NativeEncoder, Origin};

use crate::Case;
use crate::messages::{self, Messages, SERIES};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "decode_json",
        operation: "decode an event, JSON, one a message",
        times: 8,
        operations: SERIES,
        run: |times| messages::decode(&Messages::new(Input::Json, SERIES), times, SERIES),
    },
    Case {
        name: "decode_line",
        operation: "decode an event, line protocol, one a message",
        times: 8,
        operations: SERIES,
        run: |times| messages::decode(&Messages::new(Input::Line, SERIES), times, SERIES),
    },
    Case {
        name: "decode_native",
        operation: "decode an event, native, 2,000 of 1,000 series a message",
        times: 20,
        operations: NATIVE_EVENTS,
        run: |times| messages::decode(&Messages::new(Input::Native, NATIVE_EVENTS), times, NATIVE_EVENTS),
    },
    Case {
        name: "encode_native",
        operation: "encode an event, native, 1,000 of as many series a message",
        times: 20,
        operations: SERIES,
        run: encode_native,
    },
];

fn encode_native(times: u64) -> Result<()> {
    let routes: Vec<String> = (0..SERIES).map(|number| format!("/v1/{number:06}")).collect();
    let mut encoder = NativeEncoder::new(&[("instance", "api-7"), ("service", "api")]);
    let mut origin = Origin {
        producer: *b"the same for all",
        sequence: 1,
        interval_start: 1_700_000_000_000_000_000,
        interval_end: 1_700_000_001_000_000_000,
        partition_total: SERIES,
        emitted_total: SERIES,
    };
    for _ in 0..times {
        for route in &routes {
            encoder.push("http.requests", &[("method", "GET"), ("route", route)], 1);
        }
        let message = encoder.finish(&origin);
        ensure!(message.len() > routes.len(), "a message of {} bytes", message.len());
        origin.sequence += 1;
    }
    Ok(())
}
