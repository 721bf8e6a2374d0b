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
        for (number, text) in (1..).zip(payload.split(|byte| *byte == b'\n')) {
            let text = text.trim_ascii();
            if text.is_empty() || (!is_json && text[0] == b'#') {
                continue;
            }
            // After a line that may go on, nothing tells whether this one is part of it.
            if lines.last().is_some_and(|before| before.events.is_err() && may_go_on(before.text, is_json)) {
                return None;
            }
            if is_json && !may_begin_line(text[0]) {
                return None;
            }
            let events = self.decode(Some(encoding), text, record_time_ns, &mut Nothing);
            let events = events.map_err(|error| in_line(number, error));
            match &events {
                Ok(_) => good += 1,
                Err(_) if refused == MOST_REFUSED => return None,
                Err(_) => refused += 1,
            }
            lines.push(Line { text, events });
        }
        (good > 0).then_some(Lines { encoding, lines })
    }
}

/// Whether a refused line may be the beginning of something that its end does not end.
fn may_go_on(line: &[u8], is_json: bool) -> bool {
    if is_json {
        // The next line begins with `{`, which continues an object only after one of these.
        return matches!(line.last(), Some(b':' | b',' | b'[' | b'{'));
    }
    // Text in quotes may hold a line's end.
    memchr::memchr_iter(b'"', line).count() % 2 == 1
}

/// Whether a byte begins an object, or nothing that JSON has: otherwise its line may continue what an earlier line began.
fn may_begin_line(byte: u8) -> bool {
    !matches!(byte, b'"' | b'}' | b']' | b'[' | b',' | b':' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
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
