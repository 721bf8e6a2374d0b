//! Expressions as trees, how they are written, and what they mean, as plainly as possible.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::cast_precision_loss, reason = "a part of a test")]

use proptest::prelude::*;
use tallybus_sdk::filter::EventFields;
use tallybus_sdk::{Rng, Series};

const TEXTS: [&str; 14] = [
    "500",
    "0500",
    "404",
    "-1",
    "0.5",
    "1e3",
    "",
    "/v1",
    "/v2/x",
    "http.requests",
    "http.errors",
    "eu",
    "a\"\\b'c",
    "é\n漢",
];
const KEYS: [&str; 5] = ["status", "route", "http.method", "odd name", "value"];
const NUMBERS: [&str; 8] = ["0", "500", "404.0", "4_04", "-1", "5e2", "0.5", "10.25"];
const PATTERNS: [&str; 8] = ["*", "http.*", "*.errors", "/v?", "/v?/*", "", "50*0", "eu"];
const OPERATORS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];

/// What a condition is about.
#[derive(Debug, Clone)]
pub enum Subject {
    Name,
    Topic,
    Tag(&'static str),
    Value,
    Partition,
    Offset,
}

#[derive(Debug, Clone)]
pub enum Condition {
    Text(Subject, &'static str, &'static str),
    Number(Subject, &'static str, &'static str),
    /// The flag: `!~`.
    Pattern(Subject, bool, &'static str),
    OneOf(Subject, Vec<&'static str>, Vec<&'static str>),
    Has(&'static str),
}

#[derive(Debug, Clone)]
pub enum Expression {
    One(Condition),
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
}

/// An event without its series.
#[derive(Debug, Clone)]
pub struct Event {
    pub value: u64,
    pub topic: &'static str,
    pub partition: u32,
    pub offset: u64,
}

impl Event {
    pub fn fields(&self) -> EventFields<'_> {
        EventFields { value: self.value, time: 0, topic: self.topic, partition: self.partition, offset: self.offset }
    }
}

fn pick<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[usize::try_from(rng.below(all.len() as u64)).unwrap()]
}

impl Subject {
    fn text(rng: &mut Rng) -> Self {
        match rng.below(4) {
            0 => Self::Name,
            1 => Self::Topic,
            _ => Self::Tag(pick(rng, &KEYS)),
        }
    }

    fn number(rng: &mut Rng) -> Self {
        match rng.below(6) {
            0 => Self::Partition,
            1 => Self::Offset,
            2 | 3 => Self::Value,
            _ => Self::Tag(pick(rng, &KEYS)),
        }
    }

    fn is_of_events(&self) -> bool {
        !matches!(self, Self::Name | Self::Tag(_))
    }

    /// As text; `None` for a missing tag.
    fn of(&self, series: &Series, event: &Event) -> Option<String> {
        match self {
            Self::Name => Some(series.name().to_owned()),
            Self::Topic => Some(event.topic.to_owned()),
            Self::Tag(key) => series.tag(key).map(str::to_owned),
            Self::Value => Some(event.value.to_string()),
            Self::Partition => Some(event.partition.to_string()),
            Self::Offset => Some(event.offset.to_string()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Name => "name".to_owned(),
            Self::Topic => "topic".to_owned(),
            Self::Tag(key @ ("odd name" | "value")) => format!("tag(\"{key}\")"),
            Self::Tag(key) => (*key).to_owned(),
            Self::Value => "value".to_owned(),
            Self::Partition => "partition".to_owned(),
            Self::Offset => "offset".to_owned(),
        }
    }
}

fn holds(operator: &str, order: Option<std::cmp::Ordering>) -> bool {
    match operator {
        "==" => order.is_some_and(std::cmp::Ordering::is_eq),
        "!=" => order.is_none_or(std::cmp::Ordering::is_ne),
        "<" => order.is_some_and(std::cmp::Ordering::is_lt),
        "<=" => order.is_some_and(std::cmp::Ordering::is_le),
        ">" => order.is_some_and(std::cmp::Ordering::is_gt),
        _ => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

/// The numbers of the model are all exact in a float.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.chars().all(|character| character.is_ascii_digit() || "-.".contains(character));
    text.parse().ok().filter(|_| is_plain)
}

fn compare(text: &str, literal: &str) -> Option<std::cmp::Ordering> {
    number(text)?.partial_cmp(&literal.replace('_', "").parse().unwrap())
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| matches(rest, &text[at..])),
        Some((b'?', rest)) => !text.is_empty() && matches(rest, &text[1..]),
        Some((byte, rest)) => text.first() == Some(byte) && matches(rest, &text[1..]),
    }
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            _ if character == quote => out.extend(['\\', character]),
            '漢' => out.push_str("\\u{6f22}"),
            _ => out.push(character),
        }
    }
    out.push(quote);
    out
}

