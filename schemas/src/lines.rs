use crate::{Decoder, Encoding, Receiver, SchemaError};

/// The most lines of one message that may be refused one by one: each takes memory of its own.
const MOST_REFUSED: usize = 1_000;

/// The lines of a message that holds events and cannot be decoded as a whole.
#[derive(Debug)]
pub struct Lines<'a> {
    /// How the lines are encoded.
    pub encoding: Encoding,
    /// Those that hold something, in order.
    pub lines: Vec<Line<'a>>,
}

/// One line of a message.
#[derive(Debug)]
pub struct Line<'a> {
    /// The line, without its end.
    pub text: &'a [u8],
    /// How many events it holds, or why it is refused; positions are in the line.
    pub events: Result<u32, SchemaError>,
}

impl Decoder {
    /// Tells the lines of a message apart that [`Decoder::decode`] refused; each decodes as a message of its own, with the
    /// encoding that is returned. The same message always gives the same lines.
    ///
    /// A line of JSON that is cut inside an object is refused by itself: the next line that begins with `{` is a message of its own.
    ///
    /// `None` where a line's end may be within an event (an array, an object over several lines, text in quotes), where no
    /// line holds events, and where more than 1,000 lines are refused: then the message is refused as a whole.
    pub fn lines<'a>(
        &mut self,
        encoding: Option<Encoding>,
        payload: &'a [u8],
        record_time_ns: i64,
    ) -> Option<Lines<'a>> {
        let payload = payload.strip_prefix(super::decoder::BYTE_ORDER_MARK).unwrap_or(payload);
        let encoding = encoding.or_else(|| Encoding::recognise(payload))?;
        let is_json = match encoding {
            Encoding::Native => return None,
            Encoding::Json => true,
            Encoding::Influx => false,
        };
        let mut lines: Vec<Line<'_>> = Vec::new();
        let (mut refused, mut good) = (0, 0);
        // Whether a refused line has begun something that it does not end.
        let mut is_open = false;
        for (number, text) in (1..).zip(payload.split(|byte| *byte == b'\n')) {
            let text = text.trim_ascii();
            if text.is_empty() || (!is_json && text[0] == b'#') {
                continue;
            }
            // Nothing shows whether this line is a part of the one that is open. Only where it begins an object of its own
            // is the open one known to be cut: in an object over several lines, what follows an inner object neither is nor
            // begins with one.
            if is_open && !(is_json && text[0] == b'{') {
                return None;
            }
            // An array whose elements are lines.
            if is_json && lines.is_empty() && text[0] == b'[' {
                return None;
            }
            let events = self.decode(Some(encoding), text, record_time_ns, &mut Nothing);
            let events = events.map_err(|error| in_line(number, error));
            match &events {
                Ok(_) => good += 1,
                Err(_) if refused == MOST_REFUSED => return None,
                Err(_) => {
                    refused += 1;
                    is_open |= if is_json { leaves_json_open(text) } else { leaves_text_open(text) };
                }
            }
            lines.push(Line { text, events });
        }
        (good > 0).then_some(Lines { encoding, lines })
    }
}

