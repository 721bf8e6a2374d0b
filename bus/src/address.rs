//! The kinds of bus: their names, their addresses, and how they are opened.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use thiserror::Error;

use crate::{Bus, BusError};

/// The kinds of bus in this build. To add one, write a module and add a row here and in `KNOWN`.
pub static BUSES: &[BusKind] = &[
    #[cfg(feature = "kafka")]
    crate::kafka::KIND,
    #[cfg(feature = "embedded")]
    crate::embedded::KIND,
];

/// Name and address prefix of every kind of bus, including those that this build leaves out.
const KNOWN: &[(&str, &str)] = &[("kafka", "kafka://"), ("embedded", "embedded:")];

/// What opening a bus does about a file that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is created.
    Create,
    /// It is an error.
    Refuse,
}

type OpenBus = fn(&BusAddress, Missing) -> Result<Box<dyn Bus>, BusError>;

/// A kind of bus.
#[non_exhaustive]
pub struct BusKind {
    /// Its name in the settings.
    pub name: &'static str,
    /// The prefix of its addresses.
    pub scheme: &'static str,
    /// The form of its addresses, for messages.
    pub form: &'static str,
    /// The setting in `[bus]` that holds its place (brokers or path).
    pub place: &'static str,
    /// The table in `[bus]` with properties for its client library.
    pub properties: Option<&'static str>,
    /// Completes the place given by the address or the setting (a default port, say), or returns why it is not valid.
    pub(crate) complete: fn(&str) -> Result<String, String>,
    /// Checks the properties without connecting.
    pub(crate) check: fn(&BusAddress) -> Result<(), BusError>,
    /// Checks each property by itself.
    pub(crate) check_each: fn(&BTreeMap<String, String>) -> Result<(), BusError>,
    /// Opens the bus; one that is a file is created as [`Missing`] says.
    pub(crate) open: OpenBus,
    /// The file, for a bus that is one file, so that its existence can be checked without creating it.
    pub(crate) is_file: bool,
}

impl BusKind {
    /// The kind of this name.
    ///
    /// # Errors
    /// No such kind exists, or this build was compiled without it.
    pub fn named(name: &str) -> Result<&'static Self, AddressError> {
        if let Some(kind) = BUSES.iter().find(|kind| kind.name == name) {
            return Ok(kind);
        }
        match KNOWN.iter().find(|(known, _)| *known == name) {
            Some((known, _)) => Err(AddressError::LeftOut { kind: known }),
            None => Err(AddressError::UnknownKind { kind: name.chars().take(40).collect() }),
        }
    }

    /// The settings in `[bus]` that only this kind has.
    pub fn settings(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.place).chain(self.properties)
    }

    /// Checks each property by itself, where the whole address is not known. [`BusAddress::check`] also checks the
    /// properties together.
    ///
    /// # Errors
    /// [`BusError::Settings`].
    pub fn check_properties(&self, properties: &BTreeMap<String, String>) -> Result<(), BusError> {
        (self.check_each)(properties)
    }
}

impl fmt::Debug for BusKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BusKind").field(&self.name).finish()
    }
}

impl PartialEq for BusKind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for BusKind {}

/// Why a text is not the address of a bus. No variant repeats text that may hold credentials.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The text has no known address prefix.
    #[error("expected {}", forms())]
    Malformed,
    /// No bus has this name.
    #[error("unknown kind `{kind}`: expected {}{}", names(), suggestion(.kind))]
    UnknownKind {
        /// The name.
        kind: String,
    },
    /// The kind exists, but this build was compiled without it.
    #[error("this build has no `{kind}` bus: build it with the feature `{kind}`, or use {}", names())]
    LeftOut {
        /// The name.
        kind: &'static str,
    },
    /// The place is not valid for this kind.
    #[error("{reason}")]
    Place {
        /// The reason, and what is expected.
        reason: String,
    },
}

/// The kind of a bus and its place.
#[derive(Clone, PartialEq, Eq)]
pub struct BusAddress {
    kind: &'static BusKind,
    place: String,
    properties: BTreeMap<String, String>,
}

impl BusAddress {
    /// The bus of this kind in this place.
    ///
    /// # Errors
    /// The place is not valid for this kind.
    pub fn new(kind: &'static BusKind, place: &str) -> Result<Self, AddressError> {
        let place = (kind.complete)(place).map_err(|reason| AddressError::Place { reason })?;
        Ok(Self { kind, place, properties: BTreeMap::new() })
    }

