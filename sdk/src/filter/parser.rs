use std::ops::Range;

use super::condition::{Comparison, OfEvent, OfNumber, OfSeries, OfText, OfTime};
use super::decimal::{Decimal, MOST_DIGITS};
use super::lexer::{Lexer, Operator, Token};
use super::{
    FIELDS, Filter, FilterError, FilterScope, MOST_BYTES, MOST_CONDITIONS, MOST_NESTED, Node, number, pattern,
};
use crate::config::nearest;
use crate::text::grouped;
use crate::times::parse_time;

/// The functions, for messages.
const FUNCTIONS: [&str; 2] = ["has", "tag"];

pub(super) fn parse(text: &str, scope: FilterScope, now: i64) -> Result<Filter, FilterError> {
    if text.len() > MOST_BYTES {
        let reason = format!(
            "a filter has at most {} bytes, and this one {}",
            grouped(MOST_BYTES as u64),
            grouped(text.len() as u64)
        );
        return Err(FilterError::new("", 0..0, reason));
    }
    let mut parser = Parser {
        text,
        lexer: Lexer::new(text),
        token: Token::End,
        at: 0..0,
        scope,
        now,
        of_series: Vec::new(),
        conditions: 0,
    };
    parser.step()?;
    let root = parser.any(0)?;
    match parser.token {
        Token::End => Ok(Filter { root, of_series: parser.of_series }),
        Token::Close => Err(parser.wrong("unmatched `)`")),
        _ => Err(parser.wrong(parser.after_condition())),
    }
}

struct Parser<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    /// The piece that is to be read next, and its place.
    token: Token<'t>,
    at: Range<usize>,
    scope: FilterScope,
    now: i64,
    of_series: Vec<OfSeries>,
    conditions: usize,
}

/// What a condition is about.
enum Subject {
    Name,
    Tag(String),
    Topic,
    Value,
    Partition,
    Offset,
    Time,
}

impl Subject {
    /// What it is compared with, for messages.
    fn expects(&self) -> &'static str {
        match self {
            Self::Name | Self::Topic => "a text in quotes",
            Self::Tag(_) => "a text in quotes or a number",
            Self::Value | Self::Partition | Self::Offset => "a number such as 10, 1_000 or 1e6",
            Self::Time => "a time such as 2026-01-31T12:00:00Z, 2026-01-31, -5m or now",
        }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Name | Self::Topic | Self::Tag(_))
    }
}

/// The right side of a condition.
enum Operand {
    Text(String),
    Number(Decimal),
    Time(i64),
}

impl<'t> Parser<'t> {
    /// Goes to the next piece and returns the one before.
    fn step(&mut self) -> Result<(Token<'t>, Range<usize>), FilterError> {
        let (token, at) = self.lexer.next()?;
        Ok((std::mem::replace(&mut self.token, token), std::mem::replace(&mut self.at, at)))
    }

    fn wrong(&self, reason: impl Into<String>) -> FilterError {
        FilterError::new(self.text, self.at.clone(), reason)
    }

    fn after_condition(&self) -> String {
        match &self.token {
            Token::Word(word) if word.eq_ignore_ascii_case("and") => "expected `&&`, not a word".to_owned(),
            Token::Word(word) if word.eq_ignore_ascii_case("or") => "expected `||`, not a word".to_owned(),
            _ => "expected `&&`, `||` or the end of the filter".to_owned(),
        }
    }

    fn any(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.all(depth)?];
        while self.token == Token::Or {
            self.step()?;
            nodes.push(self.all(depth)?);
        }
        Ok(one_or(nodes, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.unary(depth)?];
        while self.token == Token::And {
            self.step()?;
            nodes.push(self.unary(depth)?);
        }
        Ok(one_or(nodes, Node::All))
    }

    fn unary(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut is_negated = false;
        while self.token == Token::Not {
            self.step()?;
            is_negated = !is_negated;
        }
        let node = if self.token == Token::Open {
            if depth == MOST_NESTED {
                return Err(self.wrong(format!("more than {MOST_NESTED} parentheses inside each other")));
            }
            let (_, open) = self.step()?;
            let inner = self.any(depth + 1)?;
            match self.token {
                Token::Close => self.step()?,
                Token::End => {
                    return Err(FilterError::new(self.text, open, "this parenthesis is not closed: expected `)`"));
                }
                _ => return Err(self.wrong(self.after_condition().replace("the end of the filter", "`)`"))),
            };
            inner
        } else {
            self.condition()?
        };
        Ok(if is_negated { Node::Not(Box::new(node)) } else { node })
    }

