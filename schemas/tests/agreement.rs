//! The short ways through the decoders lead where the long one does, for messages well made and ill. `bodies::decode`
//! compares them: the same events, or the same error to the last byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first surprise"
)]

mod support;

use proptest::prelude::*;
use support::bodies::{cache_hits, decode, decode_at};
use support::event;
use tallybus_schemas::{Decoder, Encoding, RawSeriesKey, Receiver};

fn pick(choices: &[&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(choices.to_vec()).prop_map(str::to_owned).boxed()
}

fn blank() -> BoxedStrategy<String> {
    prop_oneof![12 => pick(&["", " "]), 1 => pick(&["\n", "\t ", "\r\n", "\u{b}", "\u{a0}"])].boxed()
}

fn names() -> BoxedStrategy<String> {
    let odd = [
        r#""""#,
        r#""a}""#,
        r#""{a""#,
        r#""a\"b""#,
        r#""a\\""#,
        r#""\\""#,
        r#""é}""#,
        r#""\u006e""#,
        r#""up,a=b""#,
        "\"a\tb\"",
        "\"a\u{7f}\"",
        r#""a"#,
        r#"n"#,
        "null",
        "1",
        r#""ts""#,
        r##""#up""##,
        "\"\u{0}\"",
    ];
    prop_oneof![4 => pick(&[r#""n""#, r#""http.requests""#, r#""up""#]), 2 => pick(&odd)].boxed()
}

fn tags() -> BoxedStrategy<String> {
    let odd = [
        r#"{"a":"x}y"}"#,
        r#"{"a":"}"}"#,
        r#"{"a":"}","b":"{"}"#,
        r#"{"}":"a"}"#,
        r#"{"a":"\"}"}"#,
        r#"{"a":"b\\"}"#,
        r#"{"a\\":"b"}"#,
        r#"{"a":{}}"#,
        r#"{"a":{"b":"c"}}"#,
        r#"{"a":["}"]}"#,
        r#"{"a":null}"#,
        r#"{"a":tru}"#,
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":1e}"#,
        r#"{"a":--1}"#,
        r#"{"a":+1}"#,
        r#"{"a":1 1}"#,
        r#"{"a":"b",}"#,
        r#"{,"a":"b"}"#,
        r#"{"a":"b" "c":"d"}"#,
        r#"{"a" "b"}"#,
        r#"{"a":"b","a":"b"}"#,
        r#"{"":"b"}"#,
        r#"{"a":"b}"#,
        r#"{"a":"b"#,
        r#"{"a":}"#,
        r#"{a:1}"#,
        r#"{"a":"é","é":"}"}"#,
        "{\"a\":\"b\nc\"}",
        "[]",
        "null",
        r#""{}""#,
        r#"{"a":1e400}"#,
        r#"{"a":"\u007d"}"#,
        r#"{"a":1"b":2}"#,
        "{\"a\":\"\u{7f}\"}",
        "{\"a\":tr\u{fc}e}",
    ];
    let usual = [
        "{}",
        "{ }",
        r#"{"a":"b"}"#,
        r#"{"a": "b", "c": "d"}"#,
        r#"{"c":"d","a":"b"}"#,
        r#"{"a":""}"#,
        r#"{"a":1}"#,
        r#"{"a":-0.5E+3,"b":0}"#,
        r#"{"a":true,"b":false}"#,
        "{\n\t\"a\" : \"b\"\r\n}",
        r#"{"a":"é"}"#,
        r#"{"a":1e5 }"#,
    ];
    let many = (60..68_usize, "[a-z]?").prop_map(|(count, value)| {
        let pairs: Vec<String> = (0..count).map(|key| format!("\"k{key:02}\":\"{value}\"")).collect();
        format!("{{{}}}", pairs.join(","))
    });
    let soup = r#"\{("[ab}\\,]{0,3}"[:,]?|[01.eE+-]{1,3}|[ ,:\{\}]){0,8}\}"#;
    prop_oneof![8 => pick(&usual), 4 => pick(&odd), 1 => many, 2 => soup].boxed()
}

fn numbers() -> BoxedStrategy<String> {
    let odd = [
        "0",
        "00",
        "01",
        "-1",
        "-0",
        "1.0",
        "1e3",
        "1E0",
        "18446744073709551615",
        "18446744073709551616",
        "null",
        "\"1\"",
        "9223372036854775807",
        "9223372036854775808",
        "9999999999999999999",
        "99999999999999999999999999999999999999999",
        "1x",
        "",
        "1_0",
        "0x1",
        "true",
        "\"\"",
        "\"2023-11-14T22:13:20Z\"",
        "\"2023-11-14T22:13:20.5+05:30\"",
        "\"1960-01-01T00:00:00Z\"",
        "\"2300-01-01T00:00:00Z\"",
        "\"2023-11-14T22:13:20\\u005a\"",
        "\"2023\n\"",
        "\"20}\"",
    ];
    let any = prop_oneof![any::<u64>(), 1..1000_u64, Just(1_700_000_000_000_000_000)];
    prop_oneof![6 => any.prop_map(|number| number.to_string()), 2 => pick(&odd)].boxed()
}

fn field() -> BoxedStrategy<String> {
    let odd =
        [r#""t\u0073":1"#, r#""vaule":1"#, r#""name ":"n""#, r#""Name":"n""#, r#""":1"#, "", r#""name""#, r#""ts",1"#];
    let one_of = |key: &'static str, values: BoxedStrategy<String>| {
        (blank(), blank(), values, blank())
            .prop_map(move |(before, after, value, end)| format!("\"{key}\"{before}:{after}{value}{end}"))
    };
    prop_oneof![
        10 => one_of("name", names()),
        8 => one_of("ts", numbers()),
        8 => one_of("value", numbers()),
        10 => one_of("tags", tags()),
        1 => pick(&odd),
    ]
    .boxed()
}

fn object() -> BoxedStrategy<String> {
    let usual = (names(), tags(), numbers(), numbers(), any::<bool>()).prop_map(|(name, tags, value, time, spaced)| {
        let (comma, colon) = if spaced { (", ", ": ") } else { (",", ":") };
        format!("{{\"ts\"{colon}{time}{comma}\"name\"{colon}{name}{comma}\"value\"{colon}{value}{comma}\"tags\"{colon}{tags}}}")
    });
    let any_order = (blank(), prop::collection::vec((field(), blank()), 0..6)).prop_map(|(start, fields)| {
        let fields: Vec<String> = fields.into_iter().map(|(field, after)| field + &after).collect();
        format!("{{{start}{}}}", fields.join(","))
    });
    let simple = (prop::sample::select(vec!["n", "m", "up"]), 0..3_u8)
        .prop_map(|(name, tag)| format!(r#"{{"name":"{name}","value":1,"tags":{{"a":"{tag}"}},"ts":5}}"#));
    prop_oneof![3 => usual, 2 => any_order, 3 => simple].boxed()
}

fn json() -> BoxedStrategy<String> {
    let pieces = prop::collection::vec((object(), blank()), 1..5);
    (pieces, blank(), 0..12_u8)
        .prop_map(|(pieces, around, shape)| {
            let texts: Vec<String> = pieces.into_iter().map(|(object, after)| object + &after).collect();
            match shape {
                0..4 => format!("{around}{}", texts[0]),
                4..6 => texts.join("\n"),
                6 => texts.concat(),
                7..10 => format!("{around}[{around}{}{around}]{around}", texts.join(",")),
                10 => format!("[{},]", texts.join(",")),
                _ => format!("[{}]{around}{}", texts.join(" "), texts[0]),
            }
        })
        .boxed()
}

fn lines() -> BoxedStrategy<String> {
    let key = pick(&[
        "up",
        "up,a=b",
        "up,a=b,c=d",
        "up,c=d,a=b",
        "n\\,m",
        "n\\ m,a=b",
        "n\\",
        "n,a=b\\",
        "n,a\\=b=c",
        "n=m,a=b",
        "n,a==b",
        "n,a=b=c",
        "n,a",
        "n,",
        ",a=b",
        "",
        "#n",
        "n,a=",
        "n,=b",
        "n,a=b,a=b",
        "é,a=é",
        "n\u{7f}",
        "n\tm",
        "\tn",
        "\rn",
        "n,a=x\ty",
        "\"up\"",
        "{}",
        "up{}",
        "n,a=\u{0}",
    ]);
    let soup = "[nab,=\\\\ #\"\t]{0,10}".boxed();
    let value = prop_oneof![
        8 => (numbers(), pick(&["i", "u", "i", ""])).prop_map(|(value, unit)| format!("value={value}{unit}")),
        1 => pick(&["value=1i,value=1i", "value=1i,x=2", "x=1i", "value", "value=", "value==1i", "value=i", "val\\ue=1i"]),
    ];
    let time = prop_oneof![
        2 => Just(String::new()),
        8 => numbers().prop_map(|time| format!(" {time}")),
        1 => pick(&[" ", "  5", " 5 ", "\t5", " 5 5", " 5x", " -", "\r5", " 007"]),
    ];
    let gap = prop_oneof![12 => Just(" ".to_owned()), 1 => pick(&["  ", "\t", " \t", ""])];
    let end = prop_oneof![10 => pick(&["\n", "\r\n"]), 1 => pick(&["\n\n", "\n# comment\n", " \n", "\r", "\n  ", ""])];
    let line = (prop_oneof![8 => key, 1 => soup], gap, value, time, end)
        .prop_map(|(key, gap, value, time, end)| format!("{key}{gap}{value}{time}{end}"));
    let simple = (0..4_u8, 1..9_u8).prop_map(|(tag, value)| format!("up,a={tag} value={value}i 17\n"));
    prop::collection::vec(prop_oneof![line, simple], 1..5).prop_map(|lines| lines.concat()).boxed()
}

/// Spoils a message here and there, or not.
fn spoilt(text: BoxedStrategy<String>) -> BoxedStrategy<Vec<u8>> {
    let bytes = prop::sample::select(b"{}[]\",:\\ 019\n\r\t=#iux-.e\xff\xc3\xa9\0".to_vec());
    let change = (any::<prop::sample::Index>(), bytes, 0..4_u8);
    let changes = prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(change, 1..4)];
    (text, changes)
        .prop_map(|(text, changes)| {
            let mut message = text.into_bytes();
            for (index, byte, how) in changes {
                let at = index.index(message.len() + 1);
                match how {
                    0 => message.insert(at, byte),
                    1 if at < message.len() => message[at] = byte,
                    2 if at < message.len() => drop(message.remove(at)),
                    _ => message.truncate(at.max(1)),
                }
            }
            message
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn json_objects_in_all_shapes(message in spoilt(json()), has_time in any::<bool>()) {
        let _ = decode_at(Some(Encoding::Json), &message, if has_time { 5 } else { -1 });
    }

    #[test]
    fn lines_in_all_shapes(message in spoilt(lines()), has_time in any::<bool>()) {
        let _ = decode_at(Some(Encoding::Influx), &message, if has_time { 5 } else { -1 });
    }

    /// What one encoding taught must not be taken for what another says.
    #[test]
    fn both_encodings_share_a_memory(first in object(), second in lines(), third in object()) {
        let _ = decode(Some(Encoding::Json), first.as_bytes());
        let _ = decode(Some(Encoding::Influx), second.as_bytes());
        let _ = decode(Some(Encoding::Json), third.as_bytes());
    }
}

#[test]
fn names_that_look_like_another_encodings_keys() {
    let line = |text: &str| decode(Some(Encoding::Influx), text.as_bytes()).unwrap();
    let json = |text: &str| decode(Some(Encoding::Json), text.as_bytes()).unwrap();
    for _ in 0..2 {
        assert_eq!(json(r#"{"name":"up,a=b","ts":5}"#), [event("up,a=b", &[], 1, 5)]);
        assert_eq!(line("up,a=b value=1i 5"), [event("up", &[("a", "b")], 1, 5)]);
        assert_eq!(json(r#"{"name":"up,a=b","ts":5,"tags":{}}"#), [event("up,a=b", &[], 1, 5)]);
        assert_eq!(line("up{} value=1i 5"), [event("up{}", &[], 1, 5)]);
        assert_eq!(json(r#"{"name":"up","ts":5}"#), [event("up", &[], 1, 5)]);
        assert_eq!(line("\"up\" value=1i 5"), [event("\"up\"", &[], 1, 5)]);
    }
}

#[test]
fn what_was_remembered_is_found_again() {
    let messages = [
        (Encoding::Json, r#"{"name":"twice","ts":5,"tags":{"a":"b"}}"#),
        (Encoding::Json, r#"{"name": "twice", "ts": 5, "tags": {"a": 1.5, "b": false}}"#),
        (Encoding::Json, r#"[{"name":"twice"},{"ts":"2023-11-14T22:13:20Z","name":"twice"}]"#),
        (Encoding::Influx, "twice,a=b value=1i\r\ntwice,c=d value=1u 5"),
    ];
    for (encoding, message) in messages {
        let before = cache_hits();
        let events = decode(Some(encoding), message.as_bytes()).unwrap().len() as u64;
        let new = if events == 1 { 1 } else { events };
        assert!(cache_hits() - before >= new, "{message}: the second reading finds all");
        let before = cache_hits();
        decode(Some(encoding), message.as_bytes()).unwrap();
        assert_eq!(cache_hits() - before, 2 * events, "{message}");
    }
}

/// Notes what it is told, and claims to know nothing.
#[derive(Default)]
struct Recorder {
    remembered: Vec<(String, String)>,
}

impl Receiver for Recorder {
    fn series(&mut self, _: &str, _: &[(&str, &str)]) -> u32 {
        0
    }

    fn remember(&mut self, key: RawSeriesKey<'_>, _: u32) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.remembered.push((text(key.name), text(key.tags)));
    }

    fn event(&mut self, _: u32, _: u64, _: i64) {}
}

fn remembered(encoding: Encoding, message: &str) -> Vec<(String, String)> {
    let mut recorder = Recorder::default();
    let _ = Decoder::new().decode(Some(encoding), message.as_bytes(), 5, &mut recorder);
    recorder.remembered
}

#[test]
fn only_bytes_that_decide_the_series_alone_are_remembered() {
    let json = |tags: &str| remembered(Encoding::Json, &format!(r#"{{"name":"n","tags":{tags}}}"#));
    for tags in ["{}", r#"{"a":"b"}"#, r#"{"b": 1, "a": true}"#, "{\n}", r#"{"{":"["}"#, r#"{"a":"é"}"#] {
        assert_eq!(json(tags), [("n".to_owned(), tags.to_owned())]);
    }
    for tags in
        [r#"{"a":"x}y"}"#, r#"{"a":"}"}"#, r#"{"}":"a"}"#, r#"{"a":"\\"}"#, r#"{"a":{}}"#, r#"{"a":"b","a":"b"}"#]
    {
        assert_eq!(json(tags), [], "{tags}");
    }
    for name in [r#"a\\"#, r#"a\"b"#, r#"\u006e"#, "", "a\tb"] {
        assert_eq!(remembered(Encoding::Json, &format!(r#"{{"name":"{name}"}}"#)), [], "{name}");
    }
    assert_eq!(remembered(Encoding::Json, r#"{"name":"a}{"}"#), [("a}{".to_owned(), "{}".to_owned())]);

    let line = |key: &str| remembered(Encoding::Influx, &format!("{key} value=1i 5\n"));
    for key in ["n", "n,a=b", "n=m,b=1,a=\"", "é,a=é"] {
        assert_eq!(line(key), [(key.to_owned(), String::new())]);
    }
    for key in ["n\\", "n\\,m", "n\\ m", "n,a=b\\", "#n", "# n", "\tn", "n,a", "n,a=b=c", "n,a=b,a=b", "", "m\n\nn\\"] {
        assert_eq!(line(key), [], "{key}");
    }
}

/// An array goes back to its start to say what is wrong; the series are then announced no more than once.
#[test]
fn an_array_that_breaks_off_late() {
    let good = r#"{"name":"n","ts":5}"#;
    for bad in ["1", "{}", r#"{"name":"\n"}"#, r#"{"name":"n","value":0}"#, "", "]", "\u{e9}", "{\"name\":\"\u{e9}\""] {
        let message = format!("[{},\n {{\"name\":\"\\u006e\"}} ,{bad}]", [good; 3].join(",\n"));
        let error = decode(Some(Encoding::Json), message.as_bytes()).unwrap_err();
        assert!(error.field.starts_with("[4]") || error.field.starts_with("message"), "{error}");
    }
}