impl Condition {
    pub fn at_random(rng: &mut Rng) -> Self {
        match rng.below(5) {
            0 => Self::Text(Subject::text(rng), pick(rng, &OPERATORS), pick(rng, &TEXTS)),
            1 => Self::Number(Subject::number(rng), pick(rng, &OPERATORS), pick(rng, &NUMBERS)),
            2 => Self::Pattern(Subject::text(rng), rng.below(2) == 0, pick(rng, &PATTERNS)),
            3 => {
                let subject = if rng.below(2) == 0 { Subject::text(rng) } else { Subject::number(rng) };
                let number_only = matches!(subject, Subject::Value | Subject::Partition | Subject::Offset);
                let text_only = matches!(subject, Subject::Name | Subject::Topic);
                let texts = if number_only { 0 } else { 1 + rng.below(3) };
                let numbers = if text_only { 0 } else { 1 + rng.below(3) };
                let texts = (0..texts).map(|_| pick(rng, &TEXTS)).collect();
                Self::OneOf(subject, texts, (0..numbers).map(|_| pick(rng, &NUMBERS)).collect())
            }
            _ => Self::Has(pick(rng, &KEYS)),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(..) => "text",
            Self::Number(..) => "number",
            Self::Pattern(..) => "pattern",
            Self::OneOf(..) => "one of",
            Self::Has(_) => "has",
        }
    }

    fn takes(&self, series: &Series, event: &Event) -> bool {
        match self {
            Self::Text(subject, operator, text) => {
                subject.of(series, event).is_some_and(|value| holds(operator, Some(value.as_str().cmp(text))))
            }
            Self::Number(subject, operator, literal) => {
                subject.of(series, event).is_some_and(|value| holds(operator, compare(&value, literal)))
            }
            Self::Pattern(subject, negated, pattern) => {
                let value = subject.of(series, event);
                value.is_some_and(|value| matches(pattern.as_bytes(), value.as_bytes()) != *negated)
            }
            Self::OneOf(subject, texts, numbers) => subject.of(series, event).is_some_and(|value| {
                texts.contains(&value.as_str()) || numbers.iter().any(|literal| holds("==", compare(&value, literal)))
            }),
            Self::Has(key) => series.tag(key).is_some(),
        }
    }

    fn write(&self, rng: &mut Rng) -> String {
        let space = |rng: &mut Rng| pick(rng, &["", " ", "\t", "  "]);
        let quote = |rng: &mut Rng| pick(rng, &['"', '\'']);
        let (one, other) = (space(rng), space(rng));
        match self {
            Self::Text(subject, operator, text) => {
                format!("{}{one}{operator}{other}{}", subject.write(), quoted(text, quote(rng)))
            }
            Self::Number(subject, operator, literal) => format!("{}{one}{operator}{other}{literal}", subject.write()),
            Self::Pattern(subject, negated, pattern) => {
                let operator = if *negated { "!~" } else { "~" };
                format!("{}{one}{operator}{other}{}", subject.write(), quoted(pattern, quote(rng)))
            }
            Self::OneOf(subject, texts, numbers) => {
                let mut all: Vec<String> = texts.iter().map(|text| quoted(text, quote(rng))).collect();
                all.extend(numbers.iter().map(|number| (*number).to_owned()));
                format!("{} in{one}({other}{})", subject.write(), all.join(&format!("{one},{other}")))
            }
            Self::Has(key) => format!("has({one}{}{other})", quoted(key, quote(rng))),
        }
    }

