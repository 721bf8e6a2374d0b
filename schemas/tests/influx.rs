//! Line protocol: what is accepted, and what an error says.
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
use tallybus_schemas::{Encoding, decode_all};

#[test]
fn lines() {
    for (line, name, tags, value, time) in [
        ("n value=1i", "n", &[] as &[(&str, &str)], 1, RECORD_TIME),
        ("n value=18446744073709551615u 0", "n", &[], u64::MAX, 0),
        ("n value=007i 9223372036854775807", "n", &[], 7, i64::MAX),
        ("\t n,b=2,a=1 value=1i  5 \r", "n", &[("a", "1"), ("b", "2")], 1, 5),
        ("n,a= value=1i", "n", &[], 1, RECORD_TIME),
        (r"a\ b\,c=d,k\=\ =\,v value=1i", "a b,c=d", &[("k= ", ",v")], 1, RECORD_TIME),
        (r"a\b,k=\v value=1i", r"a\b", &[("k", r"\v")], 1, RECORD_TIME),
        // InfluxDB's own reader drops a backslash here, though neither byte needs it.
        (r"a\=b value=1i", "a=b", &[], 1, RECORD_TIME),
        ("a\\\"b value=1i", "a\"b", &[], 1, RECORD_TIME),
        (r"a\\=b value=1i", r"a\=b", &[], 1, RECORD_TIME),
        ("n value=3", "n", &[], 3, RECORD_TIME),
        ("n value=3.0 5", "n", &[], 3, 5),
        ("n value=1e3 5", "n", &[], 1_000, 5),
        (r"a,k=C:\\d value=1i", "a", &[("k", r"C:\\d")], 1, RECORD_TIME),
        ("\"n\",k=\"v\" value=1i", "\"n\"", &[("k", "\"v\"")], 1, RECORD_TIME),
    ] {
        let found = decode(Some(Encoding::Influx), line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(found, [event(name, tags, value, time)], "{line}");
    }
    assert_eq!(decode(Some(Encoding::Influx), b"# one\n\n \t\n  # two").unwrap(), []);
}

#[test]
fn errors_name_line_field_and_byte() {
    const INTEGER: &str = "must be an integer from 1 to 18446744073709551615, written as 1i or 1u";
    const FLOAT: &str = "the value is not a whole number: write an integer, as 1i or 1u";
    const UNKNOWN: &str = "unknown field: a counter has the one integer field `value`";
    for (line, field, position, reason) in [
        (",a=b value=1i", "name", 0, "the line has no measurement"),
        ("n", "fields.value", 1, "the line has no fields after its tags"),
        ("n,a=b", "fields.value", 5, "the line has no fields after its tags"),
        ("n ", "fields.value", 1, "the line has no fields after its tags"),
        ("n,a value=1i", "tags.a", 3, "the tag has no value: write key=value"),
        ("n, value=1i", "tags.", 2, "the tag has no value: write key=value"),
        ("n,=b value=1i", "tags", 0, "a tag key is empty"),
        ("n,a=b=c value=1i", "tags.a", 5, "an equals sign in a tag value must be escaped with a backslash"),
        ("n,a=1,a=2 value=1i", "tags.a", 0, "the tag is given twice"),
        ("n,a=\u{7} value=1i", "tags.a", 0, "control characters are not allowed"),
        ("n value", "fields.value", 7, "the field has no value: write value=1i"),
        ("n usage=1i", "fields.usage", 8, UNKNOWN),
        ("n value=1i,usage=2i", "fields.usage", 17, UNKNOWN),
        ("n text=\"a b\",value=1i", "fields.text", 7, UNKNOWN),
        ("n value=1i,value=1i", "fields.value", 17, "the field is given twice"),
        ("n value=0.0", "fields.value", 8, "must be greater than 0"),
        ("n value=1.5", "fields.value", 8, FLOAT),
        ("n value=-1", "fields.value", 8, FLOAT),
        ("n value=1e-3 5", "fields.value", 8, FLOAT),
        ("n value=9007199254740994", "fields.value", 8, FLOAT),
        ("n value=nan", "fields.value", 8, FLOAT),
        ("n value=t", "fields.value", 8, INTEGER),
        ("n value=\"1\"", "fields.value", 8, INTEGER),
        ("n value=", "fields.value", 8, INTEGER),
        ("n value=i", "fields.value", 8, INTEGER),
        ("n value=-1i", "fields.value", 8, INTEGER),
        ("n value=+1i", "fields.value", 8, INTEGER),
        ("n value=18446744073709551616u", "fields.value", 8, INTEGER),
        ("n value=0i", "fields.value", 8, "must be greater than 0"),
        ("n value=1i -5", "timestamp", 11, "must not be before 1970"),
        ("n value=1i 1.5", "timestamp", 11, "must be an integer: nanoseconds since the Unix epoch"),
        ("n value=1i -", "timestamp", 11, "must be an integer: nanoseconds since the Unix epoch"),
        ("n value=1i 9223372036854775808", "timestamp", 11, "must not be after April 2262"),
        (
            "n value=1i 1700000000",
            "timestamp",
            11,
            "looks like seconds: write nanoseconds, or declare the topic's unit (`time_units`) as \"s\"",
        ),
        ("n value=1i 5 6", "end", 13, "expected nothing after the timestamp"),
    ] {
        for (before, number) in [("", 1), ("# x\n\nok value=1i\n", 4)] {
            let message = format!("{before}{line}\nok value=1i");
            let error = decode(Some(Encoding::Influx), message.as_bytes()).expect_err(line);
            assert_eq!(error.encoding, "influx");
            assert_eq!(error.field, format!("line {number} {field}"), "{line}");
            assert_eq!((error.position, error.reason.as_str()), (before.len() + position, reason), "{line}");
        }
    }
    let error = decode_all(None, b"n value=1i", -1).unwrap_err();
    assert_eq!(error.reason, "the line has no timestamp, and neither has the record");
}
