use std::any::{Any, type_name};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::{Fault, Rejection};

/// A batch in the backend's encoding: encoded once, and shared by every attempt to write it.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Encoded {
    /// The data that the sink sends.
    pub payload: Payload,
    /// Approximate memory use of the payload in bytes. The runtime limits the sum over all batches that are encoded and
    /// not yet written.
    pub memory: usize,
    /// Points that the backend's format cannot express; they are not in the payload. The runtime adds them to the
    /// write's outcome.
    pub rejected: Vec<Rejection>,
}

/// The encoded form of a batch.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Payload {
    /// Nothing to send.
    #[default]
    Nothing,
    /// The body of one request.
    Bytes(Bytes),
    /// Several bodies, or the parts of one.
    Many(Vec<Bytes>),
    /// A value of the sink's own type, such as rows by column.
    Value(Arc<dyn Value>),
}

/// A value that a sink creates in [`Sink::encode`](crate::Sink::encode) and uses in
/// [`Sink::write`](crate::Sink::write). Attempts can share it, and tests can print and compare it.
pub trait Value: Any + Send + Sync + fmt::Debug {
    /// Whether `other` is an equal value of the same type.
    fn is_same(&self, other: &dyn Value) -> bool;

    /// The name of its type.
    fn name(&self) -> &'static str;

    /// The value for downcasting.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Any + Send + Sync + fmt::Debug + PartialEq> Value for T {
    fn is_same(&self, other: &dyn Value) -> bool {
        let other: &dyn Any = other;
        other.downcast_ref() == Some(self)
    }

    fn name(&self) -> &'static str {
        type_name::<T>()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// A sink read its payload as another kind than it had created.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the batch was encoded as {found}, but the sink writes {expected}; nothing was written; report this as a defect \
     of the sink"
)]
pub struct WrongPayload {
    expected: &'static str,
    found: &'static str,
}

impl From<WrongPayload> for Fault {
    fn from(error: WrongPayload) -> Self {
        Self::operator(error.to_string())
    }
}

impl Encoded {
    /// Nothing to send: every point is rejected, or there are no points.
    pub fn nothing(rejected: Vec<Rejection>) -> Self {
        Self { payload: Payload::Nothing, memory: 0, rejected }
    }

    /// One body; nothing when it is empty.
    pub fn bytes(body: impl Into<Bytes>, rejected: Vec<Rejection>) -> Self {
        let body = body.into();
        if body.is_empty() {
            return Self::nothing(rejected);
        }
        Self { memory: body.len(), payload: Payload::Bytes(body), rejected }
    }

    /// Several bodies; nothing when the list is empty.
    pub fn many(bodies: Vec<Bytes>, rejected: Vec<Rejection>) -> Self {
        if bodies.is_empty() {
            return Self::nothing(rejected);
        }
        Self { memory: bodies.iter().map(Bytes::len).sum(), payload: Payload::Many(bodies), rejected }
    }

    /// A value of the sink's own type that uses about this many bytes of memory.
    pub fn value<T: Value>(value: T, memory: usize, rejected: Vec<Rejection>) -> Self {
        Self { payload: Payload::Value(Arc::new(value)), memory, rejected }
    }

    /// The one body.
    ///
    /// # Errors
    /// The payload is of another kind.
    pub fn as_bytes(&self) -> Result<&Bytes, WrongPayload> {
        self.payload.as_bytes()
    }

    /// The bodies.
    ///
    /// # Errors
    /// The payload is of another kind.
    pub fn as_many(&self) -> Result<&[Bytes], WrongPayload> {
        self.payload.as_many()
    }

    /// The sink's own value.
    ///
    /// # Errors
    /// The payload is of another kind, or the value of another type.
    pub fn as_value<T: Value>(&self) -> Result<Arc<T>, WrongPayload> {
        self.payload.as_value()
    }

    /// Whether there is nothing to send.
    pub fn is_nothing(&self) -> bool {
        matches!(self.payload, Payload::Nothing)
    }

