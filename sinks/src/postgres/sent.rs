//! Counts what is sent: round trips, and the bytes of statements and parameters as PostgreSQL's protocol encodes them. Its
//! framing (some ten bytes for each message), logging in and TLS are not counted.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use super::client::Param;

/// What was sent since the sink was created.
#[derive(Debug, Default)]
pub(super) struct Sent {
    round_trips: AtomicU64,
    bytes: AtomicU64,
}

impl Sent {
    /// Round trips and bytes.
    pub(super) fn figures(&self) -> (u64, u64) {
        (self.round_trips.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// A round trip with these statements begins.
    pub(super) fn begin(&self, statements: &str) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.add(statements.len());
    }

    /// The same, with parameters, which count once they are encoded.
    pub(super) fn begin_with<'p>(&'p self, statement: &str, params: &[Param<'p>]) -> Vec<Counted<'p>> {
        self.begin(statement);
        params.iter().map(|(value, _)| Counted { value: *value, sent: self }).collect()
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or_default(), Ordering::Relaxed);
    }
}

/// Counted parameters with the types of the plain ones.
pub(super) fn typed<'c>(counted: &'c [Counted<'_>], params: &[Param<'_>]) -> Vec<Param<'c>> {
    counted.iter().zip(params).map(|(value, (_, kind))| (value as _, kind.clone())).collect()
}

/// A parameter whose bytes count when it is encoded.
#[derive(Debug)]
pub(super) struct Counted<'p> {
    value: &'p (dyn ToSql + Sync),
    sent: &'p Sent,
}

impl ToSql for Counted<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql_checked(kind, out)
    }

    /// What the value itself accepts is checked when it is encoded.
    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let before = out.len();
        let is_null = self.value.to_sql_checked(kind, out)?;
        self.sent.add(out.len().saturating_sub(before));
        Ok(is_null)
    }

    fn encode_format(&self, kind: &Type) -> Format {
        self.value.encode_format(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_counts_its_statement_and_the_bytes_that_its_parameters_are_encoded_as() {
        let sent = Sent::default();
        sent.begin("BEGIN");
        assert_eq!(sent.figures(), (1, 5));
        let (number, text, none) = (7_i64, "abc", None::<i64>);
        let params: [Param<'_>; 3] = [(&number, Type::INT8), (&text, Type::TEXT), (&none, Type::INT8)];
        let counted = sent.begin_with("SELECT 1", &params);
        let mut out = BytesMut::new();
        for (value, kind) in typed(&counted, &params) {
            value.to_sql_checked(&kind, &mut out).unwrap();
        }
        assert_eq!((sent.figures(), out.len()), ((2, 5 + 8 + 11), 11));
    }

    #[test]
    fn a_parameter_that_its_type_does_not_accept_is_refused_as_before() {
        let sent = Sent::default();
        let number = 7_i64;
        let params: [Param<'_>; 1] = [(&number, Type::TEXT)];
        let counted = sent.begin_with("", &params);
        assert!(counted[0].to_sql_checked(&Type::TEXT, &mut BytesMut::new()).is_err());
    }
}