    fn condition(&mut self) -> Result<Node, FilterError> {
        self.conditions += 1;
        if self.conditions > MOST_CONDITIONS {
            let reason =
                format!("more than {MOST_CONDITIONS} conditions: to compare with several values, write `name in (…)`");
            return Err(self.wrong(reason));
        }
        let Token::Word(word) = self.token else { return Err(self.wrong(self.no_condition())) };
        let (_, at) = self.step()?;
        if self.token != Token::Open {
            let subject = self.subject(word, &at)?;
            return self.comparison(subject, word);
        }
        match word {
            "has" => {
                let key = self.key()?;
                Ok(self.series(OfSeries::Has(key.into())))
            }
            "tag" => {
                let key = self.key()?;
                let shown = self.text[at.start..self.at.start].trim_end();
                self.comparison(Subject::Tag(key), shown)
            }
            _ => Err(FilterError::new(self.text, at, no_function(word))),
        }
    }

    /// Why a condition does not begin here.
    fn no_condition(&self) -> String {
        match &self.token {
            Token::End if self.text.trim().is_empty() => {
                "the filter is empty: expected a condition such as status >= 500".to_owned()
            }
            Token::Text(_) => "expected a name on the left; a tag with an odd name is tag(\"odd name\")".to_owned(),
            Token::Literal(_) => "expected a name on the left, as in value > 10".to_owned(),
            _ => "expected a condition such as status >= 500".to_owned(),
        }
    }

    fn subject(&self, word: &str, at: &Range<usize>) -> Result<Subject, FilterError> {
        let of_events = match word {
            "name" => return Ok(Subject::Name),
            "value" => Subject::Value,
            "time" => Subject::Time,
            "topic" => Subject::Topic,
            "partition" => Subject::Partition,
            "offset" => Subject::Offset,
            key => return Ok(Subject::Tag(key.to_owned())),
        };
        match self.scope {
            FilterScope::Events => Ok(of_events),
            FilterScope::Series => Err(FilterError::new(
                self.text,
                at.clone(),
                format!(
                    "only the name and the tags of a series are known here, not `{word}`; a tag of that name is tag(\"{word}\")"
                ),
            )),
        }
    }

    /// The tag of `has(tag)` and `tag("tag")`; begins at the parenthesis.
    fn key(&mut self) -> Result<String, FilterError> {
        self.step()?;
        let key = match &mut self.token {
            Token::Word(word) => (*word).to_owned(),
            Token::Text(text) => std::mem::take(text),
            _ => return Err(self.wrong("expected the name of a tag, in quotes if it is an odd one")),
        };
        self.step()?;
        if self.token != Token::Close {
            return Err(self.wrong("expected `)` after the name of the tag"));
        }
        self.step()?;
        Ok(key)
    }

    /// `shown`: the subject as it was written.
    fn comparison(&mut self, subject: Subject, shown: &str) -> Result<Node, FilterError> {
        let at = self.at.clone();
        match self.token {
            Token::Operator(operator) => {
                self.step()?;
                match Comparison::of(operator) {
                    Some(comparison) => self.compared(subject, operator, comparison),
                    None => self.matched(subject, operator, &at),
                }
            }
            Token::Word("in") => {
                self.step()?;
                self.one_of(subject)
            }
            Token::Word("is" | "eq" | "equals") => Err(self.wrong("expected `==`, not a word")),
            _ => {
                let hint = match subject {
                    Subject::Tag(_) => format!("; to ask whether the tag is present, write has({shown})"),
                    _ => String::new(),
                };
                let reason = format!("expected an operator after `{shown}`: == != ~ !~ < <= > >= or in (…){hint}");
                Err(self.wrong(reason))
            }
        }
    }

    fn compared(&mut self, subject: Subject, operator: Operator, comparison: Comparison) -> Result<Node, FilterError> {
        let operand = self.operand(&subject, &format!("after `{}`", operator.text()))?;
        Ok(match (subject, operand) {
            (Subject::Value, Operand::Number(number)) => {
                Node::Event(OfEvent::Value(OfNumber::Compares(comparison, number.bound())))
            }
            (Subject::Partition, Operand::Number(number)) => {
                Node::Event(OfEvent::Partition(OfNumber::Compares(comparison, number.bound())))
            }
            (Subject::Offset, Operand::Number(number)) => {
                Node::Event(OfEvent::Offset(OfNumber::Compares(comparison, number.bound())))
            }
            (_, Operand::Time(time)) => Node::Event(OfEvent::Time(OfTime::Compares(comparison, time))),
            (subject, Operand::Number(number)) => self.text(subject, OfText::ComparesAsNumber(comparison, number)),
            (subject, Operand::Text(text)) => self.text(subject, OfText::Compares(comparison, text.into())),
        })
    }

