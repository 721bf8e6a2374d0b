use globset::{Glob, GlobMatcher};
use tallybus_schemas::Series;

use crate::failure::Failure;

/// The series that a command selects.
#[derive(Debug)]
pub(crate) struct Filter {
    name: Option<GlobMatcher>,
    tags: Vec<(String, String)>,
}

impl Filter {
    /// # Errors
    /// The pattern is not a valid glob.
    pub(crate) fn new(name: Option<&str>, tags: &[(String, String)]) -> Result<Self, Failure> {
        let name = match name {
            None => None,
            Some(pattern) => {
                let glob = Glob::new(pattern).map_err(|error| Failure::could_not_look(format!("--name: {error}")))?;
                Some(glob.compile_matcher())
            }
        };
        Ok(Self { name, tags: tags.to_vec() })
    }

    pub(crate) fn takes(&self, series: &Series) -> bool {
        self.name.as_ref().is_none_or(|name| name.is_match(series.name()))
            && self.tags.iter().all(|(key, value)| series.tag(key) == Some(value))
    }
}

/// Reads `key=value`.
///
/// # Errors
/// What was expected.
pub(crate) fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected key=value".to_owned()),
    }
}