    fn is_of_events(&self) -> bool {
        match self {
            Self::Text(subject, ..)
            | Self::Number(subject, ..)
            | Self::Pattern(subject, ..)
            | Self::OneOf(subject, ..) => subject.is_of_events(),
            Self::Has(_) => false,
        }
    }
}

impl Expression {
    pub fn at_random(rng: &mut Rng, depth: u64) -> Self {
        let several = |rng: &mut Rng| (0..2 + rng.below(2)).map(|_| Self::at_random(rng, depth - 1)).collect();
        match if depth == 0 { 0 } else { rng.below(5) } {
            0 | 1 => Self::One(Condition::at_random(rng)),
            2 => Self::All(several(rng)),
            3 => Self::Any(several(rng)),
            _ => Self::Not(Box::new(Self::at_random(rng, depth - 1))),
        }
    }

    pub fn takes(&self, series: &Series, event: &Event) -> bool {
        match self {
            Self::One(condition) => condition.takes(series, event),
            Self::All(all) => all.iter().all(|one| one.takes(series, event)),
            Self::Any(any) => any.iter().any(|one| one.takes(series, event)),
            Self::Not(one) => !one.takes(series, event),
        }
    }

    pub fn asks_about_events(&self) -> bool {
        match self {
            Self::One(condition) => condition.is_of_events(),
            Self::All(all) | Self::Any(all) => all.iter().any(Self::asks_about_events),
            Self::Not(one) => one.asks_about_events(),
        }
    }

    /// The text of the expression; `spaces` chooses where it has spaces, and which quotes and parentheses.
    pub fn write(&self, spaces: u64) -> String {
        self.write_within(&mut Rng::new(spaces), 0)
    }

    /// `binds`: 0 within `||`, 1 within `&&`, 2 after `!`.
    fn write_within(&self, rng: &mut Rng, binds: u8) -> String {
        let joined = |all: &[Self], sign: &str, binds: u8, rng: &mut Rng| {
            let parts: Vec<String> = all.iter().map(|one| one.write_within(rng, binds)).collect();
            let space = pick(rng, &["", " "]);
            parts.join(&format!("{space}{sign}{space}"))
        };
        let (text, needs) = match self {
            Self::One(condition) => (condition.write(rng), false),
            Self::Any(any) => (joined(any, "||", 0, rng), binds > 0),
            Self::All(all) => (joined(all, "&&", 1, rng), binds > 1),
            Self::Not(one) => (format!("!{}", one.write_within(rng, 2)), false),
        };
        if needs || rng.below(8) == 0 { format!("({text})") } else { text }
    }
}

pub fn any_expression() -> impl Strategy<Value = Expression> {
    // Three levels have at most 27 conditions, which is less than a filter may have.
    any::<u64>().prop_map(|seed| Expression::at_random(&mut Rng::new(seed), 3))
}

pub fn any_series() -> impl Strategy<Value = Series> {
    any::<u64>().prop_map(|seed| {
        let mut rng = Rng::new(seed);
        let name = pick(&mut rng, &TEXTS[9..]);
        let mut keys: Vec<&str> = KEYS.into_iter().filter(|_| rng.below(2) == 0).collect();
        keys.sort_unstable();
        let tags: Vec<(&str, &str)> = keys.into_iter().map(|key| (key, pick(&mut rng, &TEXTS))).collect();
        Series::from_sorted(name, &tags)
    })
}

pub fn any_event() -> impl Strategy<Value = Event> {
    any::<u64>().prop_map(|seed| {
        let mut rng = Rng::new(seed);
        let value = pick(&mut rng, &[1, 10, 11, 404, 500, u64::MAX]);
        let topic = pick(&mut rng, &["http.errors", "500", "eu"]);
        Event { value, topic, partition: pick(&mut rng, &[0, 404]), offset: pick(&mut rng, &[0, 404, 501]) }
    })
}