    /// Indexes of the points, out of this many, that are not rejected already.
    pub fn sent(&self, points: usize) -> impl Iterator<Item = usize> + use<> {
        let rejected: HashSet<usize> = self.rejected.iter().map(|rejection| rejection.point).collect();
        (0..points).filter(move |point| !rejected.contains(point))
    }
}

impl Payload {
    fn as_bytes(&self) -> Result<&Bytes, WrongPayload> {
        match self {
            Self::Bytes(body) => Ok(body),
            other => Err(other.is_not("one body")),
        }
    }

    fn as_many(&self) -> Result<&[Bytes], WrongPayload> {
        match self {
            Self::Many(bodies) => Ok(bodies),
            other => Err(other.is_not("several bodies")),
        }
    }

    fn as_value<T: Value>(&self) -> Result<Arc<T>, WrongPayload> {
        let wrong = || self.is_not(type_name::<T>());
        match self {
            Self::Value(value) => Arc::clone(value).into_any().downcast().map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    fn is_not(&self, expected: &'static str) -> WrongPayload {
        let found = match self {
            Self::Nothing => "nothing",
            Self::Bytes(_) => "one body",
            Self::Many(_) => "several bodies",
            Self::Value(value) => (**value).name(),
        };
        WrongPayload { expected, found }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, Self::Nothing) => true,
            (Self::Bytes(one), Self::Bytes(two)) => one == two,
            (Self::Many(one), Self::Many(two)) => one == two,
            (Self::Value(one), Self::Value(two)) => one.is_same(&**two),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Rows(Vec<u32>);

    #[test]
    fn a_payload_comes_back_as_what_it_was_made() {
        let body = Bytes::from_static(b"abc");
        let one = Encoded::bytes(body.clone(), Vec::new());
        assert_eq!((one.memory, one.payload.as_bytes()), (3, Ok(&body)));
        let many = Encoded::many(vec![body.clone(), body.clone()], Vec::new());
        assert_eq!((many.memory, many.payload.as_many()), (6, Ok([body.clone(), body].as_slice())));
        let own = Encoded::value(Rows(vec![1, 2]), 8, Vec::new());
        assert_eq!((own.memory, own.payload.as_value::<Rows>()), (8, Ok(Arc::new(Rows(vec![1, 2])))));
        for empty in [Encoded::bytes(Bytes::new(), Vec::new()), Encoded::many(Vec::new(), Vec::new())] {
            assert_eq!(empty, Encoded::default());
            assert!(empty.is_nothing());
        }
    }

    #[test]
    fn a_payload_taken_for_another_kind_says_what_it_is() {
        let own = Encoded::value(Rows(Vec::new()), 0, Vec::new());
        let error = own.payload.as_bytes().unwrap_err();
        assert!(error.to_string().contains("Rows, but the sink writes one body"), "{error}");
        assert!(own.payload.as_value::<u32>().unwrap_err().to_string().contains("the sink writes u32"));
        let fault = Fault::from(Encoded::default().payload.as_many().unwrap_err());
        assert!(fault.reason().starts_with("the batch was encoded as nothing"), "{fault}");
        assert!(matches!(fault, Fault::Operator { .. }));
    }

    #[test]
    fn payloads_are_equal_when_their_values_are() {
        let own = |rows: &[u32]| Encoded::value(Rows(rows.to_vec()), 0, Vec::new());
        assert_eq!(own(&[1]), own(&[1]));
        assert_ne!(own(&[1]), own(&[2]));
        assert_ne!(own(&[]), Encoded::value(0_u32, 0, Vec::new()));
        assert_ne!(own(&[]), Encoded::default());
    }

    #[test]
    fn what_is_sent_is_all_but_the_rejected_points() {
        let rejected = vec![Rejection { point: 1, reason: String::new() }];
        assert_eq!(Encoded::nothing(rejected).sent(4).collect::<Vec<_>>(), [0, 2, 3]);
    }
}
