//! Golden bytes of every format, and what each refuses.

use std::sync::Arc;

use tallybus_schemas::{Coordinate, Series};
use tallybus_sdk::BatchId;

use super::*;

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_700_000_000 * SECOND;

/// Points of these series, times and values; message and index follow from the place.
fn batch(window: i64, points: &[(&Series, i64, u64)]) -> Batch {
    let mut known: Vec<&Series> = Vec::new();
    let mut made = Vec::new();
    for (index, (series, time, value)) in points.iter().enumerate() {
        let place = known.iter().position(|known| known == series).unwrap_or_else(|| {
            known.push(series);
            known.len() - 1
        });
        let first = Coordinate { partition: 2, offset: 4_007 + index as u64, index: 1 };
        let series = u32::try_from(place).unwrap();
        made.push(tallybus_sdk::Point { series, time: *time, value: *value, events: 3, first });
    }
    Batch {
        id: BatchId { topic: "c".into(), partition: 2, first: 4_007, end: 4_100 },
        topic_index: 0,
        series: Arc::new(known.into_iter().collect()),
        points: made,
        window,
        part: String::new(),
        stream: None,
        recovered: false,
    }
}

fn series(name: &str, tags: &[(&str, &str)]) -> Series {
    Series::from_sorted(name, tags)
}

/// Two series, one of them in two windows.
fn golden() -> Batch {
    let (a, b) = (series("http.requests", &[("route", "/v1"), ("status", "200")]), series("b", &[]));
    batch(SECOND, &[(&a, START, 17), (&b, START, 1), (&a, START - SECOND, 5)])
}

