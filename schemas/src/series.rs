use std::fmt;

/// A tag: key and value, neither empty.
pub type Tag = (Box<str>, Box<str>);

/// A counter name plus its tags, sorted by key (byte order), each key once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    name: Box<str>,
    tags: Box<[Tag]>,
}

impl Series {
    /// Takes what a decoder announced to a [`Receiver`](crate::Receiver): already sorted and checked.
    pub fn from_sorted(name: &str, tags: &[(&str, &str)]) -> Self {
        debug_assert!(tags.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let tags = tags.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        Self { name: name.into(), tags }
    }

    /// The counter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sorted by key.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// The value of a tag, if the series has it.
    pub fn tag(&self, key: &str) -> Option<&str> {
        let found = self.tags.binary_search_by(|(candidate, _)| (**candidate).cmp(key)).ok()?;
        Some(&self.tags[found].1)
    }
}

/// For logs and messages: `http.requests{route="/v1/sites",status="200"}`.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (index, (key, value)) in self.tags.iter().enumerate() {
            f.write_str(if index == 0 { "{" } else { "," })?;
            f.write_str(key)?;
            f.write_str("=\"")?;
            for part in value.split_inclusive(['"', '\\']) {
                match part.char_indices().next_back() {
                    Some((at, mark @ ('"' | '\\'))) => write!(f, "{}\\{mark}", &part[..at])?,
                    _ => f.write_str(part)?,
                }
            }
            f.write_str("\"")?;
        }
        f.write_str(if self.tags.is_empty() { "" } else { "}" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_a_series() {
        let series = Series::from_sorted("http.requests", &[("route", "/v1/sites"), ("status", "200")]);
        assert_eq!(series.to_string(), r#"http.requests{route="/v1/sites",status="200"}"#);
        assert_eq!(Series::from_sorted("up", &[]).to_string(), "up");
        let odd = Series::from_sorted("n", &[("k", r#""a\b"é"#)]);
        assert_eq!(odd.to_string(), r#"n{k="\"a\\b\"é"}"#);
        assert_eq!(series.tag("status"), Some("200"));
        assert_eq!(series.tag("stat"), None);
    }
}
