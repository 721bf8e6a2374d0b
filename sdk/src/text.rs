//! Texts for operators: short, on one line, and without secrets; numbers with their nouns; and bytes as text.

pub use tallybus_bus::{count_of, grouped};

/// The maximum length of a server's message when it is shown, in bytes.
pub const SHOWN: usize = 500;

/// The beginning of a text: whole characters, at most this many bytes.
pub fn clip(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
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

/// Two hexadecimal digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(digits[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
