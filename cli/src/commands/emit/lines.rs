use tallybus_schemas::{Encoding, canonical, decode_all};

use crate::numbers;

/// An event as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) name: String,
    /// Sorted by key after [`Given::with_tags`].
    pub(super) tags: Vec<(String, String)>,
    pub(super) value: u64,
    /// Nanoseconds since the Unix epoch.
    pub(super) time: Option<i64>,
}

impl Given {
    /// Adds tags whose keys the event does not have, and validates the series.
    ///
    /// # Errors
    /// The series is invalid.
    pub(super) fn with_tags(mut self, more: &[(String, String)]) -> Result<Self, String> {
        let added: Vec<_> =
            more.iter().filter(|(key, _)| self.tags.iter().all(|(own, _)| own != key)).cloned().collect();
        self.tags.extend(added);
        let mut tags: Vec<(&str, &str)> = self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        canonical::arrange(&self.name, &mut tags).map_err(|error| error.to_string())?;
        let tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        if self.time.is_some_and(|time| time < 0) {
            return Err("a time before 1970 is not valid".to_owned());
        }
        Ok(Self { tags, ..self })
    }
}

/// A time that no event can have: the largest 64-bit number.
const NO_TIME: i64 = i64::MAX;

/// Parses one line: JSON events, or `NAME [VALUE] [key=value]…`. An empty line, or one that begins with `#`, has no
/// event.
///
/// # Errors
/// What is wrong with the line.
pub(super) fn parse_line(line: &str) -> Result<Vec<Given>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(Vec::new());
    }
    if line.starts_with(['{', '[']) {
        return parse_json(line);
    }
    let mut words = split(line)?.into_iter().peekable();
    let Some(name) = words.next() else { return Ok(Vec::new()) };
    if !line.starts_with('"') && looks_foreign(&name) {
        return Err(format!(
            "{name:?} is not a name: expected NAME [VALUE] [key=value]… or a JSON event; a name with any of {FOREIGN} \
             or with a number behind a colon stands in double quotes"
        ));
    }
    let value = match words.next_if(|word| !word.contains('=')) {
        None => 1,
        Some(word) => {
            numbers::positive(&word).map_err(|expected| format!("{word:?} is not a valid value: {expected}"))?
        }
    };
    let mut tags = Vec::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(format!("{word:?} is no tag: key=value"));
        };
        tags.push((key.to_owned(), value.to_owned()));
    }
    Ok(vec![Given { name, tags, value, time: None }])
}

/// Characters that other formats have where a line here has its name: StatsD, CSV, line protocol, Prometheus.
const FOREIGN: &str = "= , ; | { } [ ] ( ) < >";

/// Whether the first word of a line is most likely of another format than ours.
fn looks_foreign(name: &str) -> bool {
    let has_number = |(_, behind): (&str, &str)| behind.parse::<f64>().is_ok();
    name.contains(|character: char| character != ' ' && FOREIGN.contains(character))
        || name.rsplit_once(':').is_some_and(has_number)
}

fn parse_json(line: &str) -> Result<Vec<Given>, String> {
    let events = decode_all(Some(Encoding::Json), line.as_bytes(), NO_TIME).map_err(|error| error.to_string())?;
    let given = events.into_iter().map(|event| Given {
        name: event.series.name().to_owned(),
        tags: event.series.tags().iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        value: event.value,
        time: (event.time != NO_TIME).then_some(event.time),
    });
    Ok(given.collect())
}

/// Splits at spaces outside of double quotes; inside of them a backslash escapes the next character.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut begun) = (false, false);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            '\\' if quoted => word.extend(characters.next()),
            character if character.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            character => {
                word.push(character);
                begun = true;
            }
        }
    }
    if quoted {
        return Err("a double quote is not closed".to_owned());
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, value: u64, tags: &[(&str, &str)], time: Option<i64>) -> Vec<Given> {
        let tags = tags.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        vec![Given { name: name.to_owned(), tags, value, time }]
    }

    #[test]
    fn words() {
        assert_eq!(parse_line("hits"), Ok(given("hits", 1, &[], None)));
        assert_eq!(parse_line(" hits 3 a=b  c=d=e "), Ok(given("hits", 3, &[("a", "b"), ("c", "d=e")], None)));
        assert_eq!(parse_line("hits a=b"), Ok(given("hits", 1, &[("a", "b")], None)));
        assert_eq!(
            parse_line(r#"hits path="/a \"b\"" x="""#),
            Ok(given("hits", 1, &[("path", "/a \"b\""), ("x", "")], None))
        );
        assert_eq!(parse_line(""), Ok(Vec::new()));
        assert_eq!(parse_line("# a comment"), Ok(Vec::new()));
        assert_eq!(parse_line(r#""a=b" 2"#), Ok(given("a=b", 2, &[], None)));
        assert_eq!(parse_line(r#""a:5|c" 2"#), Ok(given("a:5|c", 2, &[], None)));
        assert_eq!(parse_line("a:b 2"), Ok(given("a:b", 2, &[], None)));
        for wrong in [
            "page.views:5|c",
            "page.views:7|c|#env:prod",
            "page.views:5",
            "hits,5",
            "hits;5",
            "http_requests_total{method=\"post\"} 1027",
            "<14>hits 5",
            "route=/a",
            "hits,route=/a value=3",
            "hits 0",
            "hits -1",
            "hits 1.5",
            "hits 1 2",
            "hits a=\"b",
            "hits many",
        ] {
            assert!(parse_line(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn json_keeps_its_time() {
        let line = r#"{"ts":1700000000000000000,"name":"hits","value":2,"tags":{"a":"b"}}"#;
        assert_eq!(parse_line(line), Ok(given("hits", 2, &[("a", "b")], Some(1_700_000_000_000_000_000))));
        assert_eq!(parse_line(r#"{"name":"hits"}"#), Ok(given("hits", 1, &[], None)));
        assert_eq!(parse_line(r#"[{"name":"a"},{"name":"b"}]"#).map(|given| given.len()), Ok(2));
        assert!(parse_line(r#"{"name":"hits","vaule":2}"#).is_err());
    }

    #[test]
    fn tags_of_the_command_line_do_not_replace_those_of_the_line() {
        let more = [("a".to_owned(), "other".to_owned()), ("0".to_owned(), "x".to_owned())];
        let line = parse_line("hits a=b").unwrap().remove(0).with_tags(&more).unwrap();
        assert_eq!(line.tags, [("0".to_owned(), "x".to_owned()), ("a".to_owned(), "b".to_owned())]);
        assert!(parse_line("hits a=b a=c").unwrap().remove(0).with_tags(&[]).is_err());
    }
}
