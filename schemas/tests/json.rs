//! JSON: what is accepted, and what an error says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first surprise"
)]

mod support;

use support::bodies::{RECORD_TIME, decode};
use support::event;
use tallybus_schemas::json::write_event;
use tallybus_schemas::{Decoder, Encoding, Event, Events, TimeUnit, decode_all};

fn accepted(message: &str) -> Vec<Event> {
    decode(Some(Encoding::Json), message.as_bytes()).unwrap_or_else(|error| panic!("{message}: {error}"))
}

/// The error's field, position and reason.
fn refused(message: &str) -> (String, usize, String) {
    let error = decode(Some(Encoding::Json), message.as_bytes()).expect_err(message);
    assert_eq!(error.encoding, "json");
    (error.field, error.position, error.reason)
}

#[test]
fn times() {
    for (ts, time) in [
        ("0", 0),
        ("1700000000000000000", 1_700_000_000_000_000_000),
        ("9223372036854775807", i64::MAX),
        ("\"1970-01-01T00:00:00Z\"", 0),
        ("\"2023-11-14T22:13:20Z\"", 1_700_000_000_000_000_000),
        ("\"2023-11-14T22:13:20.123456789Z\"", 1_700_000_000_123_456_789),
        ("\"2023-11-15T03:43:20.5+05:30\"", 1_700_000_000_500_000_000),
        ("\"2023-11-14t22:13:20z\"", 1_700_000_000_000_000_000),
    ] {
        let message = format!("{{\"name\":\"n\",\"ts\":{ts}}}");
        assert_eq!(accepted(&message), [event("n", &[], 1, time)], "{ts}");
    }
    for (ts, reason) in [
        ("-1", "must not be before 1970"),
        ("9223372036854775808", "must not be after April 2262"),
        ("\"1969-12-31T23:59:59Z\"", "must not be before 1970"),
        ("\"2300-01-01T00:00:00Z\"", "must not be after April 2262"),
        ("\"2023-11-14T22:13:20\"", "not an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.5Z"),
        ("\"\"", "not an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.5Z"),
        ("\"1700000000\"", "not an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.5Z"),
        ("1.5", "invalid type: floating point `1.5`, expected nanoseconds since the Unix epoch, or an RFC 3339 time"),
        ("null", "invalid type: null, expected nanoseconds since the Unix epoch, or an RFC 3339 time"),
    ] {
        let (field, _, found) = refused(&format!("{{\"ts\":{ts},\"name\":\"n\"}}"));
        assert_eq!((field.as_str(), found.as_str()), ("ts", reason));
    }
}