    fn matched(&mut self, subject: Subject, operator: Operator, at: &Range<usize>) -> Result<Node, FilterError> {
        if !subject.is_text() {
            let reason =
                format!("`{}` compares a text with a pattern: use == != < <= > >= or in (…) here", operator.text());
            return Err(FilterError::new(self.text, at.clone(), reason));
        }
        let Token::Text(text) = &self.token else {
            return Err(
                self.wrong(format!("expected a pattern in quotes after `{}`, such as \"http.*\"", operator.text()))
            );
        };
        let glob = pattern::compile(text).map_err(|reason| self.wrong(reason))?;
        self.step()?;
        Ok(self.text(subject, OfText::Matches(glob, operator == Operator::Matches)))
    }

    fn one_of(&mut self, subject: Subject) -> Result<Node, FilterError> {
        if self.token != Token::Open {
            return Err(self.wrong("expected `(` after `in`, as in status in (500, 503)"));
        }
        let (mut texts, mut numbers, mut times): (Vec<Box<str>>, Vec<Decimal>, Vec<i64>) = Default::default();
        loop {
            // The parenthesis, or a comma.
            self.step()?;
            match self.operand(&subject, "in the list")? {
                Operand::Text(text) => texts.push(text.into()),
                Operand::Number(number) => numbers.push(number),
                Operand::Time(time) => times.push(time),
            }
            match self.token {
                Token::Comma => {}
                Token::Close => break,
                _ => return Err(self.wrong("expected `,` or `)` in the list")),
            }
        }
        self.step()?;
        texts.sort_unstable();
        let bounds = || OfNumber::OneOf(numbers.iter().map(Decimal::bound).collect());
        Ok(match subject {
            Subject::Value => Node::Event(OfEvent::Value(bounds())),
            Subject::Partition => Node::Event(OfEvent::Partition(bounds())),
            Subject::Offset => Node::Event(OfEvent::Offset(bounds())),
            Subject::Time => Node::Event(OfEvent::Time(OfTime::OneOf(times.into()))),
            subject => self.text(subject, OfText::OneOf(texts.into(), numbers.into())),
        })
    }

    /// The right side of a condition on this subject.
    fn operand(&mut self, subject: &Subject, place: &str) -> Result<Operand, FilterError> {
        let expected = || format!("expected {} {place}", subject.expects());
        let operand = match (subject, &self.token) {
            (Subject::Time, Token::Text(text)) => Operand::Time(self.time(text)?),
            (Subject::Time, Token::Literal(text)) => Operand::Time(self.time(text)?),
            (Subject::Time, Token::Word(word)) => Operand::Time(self.time(word)?),
            (Subject::Name | Subject::Topic | Subject::Tag(_), Token::Text(text)) => Operand::Text(text.clone()),
            (Subject::Name | Subject::Topic | Subject::Tag(_), Token::Word(word)) => {
                return Err(self.wrong(format!("{}: write \"{word}\"", expected())));
            }
            (Subject::Value | Subject::Partition | Subject::Offset | Subject::Tag(_), Token::Literal(text)) => {
                let number = Decimal::parse(text);
                Operand::Number(number.ok_or_else(|| self.wrong(no_number(text, subject, &expected())))?)
            }
            _ => return Err(self.wrong(expected())),
        };
        self.step()?;
        Ok(operand)
    }

    fn time(&self, text: &str) -> Result<i64, FilterError> {
        parse_time(text, self.now).map_err(|reason| self.wrong(reason))
    }

    /// A condition on a text.
    fn text(&mut self, subject: Subject, condition: OfText) -> Node {
        match subject {
            Subject::Topic => Node::Event(OfEvent::Topic(condition)),
            Subject::Tag(key) => self.series(OfSeries::Tag(key.into(), condition)),
            _ => self.series(OfSeries::Name(condition)),
        }
    }

    fn series(&mut self, condition: OfSeries) -> Node {
        self.of_series.push(condition);
        Node::Series(number(self.of_series.len() - 1))
    }
}

fn one_or(mut nodes: Vec<Node>, several: fn(Vec<Node>) -> Node) -> Node {
    if nodes.len() == 1 { nodes.swap_remove(0) } else { several(nodes) }
}

fn no_number(text: &str, subject: &Subject, expected: &str) -> String {
    let starts_like_one = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'_' | b'e' | b'E' | b'.'));
    match subject {
        _ if starts_like_one && text.len() > MOST_DIGITS => format!("a number has at most {MOST_DIGITS} digits"),
        Subject::Tag(_) => format!("{expected}: for the text write \"{text}\""),
        _ => expected.to_owned(),
    }
}

fn no_function(word: &str) -> String {
    if FIELDS.contains(&word) {
        return format!("`{word}` takes no parentheses: expected an operator, or `in`, after it");
    }
    match nearest(word, FUNCTIONS.into_iter()) {
        Some(known) => format!("there is no function `{word}`: did you mean {known}(…)?"),
        None => format!("there is no function `{word}`: the functions are has(tag) and tag(\"odd name\")"),
    }
}
