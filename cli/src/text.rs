//! Human-readable text: tables, numbers, series.

use std::time::Duration;

use tallybus_schemas::Series;
pub(crate) use tallybus_sdk::text::{count_of, escape, grouped};

pub(crate) use crate::table::Table;

/// `name key=value key=value`, as `emit` reads it; texts with spaces are quoted.
pub(crate) fn series(series: &Series) -> String {
    let mut text = quoted(series.name());
    for (key, value) in series.tags() {
        text.push(' ');
        text.push_str(&quoted(key));
        text.push('=');
        text.push_str(&quoted(value));
    }
    text
}

/// A text of a series as `emit` reads it: in quotes where it needs them.
pub(crate) fn quoted(text: &str) -> String {
    let plain =
        !text.is_empty() && !text.contains([' ', '"', '=', ',', ';', '|', '{', '}', '[', ']', '(', ')', '<', '>']);
    if plain { escape(text, false).into_owned() } else { format!("{text:?}") }
}

/// A duration in its two largest units: `2d 4h`, `3m 20s`, `5s`.
pub(crate) fn duration(duration: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = duration.as_secs();
    let mut parts = Vec::new();
    for (seconds, unit) in UNITS {
        if left / seconds > 0 && parts.len() < 2 {
            parts.push(format!("{}{unit}", left / seconds));
            left %= seconds;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// An amount of something whose name is in the plural, as [`Usage`](tallybus_sdk::Usage) has it: `1 file`, `2 files`.
pub(crate) fn amount_of(amount: f64, what: &str) -> String {
    let shown = match format!("{amount:.1}") {
        text if text.ends_with(".0") => text[..text.len() - 2].parse::<u128>().map_or(text, grouped),
        text => text,
    };
    if shown != "1" {
        return format!("{shown} {what}");
    }
    // The noun is the first word that is in the plural: `1 byte before compression`.
    let mut words: Vec<&str> = what.split(' ').collect();
    if let Some((noun, one)) = words.iter_mut().find_map(|word| word.strip_suffix('s').map(|one| (word, one))) {
        *noun = one;
    }
    format!("{shown} {}", words.join(" "))
}

/// A text in lines of at most this many characters, broken at spaces; a longer word has a line of its own. A narrow width
/// is not kept: texts would be one word in a line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    const NARROWEST: usize = 24;
    let width = width.max(NARROWEST);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line =
            lines.last_mut().filter(|line| line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A text in lines of at most this many characters, broken at spaces, and within words that are longer than a line.
pub(crate) fn fold(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for word in text.split_whitespace() {
        if used > 0 && used + 1 + word.chars().count() <= width {
            line.push(' ');
            used += 1;
        } else if used > 0 {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        for character in word.chars() {
            if used == width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(character);
            used += 1;
        }
    }
    lines.push(line);
    lines
}

/// `0-3, 7` for sorted numbers.
pub(crate) fn numbers_as_ranges(numbers: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |&(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, shown) in
            [(0, "0s"), (5, "5s"), (60, "1m"), (200, "3m 20s"), (3_601, "1h 1s"), (187_200, "2d 4h"), (90_061, "1d 1h")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn an_amount_of_one_is_in_the_singular() {
        let shown = |amount, what| amount_of(amount, what);
        assert_eq!(shown(1.0, "files"), "1 file");
        assert_eq!(shown(1.0, "SQL bytes"), "1 SQL byte");
        assert_eq!(shown(1.0, "conditions that failed"), "1 condition that failed");
        assert_eq!((shown(0.0, "rows"), shown(1_200.0, "rows")), ("0 rows".to_owned(), "1,200 rows".to_owned()));
        assert_eq!(shown(1.5, "write units"), "1.5 write units");
    }

    #[test]
    fn texts_are_broken_at_spaces_and_longer_words_where_they_must_be() {
        assert_eq!(fold("a bc  defghij k", 3), ["a", "bc", "def", "ghi", "j k"]);
        assert_eq!(fold("", 0), [""]);
        assert_eq!(wrap("a-word-that-is-longer-than-all-lines b", 1), ["a-word-that-is-longer-than-all-lines", "b"]);
    }

    #[test]
    fn a_series_is_shown_as_it_is_emitted() {
        let shown = series(&Series::from_sorted("hits", &[("path", "/a b"), ("status", "200")]));
        assert_eq!(shown, "hits path=\"/a b\" status=200");
    }

    #[test]
    fn numbers_in_a_row_are_a_range() {
        for (numbers, expected) in
            [(&[][..], ""), (&[4], "4"), (&[0, 1, 2, 3, 7], "0-3, 7"), (&[1, 3, u32::MAX], "1, 3, 4294967295")]
        {
            assert_eq!(numbers_as_ranges(numbers), expected);
        }
    }
}
