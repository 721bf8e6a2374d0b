/// A path of keys as a [`Problem`](super::Problem) shows it: `bus.kafka."sasl.password"`.
pub fn key_path<'k>(keys: impl IntoIterator<Item = &'k str>) -> String {
    let mut path = String::new();
    for key in keys {
        match path.is_empty() {
            true => path.push_str(key),
            false => path = format!("{path}.{}", quoted(key)),
        }
    }
    path
}

pub(super) fn quoted(key: &str) -> String {
    let bare = key.chars().all(|c| c.is_ascii_alphanumeric() || "_-[]".contains(c));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_not_bare_are_in_quotes() {
        assert_eq!(key_path(["bus", "kafka", "sasl.password"]), "bus.kafka.\"sasl.password\"");
        assert_eq!(key_path(["sinks", "a-b", "topics[0]"]), "sinks.a-b.topics[0]");
        assert_eq!(key_path([]), "");
    }
}