/// Whether a refused line of JSON begins an object or an array that it does not end.
fn leaves_json_open(line: &[u8]) -> bool {
    if !matches!(line.first(), Some(b'{' | b'[')) {
        return false;
    }
    let (mut depth, mut is_in_text, mut is_escaped) = (0_usize, false, false);
    for byte in line {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_in_text => is_escaped = true,
            b'"' => is_in_text = !is_in_text,
            b'{' | b'[' if !is_in_text => depth += 1,
            b'}' | b']' if !is_in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    depth > 0 || is_in_text
}

/// Whether a refused line of line protocol ends within text in quotes.
fn leaves_text_open(line: &[u8]) -> bool {
    memchr::memchr_iter(b'"', line).count() % 2 == 1
}

/// The error, with the line's number in the message instead of its number in the line.
fn in_line(number: usize, error: SchemaError) -> SchemaError {
    let field = error.field.strip_prefix("line 1 ").unwrap_or(&error.field);
    SchemaError { field: format!("line {number} {field}"), ..error }
}

/// Takes events and keeps none.
struct Nothing;

impl Receiver for Nothing {
    fn series(&mut self, _name: &str, _tags: &[(&str, &str)]) -> u32 {
        0
    }

    fn event(&mut self, _series: u32, _value: u64, _time: i64) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The number of events of each line, or the reason for which it is refused.
    fn told(message: &str) -> Option<Vec<Result<u32, String>>> {
        let lines = Decoder::new().lines(None, message.as_bytes(), 5)?;
        Some(lines.lines.into_iter().map(|line| line.events.map_err(|error| error.to_string())).collect())
    }

    #[test]
    fn one_bad_line_is_told_from_the_good_ones() {
        let lines = told("a value=1i\n\n# note\nb value=1.5\r\nc value=2i\n").unwrap();
        assert_eq!((&lines[0], &lines[2], lines.len()), (&Ok(1), &Ok(1), 3));
        let reason = lines[1].as_ref().unwrap_err();
        assert!(reason.starts_with("influx: line 4 fields.value at byte 8: the value is not"), "{reason}");

        let lines =
            told("{\"name\":\"a\"} {\"name\":\"b\"}\n{\"name\":\"c\",\"value\":0}\noops\n{\"name\":\"d\"}").unwrap();
        assert_eq!((&lines[0], &lines[3], lines.len()), (&Ok(2), &Ok(1), 4));
        let reason = lines[1].as_ref().unwrap_err();
        assert!(reason.starts_with("json: line 2 value at byte "), "{reason}");
        assert!(lines[2].is_err());
        // Cut off by its producer, in a text or behind one.
        assert_eq!(told("{\"name\":\"a\n{\"name\":\"b\"}").unwrap()[1], Ok(1));
        assert_eq!(told("{\"name\":\"b\"}\n{\"name\":\"a\",").unwrap()[0], Ok(1));
    }

    #[test]
    fn a_line_that_is_cut_inside_an_object_is_refused_alone_wherever_it_is_cut() {
        let whole = r#"{"ts":5,"name":"a","value":2,"tags":{"b":"\"{","c":"d"}}"#;
        let good = r#"{"name":"g"}"#;
        for end in 1..whole.len() {
            let cut = &whole[..end];
            for (message, at) in [
                (format!("{good}\n{cut}\n{good}\n{good}"), 1),
                (format!("{cut}\n{good}\n{cut}\n{good}"), 0),
                (format!("{good}\r\n{good}\r\n{cut}"), 2),
            ] {
                let lines = told(&message).unwrap();
                let count = message.matches("\"g\"").count();
                assert!(lines[at].as_ref().unwrap_err().starts_with(&format!("json: line {} ", at + 1)), "{message}");
                assert_eq!(lines.iter().filter(|line| **line == Ok(1)).count(), count, "{message}");
            }
        }
    }

    /// Lines of every kind: whole ones, cut ones, and what is no event.
    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[a-z]{1,3}".prop_map(|name| format!("{{\"name\":\"{name}\",\"value\":7}}")),
            1 => Just("{\"name\":\"a\"} {\"name\":\"b\"}".to_owned()),
            3 => (1..50_usize).prop_map(|end| r#"{"name":"a","value":2,"tags":{"x":"y","b":[{"c":1}]}}"#[..end].to_owned()),
            1 => prop::sample::select(vec!["{}", "{\"name\":\"a\",}", "{\"name\":\"a\"}}", "{\"name\":\"a\",\"value\":0}"])
                .prop_map(str::to_owned),
        ]
    }

    fn alone(text: &str) -> Result<u32, String> {
        let events = Decoder::new().decode(Some(Encoding::Json), text.as_bytes(), 5, &mut Nothing);
        events.map_err(|error| error.reason)
    }

    proptest! {
        #[test]
        fn lines_of_json_do_not_depend_on_each_other(texts in prop::collection::vec(line(), 1..12)) {
            let message = texts.join("\n");
            let expected: Vec<_> = texts.iter().map(|text| alone(text)).collect();
            let lines = Decoder::new().lines(Some(Encoding::Json), message.as_bytes(), 5);
            let found = lines.map(|lines| lines.lines.into_iter().map(|line| line.events.map_err(|error| error.reason)).collect());
            prop_assert_eq!(found, expected.iter().any(Result::is_ok).then_some(expected), "{}", message);
        }

        /// An object over several lines is never taken apart, however its lines are indented and whatever is in it.
        #[test]
        fn an_object_over_several_lines_is_refused_whole(inner in line(), good in line(), breaks in 0..3_usize) {
            let gap = ["\n", "\n  ", "\r\n\r\n"][breaks];
            let message = format!("{good}\n{{\"name\":\"a\",\"value\":0,{gap}\"tags\":{gap}{inner}{gap}}}");
            prop_assert!(Decoder::new().lines(Some(Encoding::Json), message.as_bytes(), 5).is_none(), "{}", message);
        }
    }

    #[test]
    fn a_line_that_continues_nothing_is_refused_alone() {
        for stray in ["5", "null", "\"a\"", "}", "]", ", \"value\":1}", "lue\":1}", "[1,2]", "say \"hi"] {
            let lines = told(&format!("{{\"name\":\"a\"}}\n{stray}\n{{\"name\":\"b\"}}\n{stray}")).unwrap();
            let good: Vec<bool> = lines.iter().map(Result::is_ok).collect();
            assert_eq!(good, [true, false, true, false], "{stray}");
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_is_refused_alone() {
        let lines = Decoder::new().lines(None, b"a value=1i\nb\xe4 value=1i\nc value=1i", 5).unwrap();
        let good: Vec<bool> = lines.lines.iter().map(|line| line.events.is_ok()).collect();
        assert_eq!(good, [true, false, true]);
    }

    #[test]
    fn lines_that_may_be_one_event_are_not_told_apart() {
        for message in [
            // Inner lines that are events by themselves.
            "{\"name\":\"a\",\"value\":0,\"tags\":\n{\"name\":\"x\"}\n}",
            "log text=\"one\nhits value=5i\ntwo\",value=1i",
            "[{\"name\":\"a\"},\n{\"name\":\"b\",\"value\":0}]",
            "{\"name\":\"a\",\n\"value\":0}\n{\"name\":\"b\"}",
            "{\"name\":\"b\"}\n{\n\"name\":\"a\",\"value\":0}",
            "{\"name\":\"b\",\"tags\":{\"text\":\"one\n{\"name\":\"x\"}\ntwo\"}}",
            "[\n{\"name\":\"a\"}\n",
            // No line is good.
            "a value=1.5\nb value=x",
            "hello",
        ] {
            assert_eq!(told(message), None, "{message}");
        }
    }

    #[test]
    fn the_number_of_refused_lines_is_bounded() {
        let message = |bad: usize| format!("good value=1i\n{}", "x value=1.5\n".repeat(bad));
        assert_eq!(told(&message(MOST_REFUSED)).map(|lines| lines.len()), Some(MOST_REFUSED + 1));
        assert_eq!(told(&message(MOST_REFUSED + 1)), None);
    }
}
