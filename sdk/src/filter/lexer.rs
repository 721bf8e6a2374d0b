use std::ops::Range;

use super::FilterError;

/// A piece of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'t> {
    /// A name: `status`, `http.method`.
    Word(&'t str),
    /// A text in quotes, without its escapes.
    Text(String),
    /// What begins like a number: a number, a time, or an age.
    Literal(&'t str),
    Operator(Operator),
    And,
    Or,
    Not,
    Open,
    Close,
    Comma,
    End,
}

/// What compares the two sides of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Differs,
    Matches,
    MatchesNot,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Differs => "!=",
            Self::Matches => "~",
            Self::MatchesNot => "!~",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// The longer ones first.
const SIGNS: [(&str, Token<'_>); 14] = [
    ("==", Token::Operator(Operator::Equal)),
    ("!=", Token::Operator(Operator::Differs)),
    ("!~", Token::Operator(Operator::MatchesNot)),
    ("<=", Token::Operator(Operator::LessOrEqual)),
    (">=", Token::Operator(Operator::GreaterOrEqual)),
    ("&&", Token::And),
    ("||", Token::Or),
    ("~", Token::Operator(Operator::Matches)),
    ("<", Token::Operator(Operator::Less)),
    (">", Token::Operator(Operator::Greater)),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
    (",", Token::Comma),
];

/// Reads an expression piece by piece.
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// The next piece, and its bytes in the expression.
    pub(super) fn next(&mut self) -> Result<(Token<'t>, Range<usize>), FilterError> {
        let rest = self.text[self.at..].trim_start();
        let start = self.text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            self.at = self.text.len();
            return Ok((Token::End, start..start));
        };
        if matches!(first, '"' | '\'') {
            return self.quoted(start, first);
        }
        let sign = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign));
        let (token, length) = if let Some((sign, token)) = sign {
            (token.clone(), sign.len())
        } else if first.is_ascii_digit() || matches!(first, '-' | '+') {
            let length = length_of(rest, |c| c.is_alphanumeric() || matches!(c, '.' | '_' | ':' | '+' | '-'));
            (Token::Literal(&rest[..length]), length)
        } else if first.is_alphabetic() || first == '_' {
            let length = length_of(rest, |c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-'));
            (Token::Word(&rest[..length]), length)
        } else {
            let at = start..start + first.len_utf8();
            return Err(FilterError::new(self.text, at, unexpected(first)));
        };
        self.at = start + length;
        Ok((token, start..self.at))
    }

    fn quoted(&mut self, start: usize, quote: char) -> Result<(Token<'t>, Range<usize>), FilterError> {
        let mut text = String::new();
        let mut base = start + 1;
        let mut characters = self.text[base..].char_indices();
        while let Some((at, character)) = characters.next() {
            let at = base + at;
            if character == quote {
                self.at = at + 1;
                return Ok((Token::Text(text), start..self.at));
            }
            if character != '\\' {
                text.push(character);
                continue;
            }
            let Some((_, escaped)) = characters.next() else { break };
            let character = match escaped {
                '\\' | '"' | '\'' => escaped,
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let (character, length) = self.code_point(at)?;
                    characters = self.text[at + length..].char_indices();
                    base = at + length;
                    character
                }
                _ => {
                    return Err(FilterError::new(
                        self.text,
                        at..at + 1 + escaped.len_utf8(),
                        "unknown escape: in quotes write \\\\ for a backslash; others are \\\" \\' \\n \\r \\t \\u{e9}",
                    ));
                }
            };
            text.push(character);
        }
        let at = start..start + 1;
        Err(FilterError::new(self.text, at, format!("unterminated text: expected a closing {quote}")))
    }

    /// The character of `\u{…}` at this place, and the length of the escape.
    fn code_point(&self, at: usize) -> Result<(char, usize), FilterError> {
        let rest = &self.text[at..];
        let digits = rest.strip_prefix("\\u{").and_then(|rest| rest.split_once('}')).map(|(digits, _)| digits);
        let is_hex =
            |digits: &&str| (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let character = digits
            .filter(is_hex)
            .and_then(|digits| Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, digits.len() + 4)));
        let reason = "expected the number of a character in hexadecimal, as in \\u{e9}";
        character.ok_or_else(|| FilterError::new(self.text, at..at + 2, reason))
    }
}

fn length_of(text: &str, is_inside: impl Fn(char) -> bool) -> usize {
    text.find(|character| !is_inside(character)).unwrap_or(text.len())
}

fn unexpected(character: char) -> String {
    match character {
        '=' => "`=` compares nothing: write `==`".to_owned(),
        '&' => "expected `&&`".to_owned(),
        '|' => "expected `||`".to_owned(),
        '“' | '”' | '‘' | '’' | '«' | '»' | '`' => {
            format!("`{character}` does not quote a text: use \" or '")
        }
        _ => "expected a name, a number, a text in quotes, or an operator; a tag with an odd name is tag(\"odd name\")"
            .to_owned(),
    }
}
