//! Texts for operators: short, on one line, and without secrets; numbers with their nouns; and bytes as text.

use std::borrow::Cow;

pub use tallybus_bus::{count_of, grouped};

/// The maximum length of a server's message when it is shown, in bytes.
pub const SHOWN: usize = 500;

/// The beginning of a text: whole characters, at most this many bytes.
pub fn clip(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

/// The digits of a text that has nothing else, but single `_` between digits; `None` for any other.
pub fn digits(text: &str) -> Option<String> {
    let is_sound = text.split('_').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    is_sound.then(|| text.replace('_', ""))
}

/// Truncates a text to the length that messages show.
pub fn shorten(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    format!("{}…", clip(text, SHOWN))
}

/// A secret shorter than this, in characters, is replaced only where it stands as a word of its own: it is part of too many
/// other words.
const SHORT_SECRET: usize = 6;

/// Replaces every secret in a text. One shorter than six characters is replaced where no letter, digit or `_` is beside it.
pub fn redact(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = match secret.chars().count() < SHORT_SECRET {
            true => redact_words(&text, secret),
            false => text.replace(secret, "***"),
        };
    }
    text
}

fn redact_words(text: &str, secret: &str) -> String {
    let is_of_word = |character: char| character.is_alphanumeric() || character == '_';
    let (mut redacted, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(secret) {
        let (before, after) = (&rest[..at], &rest[at + secret.len()..]);
        let last = before.chars().next_back().or_else(|| redacted.chars().next_back());
        let is_word = !last.is_some_and(is_of_word) && !after.chars().next().is_some_and(is_of_word);
        redacted.push_str(before);
        redacted.push_str(if is_word { "***" } else { secret });
        rest = after;
    }
    redacted.push_str(rest);
    redacted
}

/// A server's message as operators see it: short, on one line and without these secrets.
pub fn brief(text: &str, secrets: &[&str]) -> String {
    let text = redact(text, secrets).replace(char::is_control, " ");
    shorten(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Whether a terminal may obey a character instead of showing it: control characters (C0, C1, delete), line separators, and
/// those that change the direction of the text after them.
pub fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text as a terminal may show it: what it would obey is escaped, line breaks included unless `lines`.
pub fn escape(text: &str, lines: bool) -> Cow<'_, str> {
    escape_as(text, lines, |escaped, character| escaped.extend(character.escape_unicode()))
}

/// JSON with the same meaning that a terminal may show.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    // All of these are in the basic plane, and within strings: outside of them JSON has only line breaks.
    escape_as(json, true, |escaped, character| escaped.push_str(&format!("\\u{:04x}", u32::from(character))))
}

fn escape_as(text: &str, lines: bool, escape: fn(&mut String, char)) -> Cow<'_, str> {
    let is_escaped = |character: char| is_obeyed(character) && !(lines && character == '\n');
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_escaped(character) {
            true => escape(&mut escaped, character),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// Two hexadecimal digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(digits[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(escape("plain é 漢\n", true), "plain é 漢\n");
        assert_eq!(escape("a\nb\u{1b}[31m\u{9b}2J\u{202e}c\u{7f}", false), r"a\u{a}b\u{1b}[31m\u{9b}2J\u{202e}c\u{7f}");
        let json = escape_json("{\"a\":\"\u{9b}\u{2066}\"}");
        assert_eq!(json, r#"{"a":"\u009b\u2066"}"#);
    }

    #[test]
    fn a_text_ends_with_a_whole_character() {
        assert_eq!((clip("aé", 3), clip("aé", 2), clip("aé", 0), clip("", 9)), ("aé", "a", "", ""));
    }

    #[test]
    fn a_brief_message_is_short_in_one_line_and_without_secrets() {
        assert_eq!(brief("Code: 1.\n no s3cret here\n", &["s3cret", ""]), "Code: 1. no *** here");
        let long = "é".repeat(10_000);
        let shown = brief(&long, &[]);
        assert!(shown.len() <= SHOWN + "…".len() && shown.ends_with('…'));
        // A secret across the cut is removed too: secrets are replaced before truncation.
        assert!(!brief(&format!("{}s3cret", "x".repeat(SHOWN - 2)), &["s3cret"]).contains("s3"));
    }

    #[test]
    fn a_short_secret_is_removed_as_a_word_and_leaves_other_words_alone() {
        let secrets = ["x", "tifi"];
        assert_eq!(
            redact("InfluxDB: token x of x, certificate tifi", &secrets),
            "InfluxDB: token *** of ***, certificate ***"
        );
        assert_eq!(redact("x", &secrets), "***");
        assert_eq!(redact("xx x_x x=x;", &secrets), "xx x_x ***=***;");
        assert_eq!(redact("pässword é", &["é"]), "pässword ***");
        // From six characters on, everywhere.
        assert_eq!(redact("aHUNTER2b", &["HUNTER"]), "a***2b");
    }

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hex(&[0, 0x0f, 0xa5, 0xff]), "000fa5ff");
    }
}