#[test]
fn a_record_without_a_time_needs_events_with_one() {
    let with = br#"{"name":"n","ts":5}"#;
    assert_eq!(decode_all(None, with, -1).unwrap(), [event("n", &[], 1, 5)]);
    let error = decode_all(None, br#"{"name":"n"}"#, -1).unwrap_err();
    assert_eq!(
        (error.field.as_str(), error.reason.as_str()),
        ("ts", "the event has no time, and neither has the record")
    );
}

#[test]
fn values() {
    assert_eq!(accepted(r#"{"name":"n","value":18446744073709551615}"#)[0].value, u64::MAX);
    assert_eq!(accepted(r#"{"name":"n","value":9007199254740993}"#)[0].value, 9_007_199_254_740_993);
    let expected = "expected a whole number from 1 to 18446744073709551615";
    for (value, reason) in [
        ("0", "must be greater than 0".to_owned()),
        ("-1", format!("invalid type: integer `-1`, {expected}")),
        ("1.5", format!("invalid value: floating point `1.5`, {expected}")),
        ("-1.0", format!("invalid value: floating point `-1.0`, {expected}")),
        ("1e300", format!("invalid value: floating point `1e+300`, {expected}")),
        ("0.0", "must be greater than 0".to_owned()),
        ("18446744073709551616", format!("invalid value: floating point `1.8446744073709552e+19`, {expected}")),
        ("\"1\"", format!("invalid type: string \"1\", {expected}")),
        ("null", format!("invalid type: null, {expected}")),
        ("true", format!("invalid type: boolean `true`, {expected}")),
        ("[1]", format!("invalid type: sequence, {expected}")),
    ] {
        let (field, _, found) = refused(&format!("{{\"name\":\"n\",\"value\":{value}}}"));
        assert_eq!((field.as_str(), found), ("value", reason));
    }
}

#[test]
fn tags() {
    let message =
        r#"{"name":"n","tags":{"z":-1.50,"a":200,"t":true,"f":false,"e":1e3,"n":null,"u":"\u0041\n","x":""}}"#;
    let (field, _, reason) = refused(message);
    assert_eq!((field.as_str(), reason.as_str()), ("tags.u", "control characters are not allowed"));
    let message = message.replace("\\n", "\\/");
    let tags = [("a", "200"), ("e", "1000"), ("f", "false"), ("t", "true"), ("u", "A/"), ("z", "-1.5")];
    assert_eq!(accepted(&message), [event("n", &tags, 1, RECORD_TIME)]);

    let not_text = "must be a string, a number, true or false";
    for (tags, field, reason) in [
        (r#"{"k":[1]}"#, "tags.k", not_text),
        (r#"{"k":{"a":1}}"#, "tags.k", not_text),
        (r#"{"a":"1","k":["a"]}"#, "tags.k", not_text),
        (r#"{"k":"\ud800"}"#, "tags.k", "the string has an invalid escape"),
        (r#"{"k":"1","k":"2"}"#, "tags.k", "the tag is given twice"),
        (r#"{"k":"1","\u006b":""}"#, "tags.k", "the tag is given twice"),
        (r#"{"":"1"}"#, "tags", "a tag key is empty"),
        (r#"{"k":}"#, "tags.k", "expected value"),
        ("[]", "tags", "invalid type: sequence, expected an object of tags"),
        ("null", "tags", "invalid type: null, expected an object of tags"),
    ] {
        let (found_field, _, found) = refused(&format!("{{\"name\":\"n\",\"tags\":{tags}}}"));
        assert_eq!((found_field.as_str(), found.as_str()), (field, reason), "{tags}");
    }
    let many: Vec<String> = (0..65).map(|key| format!("\"k{key}\":1")).collect();
    let (field, _, reason) = refused(&format!("{{\"name\":\"n\",\"tags\":{{{}}}}}", many.join(",")));
    assert_eq!((field.as_str(), reason.as_str()), ("tags", "more than 64 tags"));
}

#[test]
fn fields() {
    for (message, field, reason) in [
        ("{}", "name", "the event has no name"),
        (r#"{"value":1}"#, "name", "the event has no name"),
        (r#"{"name":""}"#, "name", "must not be empty"),
        (r#"{"name":5}"#, "name", "invalid type: integer `5`, expected a string"),
        (r#"{"name":"a\u0000"}"#, "name", "control characters are not allowed"),
        (r#"{"name":"n","vaule":2}"#, "vaule", "unknown field: an event has ts, name, value and tags"),
        (r#"{"name":"n","name":"n"}"#, "name", "the field is given twice"),
        (r#"{"value":1,"name":"n","value":1}"#, "value", "the field is given twice"),
        (r#"{"ts":1,"name":"n","ts":1}"#, "ts", "the field is given twice"),
        (r#"{"tags":{},"name":"n","tags":{}}"#, "tags", "the field is given twice"),
        (r#"{"name":"n""#, "event", "EOF while parsing an object"),
        (r#"{"name":"n"}}"#, "[1]", "expected value"),
        (r#"{"name":"n",}"#, "event", "trailing comma"),
        ("5", "event", "invalid type: integer `5`, expected an event object"),
        ("nul", "event", "EOF while parsing a value"),
        ("nulx", "event", "expected ident"),
        (" \n", "event", "EOF while parsing a value"),
        ("[5]", "[0]", "invalid type: integer `5`, expected an event object"),
        ("[{\"name\":\"n\"}", "[1]", "EOF while parsing a list"),
        ("[{\"name\":\"n\"}] x", "message", "expected nothing after the array"),
        ("[] []", "message", "expected nothing after the array"),
        ("{\"name\":\"n\"}\n[]", "[1]", "invalid type: sequence, expected an event object"),
        ("{\"name\":\"n\"}\n\n{\"name\":\"n\",\"value\":0}", "[1].value", "must be greater than 0"),
        (
            r#"[{"name":"n"},{"name":"n","tags":{"a":1,"route":{}}}]"#,
            "[1].tags.route",
            "must be a string, a number, true or false",
        ),
    ] {
        let (found_field, _, found) = refused(message);
        assert_eq!((found_field.as_str(), found.as_str()), (field, reason), "{message}");
    }
}

#[test]
fn positions_stand_where_the_decoder_stopped() {
    for (message, before) in [
        (r#"{"name":"n","value":"x"}"#, r#"{"name":"n","value":"x""#),
        ("{\"name\":\"n\"}\n{\"name\":\"n\",\n\"vaule\":1}", "{\"name\":\"n\"}\n{\"name\":\"n\",\n\"vaule\""),
        ("[{\"name\":\"n\"},\n  {\"name\":\"n\",\"value\":0}]", "[{\"name\":\"n\"},\n  {\"name\":\"n\",\"value\":0"),
    ] {
        assert_eq!(refused(message).1, before.len(), "{message}");
    }
}

#[test]
fn shapes() {
    let one = event("n", &[], 1, RECORD_TIME);
    for (message, count) in [
        (r#"{"name":"n"}"#, 1),
        (" \r\n\t{\"name\" : \"n\"\n}\n", 1),
        ("{\"name\":\"n\"}\r\n{\"name\":\"n\"}", 2),
        ("{\"name\":\"n\"}{\"name\":\"n\"}", 2),
        ("[{\"name\":\"n\"}, {\"name\":\"n\"} ]\n", 2),
        ("[]", 0),
    ] {
        assert_eq!(accepted(message), vec![one.clone(); count], "{message}");
    }
}

#[test]
fn whole_numbers_written_as_floats_are_values_and_equal_numbers_are_one_tag() {
    for (written, value) in [("1.0", 1), ("3e2", 300), ("9007199254740992.0", 1 << 53)] {
        let message = format!(r#"{{"name":"n","value":{written}}}"#);
        let events = decode(None, message.as_bytes()).unwrap();
        assert_eq!(events, [event("n", &[], value, RECORD_TIME)], "{written}");
    }
    for written in ["200", "200.0", "2e2", "2E+2"] {
        let message = format!(r#"{{"name":"n","tags":{{"status":{written}}}}}"#);
        assert_eq!(decode(None, message.as_bytes()).unwrap(), [event("n", &[("status", "200")], 1, RECORD_TIME)]);
    }
}

#[test]
fn a_number_of_another_unit_is_refused_and_taken_where_the_unit_is_declared() {
    let message = br#"{"name":"n","ts":1700000000123}"#;
    let error = decode(None, message).unwrap_err();
    assert_eq!((error.field.as_str(), error.reason.split(':').next()), ("ts", Some("looks like milliseconds")));
    for mut decoder in [Decoder::new(), Decoder::thorough()] {
        let mut events = Events::new();
        decoder.set_time_unit(Some(TimeUnit::Milliseconds));
        decoder.decode(None, message, -1, &mut events).unwrap();
        assert_eq!(events.to_vec(), [event("n", &[], 1, 1_700_000_000_123_000_000)]);
    }
    // A string names its unit itself, and so does what Tallybus writes.
    let early = event("n", &[], 1, 5_000_000_000);
    let mut written = Vec::new();
    write_event(&mut written, &early);
    assert!(String::from_utf8_lossy(&written).starts_with(r#"{"ts":"1970-01-01T00:00:05Z""#));
    assert_eq!(decode(None, &written).unwrap(), [early]);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    for text in ["{\"name\":\"hits\"}", "[{\"name\":\"hits\"}]", "hits value=1i"] {
        let message = [b"\xef\xbb\xbf", text.as_bytes()].concat();
        for encoding in [None, Encoding::recognise(text.as_bytes())] {
            assert_eq!(decode(encoding, &message).unwrap(), [event("hits", &[], 1, RECORD_TIME)], "{text}");
        }
    }
    let error = decode(None, b"\xef\xbb\xbfhits value=x").unwrap_err();
    assert_eq!(error.position, 14, "the mark's bytes are part of the message");
    assert!(decode(None, b"\xef\xbb\xbf").unwrap_err().reason.contains("empty"));
}

#[test]
fn a_message_of_another_format_is_named() {
    let refused = |payload: &[u8]| decode(None, payload).unwrap_err().reason;
    assert!(refused(b"\x1f\x8b\x08\0\0").contains("it looks like gzip"));
    assert!(refused(b"page.views:5|c").contains("it looks like StatsD"));
    let declared = decode(Some(Encoding::Json), b"\0\0\0\0\x07{\"name\":\"hits\"}").unwrap_err();
    assert!(declared.reason.contains("Confluent's schema registry"), "{declared}");
}