fn text(format: Format, batch: &Batch, slots: u64) -> String {
    let (body, rejected) = format.render(batch, slots);
    assert_eq!(rejected, []);
    String::from_utf8(body).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn json_rows() {
    let rows = [
        r#"{"ts":1700000000000000000,"name":"http.requests","tags":{"route":"/v1","status":"200"},"value":17,"events":3,"batch":"c/2/4007-4100","offset":4007,"index":1}"#,
        r#"{"ts":1700000000000000000,"name":"b","tags":{},"value":1,"events":3,"batch":"c/2/4007-4100","offset":4008,"index":1}"#,
        r#"{"ts":1699999999000000000,"name":"http.requests","tags":{"route":"/v1","status":"200"},"value":5,"events":3,"batch":"c/2/4007-4100","offset":4009,"index":1}"#,
    ];
    assert_eq!(text(Format::Json, &golden(), 1), format!("[{}]", rows.join(",\n")));
    assert_eq!(text(Format::NdJson, &golden(), 1), format!("{}\n", rows.join("\n")));
    // A half names the batch that it is part of: a row is the same row however the batch is cut.
    let (left, right) = golden().split().unwrap();
    assert_eq!(text(Format::NdJson, &left, 1) + &text(Format::NdJson, &right, 1), text(Format::NdJson, &golden(), 1));
    let odd = series("a\"\\\n\u{7f}é", &[("k", "\u{1}")]);
    let body = text(Format::Json, &batch(SECOND, &[(&odd, -1, u64::MAX >> 1)]), 1);
    let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(parsed[0]["name"], "a\"\\\n\u{7f}é");
    assert_eq!(parsed[0]["tags"]["k"], "\u{1}");
    assert_eq!(parsed[0]["value"], i64::MAX);
    assert_eq!(parsed[0]["ts"], -1);
}

#[test]
fn datadog_series() {
    assert_eq!(
        text(Format::Datadog, &golden(), 1),
        concat!(
            r#"{"series":[{"metric":"http.requests","type":"count","interval":1,"points":[[1699999999.012,5],[1700000000.012,17]],"tags":["route:/v1","status:200","tallybus_partition:c/2"]},"#,
            "\n",
            r#"{"metric":"b","type":"count","interval":1,"points":[[1700000000.012,1]],"tags":["tallybus_partition:c/2"]}]}"#
        )
    );
    let slots = text(Format::Datadog, &golden(), 10);
    assert!(
        slots.contains(
            r#"[1700000000.401,17]],"tags":["route:/v1","status:200","tallybus_partition:c/2","tallybus_slot:7"]"#
        ),
        "{slots}"
    );
    let old = text(
        Format::Datadog,
        &batch(SECOND, &[(&series("a", &[]), -SECOND, 1), (&series("a", &[]), -3 * SECOND, 1)]),
        1,
    );
    assert!(old.contains("[[-2.988,1],[-0.988,1]]"), "{old}");
}

#[test]
fn line_protocol() {
    assert_eq!(
        text(Format::Influx, &golden(), 1),
        "http.requests,route=/v1,status=200,tallybus_partition=c/2 value=5i 1699999999012000005\n\
         http.requests,route=/v1,status=200,tallybus_partition=c/2 value=17i 1700000000012000005\n\
         b,tallybus_partition=c/2 value=1i 1700000000012000005\n"
    );
}

#[test]
fn statsd_lines() {
    assert_eq!(
        text(Format::Statsd, &golden(), 1),
        "http.requests:17|c|#route:/v1,status:200|T1700000000\nb:1|c|T1700000000\n\
         http.requests:5|c|#route:/v1,status:200|T1699999999\n"
    );
}

/// VictoriaMetrics reads the same (`tests/contract/http_presets.rs`).
#[test]
fn remote_write() {
    let (body, rejected) = Format::Prometheus.render(&golden(), 1);
    assert_eq!(rejected, []);
    let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    assert_eq!(hex(&plain), PROMETHEUS);
}

/// Read with OpenTelemetry's own definitions these bytes are what the sink means.
#[test]
fn otlp_metrics() {
    let (body, rejected) = Format::Otlp.render(&golden(), 1);
    assert_eq!(rejected, []);
    assert_eq!(hex(&body), OTLP);
    assert_eq!(otlp::data_points(&golden(), &Identity::of(&golden(), 1)), 3);
}

const PROMETHEUS: &str = "0a770a190a085f5f6e616d655f5f120d687474702e72657175657374730a0c0a05726f75746512032f76310a0d0a06737461\
    74757312033230300a190a1274616c6c796275735f706172746974696f6e1203632f32121009000000000000144010a4c895\
    ffbc311210090000000000003140108cd095ffbc310a3c0a0d0a085f5f6e616d655f5f1201620a190a1274616c6c79627573\
    5f706172746974696f6e1203632f32121009000000000000f03f108cd095ffbc31";
const OTLP: &str = "0ac1020a1c0a1a0a0c736572766963652e6e616d65120a0a0874616c6c7962757312a0020a0a0a0874616c6c7962757312cc\
    010a0d687474702e72657175657374733aba010a591100368ffafd9c971719055146fbfd9c97173105000000000000003a0e\
    0a05726f75746512050a032f76313a0f0a0673746174757312050a033230303a1b0a1274616c6c796275735f706172746974\
    696f6e12050a03632f320a591100002a36fe9c971719051be136fe9c97173111000000000000003a0e0a05726f7574651205\
    0a032f76313a0f0a0673746174757312050a033230303a1b0a1274616c6c796275735f706172746974696f6e12050a03632f\
    321001180112430a01623a3e0a381100002a36fe9c971719051be136fe9c97173101000000000000003a1b0a1274616c6c79\
    6275735f706172746974696f6e12050a03632f3210011801";

#[test]
fn a_partial_success_is_read() {
    // field 1 { field 1: 7, field 2: "no" }
    let body = [0x0a, 0x06, 0x08, 0x07, 0x12, 0x02, b'n', b'o'];
    let partial = otlp::partial_success(&body).unwrap();
    assert_eq!((partial.rejected_data_points, partial.error_message.as_str()), (7, "no"));
    assert_eq!(otlp::partial_success(b""), None);
    assert_eq!(otlp::partial_success(b"{}"), None);
}

#[test]
fn events_of_one_millisecond_become_one_point() {
    let (a, b) = (series("a", &[]), series("b", &[]));
    let most = u64::try_from(i64::MAX).unwrap();
    let events = batch(
        0,
        &[(&a, START + 5, 1), (&b, START, 7), (&a, START + 999_999, 2), (&a, START + 1_000_000, 4), (&b, START, most)],
    );
    let (body, rejected) = Format::Influx.render(&events, 1);
    assert_eq!(rejected.iter().map(|rejection| rejection.point).collect::<Vec<_>>(), [4]);
    assert_eq!(
        String::from_utf8(body).unwrap(),
        "a,tallybus_partition=c/2 value=3i 1700000000000004008\na,tallybus_partition=c/2 value=4i 1700000000001004008\n\
         b,tallybus_partition=c/2 value=7i 1700000000000004008\n"
    );
    // Rows and lines of our own stay apart: they are told apart by more than their time.
    assert_eq!(text(Format::NdJson, &events, 1).lines().count(), 5);
}

#[test]
fn what_a_format_cannot_hold_is_rejected_and_the_rest_is_in() {
    let good = series("good", &[("k", "v")]);
    let is_rejected = |format: Format, bad: &Series, time: i64, value: u64| {
        let (body, rejected) = format.render(&batch(SECOND, &[(&good, START, 1), (bad, time, value)]), 2);
        assert!(!body.is_empty());
        let points: Vec<usize> = rejected.iter().map(|rejection| rejection.point).collect();
        assert!(points.is_empty() || points == [1], "{points:?}");
        assert!(rejected.iter().all(|rejection| !rejection.reason.is_empty()));
        !rejected.is_empty()
    };
    let formats = [Format::Datadog, Format::Prometheus, Format::Otlp, Format::Influx, Format::Statsd, Format::Json];
    let rejecting = |bad: &Series, time: i64, value: u64| -> Vec<&str> {
        formats.iter().filter(|format| is_rejected(**format, bad, time, value)).map(|format| format.name()).collect()
    };
    let most = u64::try_from(i64::MAX).unwrap();
    let plain = series("a", &[]);
    assert_eq!(rejecting(&plain, START, 1), [""; 0]);
    assert_eq!(rejecting(&plain, START, 1 << 53), [""; 0]);
    assert_eq!(rejecting(&plain, START, (1 << 53) + 1), ["datadog", "prometheus"]);
    assert_eq!(rejecting(&plain, START, most), ["datadog", "prometheus"]);
    assert_eq!(rejecting(&plain, -SECOND, 1), ["otlp", "statsd"]);
    assert_eq!(rejecting(&plain, i64::MAX - 1, 1), ["datadog", "prometheus", "otlp", "influx"]);
    let identified = ["datadog", "prometheus", "otlp", "influx"];
    assert_eq!(rejecting(&series("a", &[("tallybus_partition", "x")]), START, 1), identified);
    assert_eq!(rejecting(&series("a", &[("tallybus_slot", "x")]), START, 1), identified);
    assert_eq!(rejecting(&series("a", &[("__name__", "x")]), START, 1), ["prometheus"]);
    assert_eq!(rejecting(&series("a", &[("k:l", "x")]), START, 1), ["datadog", "statsd"]);
    assert_eq!(rejecting(&series("a", &[("k", "x|y")]), START, 1), ["statsd"]);
    assert_eq!(rejecting(&series("a", &[("k", "x,y")]), START, 1), ["statsd"]);
    assert_eq!(rejecting(&series("a:b", &[]), START, 1), ["statsd"]);
    assert_eq!(rejecting(&series("#a", &[]), START, 1), ["influx", "statsd"]);
    assert_eq!(rejecting(&series("a", &[("time", "x")]), START, 1), ["influx"]);
    // Nothing is left: nothing is sent.
    for format in [Format::Datadog, Format::Prometheus, Format::Otlp, Format::Influx] {
        let bad = series("a", &[("tallybus_partition", "x")]);
        let (body, rejected) = format.render(&batch(SECOND, &[(&bad, START, 1)]), 1);
        assert_eq!((body.len(), rejected.len()), (0, 1));
        assert_eq!(format.render(&batch(SECOND, &[]), 1), (Vec::new(), Vec::new()));
    }
    assert_eq!(Format::Json.render(&batch(SECOND, &[]), 1), (Vec::new(), Vec::new()));
    assert_eq!(Format::Statsd.render(&batch(SECOND, &[]), 1), (Vec::new(), Vec::new()));
}

#[test]
fn every_name_names_its_format() {
    for name in Format::NAMES {
        assert_eq!(Format::of(name).unwrap().name(), name);
    }
    assert_eq!(Format::of("xml"), None);
}