    /// Reads `kafka://HOST:PORT` (several brokers separated by commas) or `embedded:PATH`.
    ///
    /// # Errors
    /// The error states what is expected and does not repeat the text, which may hold credentials.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        // Anything but letters and digits is no kind, and may be a password: it is not repeated.
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let Some((name, _)) = text.split_once(':').filter(|(name, _)| is_name(name)) else {
            return Err(AddressError::Malformed);
        };
        let kind = BusKind::named(name)?;
        match text.strip_prefix(kind.scheme) {
            Some(place) if !place.is_empty() => Self::new(kind, place),
            _ => Err(AddressError::Place { reason: format!("expected {}", kind.form) }),
        }
    }

    /// Adds properties for the client library; they may hold secrets.
    #[must_use]
    pub fn with_properties(self, properties: BTreeMap<String, String>) -> Self {
        Self { properties, ..self }
    }

    /// The kind of bus.
    pub fn kind(&self) -> &'static BusKind {
        self.kind
    }

    /// Its place: brokers, or a file.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Properties of the client library; they may hold secrets.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    /// The file, for a bus that is one file.
    pub fn file(&self) -> Option<&Path> {
        self.kind.is_file.then(|| Path::new(&self.place))
    }

    /// Checks the properties without connecting.
    ///
    /// # Errors
    /// [`BusError::Settings`].
    pub fn check(&self) -> Result<(), BusError> {
        (self.kind.check)(self)
    }

    /// Opens the bus, and creates its file if it is one that does not exist. An unavailable bus is not an error here:
    /// the first use reports it.
    ///
    /// # Errors
    /// [`BusError::Settings`] when the settings cannot work, and the errors that the kind documents for opening a bus.
    pub fn open(&self) -> Result<Box<dyn Bus>, BusError> {
        (self.kind.open)(self, Missing::Create)
    }

    /// Opens the bus for a caller that only looks at it: creates no file.
    ///
    /// # Errors
    /// [`BusError::NoBus`] when the bus is a file that does not exist or is empty; otherwise as [`BusAddress::open`].
    pub fn open_existing(&self) -> Result<Box<dyn Bus>, BusError> {
        (self.kind.open)(self, Missing::Refuse)
    }
}

impl fmt::Debug for BusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets even where their names do not suggest it.
        let properties: Vec<&String> = self.properties.keys().collect();
        let mut all = f.debug_struct("BusAddress");
        all.field("kind", &self.kind.name).field("place", &self.place).field("properties", &properties).finish()
    }
}

fn forms() -> String {
    BUSES.iter().map(|kind| kind.form).collect::<Vec<_>>().join(" or ")
}

fn names() -> String {
    BUSES.iter().map(|kind| format!("`{}`", kind.name)).collect::<Vec<_>>().join(" or ")
}

/// The known name that was probably meant: at an edit distance of one or two.
fn suggestion(kind: &str) -> String {
    let kind = kind.to_lowercase();
    let near = BUSES.iter().map(|known| (distance(&kind, known.name), known.name)).min();
    near.filter(|(distance, _)| *distance <= 2)
        .map_or_else(String::new, |(_, name)| format!(", did you mean `{name}`?"))
}

/// The edit distance: how many characters must be inserted, removed or replaced.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, character) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for column in 1..row.len() {
            let replaced = diagonal + usize::from(to[column - 1] != character);
            diagonal = row[column];
            row[column] = replaced.min(row[column] + 1).min(row[column - 1] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        BusAddress::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_address_says_kind_and_place() {
        let cases = [
            ("kafka://127.0.0.1:9092", "kafka", "127.0.0.1:9092"),
            ("kafka://127.0.0.1", "kafka", "127.0.0.1:9092"),
            ("kafka://a:1, b,[::1]:7,[::2]/", "kafka", "a:1,b:9092,[::1]:7,[::2]:9092"),
            ("embedded:dir/bus.db", "embedded", "dir/bus.db"),
        ];
        for (text, kind, place) in cases {
            let address = BusAddress::parse(text).unwrap();
            assert_eq!((address.kind().name, address.place()), (kind, place), "{text}");
        }
        assert_eq!(BusAddress::parse("embedded:x").unwrap().file(), Some(Path::new("x")));
        assert_eq!(BusAddress::parse("kafka://x").unwrap().file(), None);
    }

    #[test]
    fn a_wrong_address_says_what_is_expected_and_repeats_no_credentials() {
        let forms = "expected kafka://HOST:PORT[,HOST:PORT] or embedded:PATH";
        for text in ["", "127.0.0.1", "/a/file", "127.0.0.1:9092", "hunter2@x:9092"] {
            assert_eq!(refusal(text), forms);
        }
        let unknown = "unknown kind `kafak`: expected `kafka` or `embedded`, did you mean `kafka`?";
        assert_eq!(refusal("kafak://me:hunter2@x"), unknown);
        assert_eq!(refusal("redis://x"), "unknown kind `redis`: expected `kafka` or `embedded`");
        for text in ["kafka:127.0.0.1", "kafka://", "kafka:///", "embedded:"] {
            assert!(refusal(text).starts_with("expected "), "{}", refusal(text));
        }
        for text in ["kafka://me:hunter2@x:9092", "kafka://x:hunter2", "kafka://x:0", "kafka://x:99999", "kafka://:1"] {
            let refusal = refusal(text);
            assert!(refusal.contains("host:port") && !refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn every_bus_of_the_build_is_known_and_named_by_its_scheme() {
        for kind in BUSES {
            assert!(KNOWN.contains(&(kind.name, kind.scheme)), "{kind:?}");
            assert!(kind.scheme.starts_with(&format!("{}:", kind.name)), "{kind:?}");
            assert!(kind.form.starts_with(kind.scheme), "{kind:?}");
        }
    }

    #[test]
    fn an_address_shows_no_property() {
        let properties = BTreeMap::from([("sasl.password".to_owned(), "hunter2".to_owned())]);
        let address = BusAddress::parse("kafka://x").unwrap().with_properties(properties);
        let shown = format!("{address:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
