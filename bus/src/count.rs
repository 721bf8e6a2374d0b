//! Numbers with their nouns, for the messages of every crate.

/// 1234567 as `1,234,567`.
pub fn grouped(value: impl Into<u128>) -> String {
    let digits = value.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 message`, `2 messages`, `2 batches`, `2 series`.
pub fn count_of(count: impl Into<u128>, what: &str) -> String {
    let count = count.into();
    let ending = match what {
        _ if count == 1 => "",
        "series" => "",
        "batch" => "es",
        _ => "s",
    };
    format!("{} {what}{ending}", grouped(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_digits() {
        for (value, text) in [(0_u64, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn one_and_many() {
        let counted = [(1_u32, "batch"), (2, "batch"), (0, "event"), (2, "series"), (1_000, "partition")];
        let shown = counted.map(|(count, what)| count_of(count, what));
        assert_eq!(shown, ["1 batch", "2 batches", "0 events", "2 series", "1,000 partitions"]);
    }
}
