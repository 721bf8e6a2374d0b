use serde::{Deserialize, Serialize};
use tallybus_bus::StreamId;
use thiserror::Error;

use crate::Shape;

/// The maximum number of sealed batches of a partition: enough for a worker at full speed to have batches to write
/// while two commits in a row are in flight, on a busy machine.
pub const SEAL_AHEAD: usize = 16;

/// The usual limit of a commit's metadata, in bytes: Kafka's default. A worker queries its bus for the actual limit.
pub const USUAL_METADATA_BYTES: usize = 4_096;

/// The commit metadata beside the settled offset: the incarnation of the topic that the offsets belong to, where the sealed
/// batches after it end, and the shape that they were sealed under. A new owner reads it and writes exactly the same
/// batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealMetadata {
    /// The incarnation of the topic; `None` when a version without stream ids committed.
    pub stream: Option<StreamId>,
    /// Ends of the sealed batches, in order; the first batch begins at the committed offset, each further one at the
    /// end of the one before.
    pub ends: Vec<u64>,
    /// The complete shape, so that a worker with newer settings can still finish the batches under the old ones.
    pub shape: Option<Shape>,
    /// What the destination holds at least; `None` when nothing was written to it yet, or an operator set the offset.
    pub written: Option<Written>,
}

/// Up to where a group has written a partition to a destination. A destination that holds less has lost it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The destination ([`Written::destination_id`]).
    pub to: String,
    /// One past the last offset of the last batch that was written. Batches after it had nothing to write.
    pub end: u64,
    /// The last mark that the destination holds ([`Claims::mark`](crate::Claims::mark)); `None` where none was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marked: Option<u64>,
}

impl Written {
    /// A short name of a destination ([`Sink::destination`](crate::Sink::destination)), for commit metadata.
    pub fn destination_id(destination: &str) -> String {
        // FNV-1a, 64 bits: the same in every version.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in destination.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("{hash:016x}")
    }
}

/// The version that is written: versions before stream ids refuse it, because they would write a sealed batch under
/// another name.
const VERSION: u32 = 2;

/// The text's form. Version 1 has no `stream`.
#[derive(Serialize, Deserialize)]
struct Form {
    v: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    ends: Vec<u64>,
    shape: Option<Shape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Written>,
}

/// Why commit metadata is not a valid seal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealMetadataError {
    /// Another program has set the group's offset: every commit of a worker has metadata.
    #[error(
        "another program has set the group's offset to {offset} (the commit has no tallybus metadata); nothing was \
         written from there, and the records are safe on the bus. Stop the sink's workers and run `tallybus group reset`: \
         it says how far the destination was written, and what each offset means for the counts, before it changes anything"
    )]
    Missing {
        /// As committed.
        offset: u64,
    },
    /// Another program commits to this group.
    #[error(
        "the group's commit metadata is not from tallybus: does another program use this group? ({0}) Nothing was written \
         from there, and the records are safe on the bus. Stop that program and the sink's workers, and run `tallybus group \
         reset`: it says what each offset means for the counts before it changes anything"
    )]
    Foreign(String),
    /// The metadata cannot be written.
    #[error("the commit metadata cannot be written, so that nothing was sealed: {0}")]
    Unwritable(String),
    /// A newer Tallybus sealed it.
    #[error(
        "the batch was sealed by a newer tallybus (metadata version {0}): run that version until it has settled \
         the batch"
    )]
    Newer(u32),
    /// The sealed ends are not in order.
    #[error("the sealed ends {ends:?} do not follow offset {offset}")]
    Order {
        /// As committed.
        offset: u64,
        /// As committed.
        ends: Vec<u64>,
    },
}

impl SealMetadata {
    /// Seals batches of this stream that end at `ends`.
    pub fn new(stream: StreamId, ends: Vec<u64>, shape: &Shape) -> Self {
        let shape = (!ends.is_empty()).then(|| shape.clone());
        Self { stream: Some(stream), ends, shape, written: None }
    }

    /// The same, with what the destination holds at least.
    #[must_use]
    pub fn with_written(self, written: Option<Written>) -> Self {
        Self { written, ..self }
    }

    /// Parses the metadata that was committed with `offset`.
    ///
    /// # Errors
    /// No metadata at all: another program has set the offset. Metadata of another program, of a newer version, or with
    /// ends that are not in order.
    pub fn parse(offset: u64, metadata: &str) -> Result<Self, SealMetadataError> {
        if metadata.is_empty() {
            return Err(SealMetadataError::Missing { offset });
        }
        let foreign = |error: &dyn std::fmt::Display| SealMetadataError::Foreign(error.to_string());
        let version: Version = serde_json::from_str(metadata).map_err(|error| foreign(&error))?;
        if version.v > VERSION {
            return Err(SealMetadataError::Newer(version.v));
        }
        let form: Form = serde_json::from_str(metadata).map_err(|error| foreign(&error))?;
        let stream = match form.stream {
            Some(stream) => Some(stream.parse::<StreamId>().map_err(|error| foreign(&error))?),
            None if form.v == 1 => None,
            None => return Err(foreign(&"version 2 without a stream id")),
        };
        let shape = form.shape.filter(|_| !form.ends.is_empty());
        let mut before = offset;
        for &end in &form.ends {
            if end <= before {
                return Err(SealMetadataError::Order { offset, ends: form.ends });
            }
            before = end;
        }
        Ok(Self { stream, ends: form.ends, shape, written: form.written })
    }

    /// The text to commit.
    ///
    /// # Errors
    /// It cannot be written as JSON. Nothing may be committed then: without metadata, the commit would seal nothing.
    pub fn to_metadata(&self) -> Result<String, SealMetadataError> {
        let form = Form {
            v: if self.stream.is_some() { VERSION } else { 1 },
            stream: self.stream.as_ref().map(ToString::to_string),
            ends: self.ends.clone(),
            shape: self.shape.clone(),
            written: self.written.clone(),
        };
        serde_json::to_string(&form).map_err(|error| SealMetadataError::Unwritable(error.to_string()))
    }

    /// One past the last sealed offset; `None` when nothing is sealed.
    pub fn sealed_end(&self) -> Option<u64> {
        self.ends.last().copied()
    }

    /// Whether a shape leaves enough space in the metadata for the ends of the batches, the longest stream id and what was
    /// written.
    /// `limit` is the most that the bus accepts, in bytes.
    pub fn fits(shape: &Shape, limit: usize) -> bool {
        let written = Written { to: Written::destination_id(""), end: u64::MAX, marked: Some(u64::MAX) };
        let ends = vec![u64::MAX; SEAL_AHEAD];
        let widest = Self { stream: None, ends, shape: Some(shape.clone()), written: Some(written) };
        let stream = r#","stream":"""#.len() + StreamId::MAX_LENGTH;
        widest.to_metadata().is_ok_and(|metadata| metadata.len() + stream <= limit)
    }
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> StreamId {
        "kafka:cluster:topic".parse().unwrap()
    }

    fn seal(ends: &[u64]) -> SealMetadata {
        SealMetadata::new(stream(), ends.to_vec(), &Shape::everything())
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let note = seal(&[20, 35]);
        assert_eq!(SealMetadata::parse(10, &note.to_metadata().unwrap()), Ok(note));
    }

    #[test]
    fn settling_alone_names_no_shape() {
        let note = seal(&[]);
        assert_eq!(note.to_metadata().unwrap(), r#"{"v":2,"stream":"kafka:cluster:topic","ends":[],"shape":null}"#);
        assert_eq!(note.sealed_end(), None);
    }

    #[test]
    fn metadata_of_a_version_without_stream_ids_is_read_and_written_back_unchanged() {
        let old = r#"{"v":1,"ends":[20,35],"shape":{"window":1000000000}}"#;
        let note = SealMetadata::parse(10, old).unwrap();
        assert_eq!(note, SealMetadata { stream: None, ..seal(&[20, 35]) });
        assert_eq!(note.to_metadata().unwrap(), old);
    }

    #[test]
    fn an_offset_without_metadata_was_set_by_another_program() {
        assert_eq!(SealMetadata::parse(7, ""), Err(SealMetadataError::Missing { offset: 7 }));
    }

    #[test]
    fn refuses_what_it_cannot_finish() {
        assert!(matches!(SealMetadata::parse(0, "hello"), Err(SealMetadataError::Foreign(_))));
        let anonymous = r#"{"v":2,"ends":[],"shape":null}"#;
        assert!(matches!(SealMetadata::parse(0, anonymous), Err(SealMetadataError::Foreign(_))));
        let no_id = r#"{"v":2,"stream":"?","ends":[],"shape":null}"#;
        assert!(matches!(SealMetadata::parse(0, no_id), Err(SealMetadataError::Foreign(_))));
        assert!(matches!(SealMetadata::parse(0, r#"{"v":3,"batches":{}}"#), Err(SealMetadataError::Newer(3))));
        for ends in [vec![20, 15], vec![10]] {
            let note = seal(&ends).to_metadata().unwrap();
            assert!(matches!(SealMetadata::parse(10, &note), Err(SealMetadataError::Order { .. })));
        }
    }

    #[test]
    fn a_destination_has_the_same_id_in_every_version() {
        // Published values of FNV-1a.
        for (name, id) in [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")] {
            assert_eq!(Written::destination_id(name), id);
        }
    }

    #[test]
    fn a_shape_that_fills_the_metadata_does_not_fit() {
        let mut shape = Shape::everything();
        assert!(SealMetadata::fits(&shape, USUAL_METADATA_BYTES));
        shape.names = (0..400).map(|number| format!("a.rather.long.counter.name.{number}")).collect();
        assert!(!SealMetadata::fits(&shape, USUAL_METADATA_BYTES));
        // Whatever fits has space for the longest stream id, and for what was written.
        let longest: StreamId = format!("kafka:{}", "x".repeat(StreamId::MAX_LENGTH - 6)).parse().unwrap();
        let written = Written { to: Written::destination_id("x"), end: u64::MAX, marked: Some(u64::MAX) };
        let widest = SealMetadata::new(longest, vec![u64::MAX; SEAL_AHEAD], &Shape::everything());
        let widest = widest.with_written(Some(written));
        let length = widest.to_metadata().unwrap().len();
        assert!(
            SealMetadata::fits(&Shape::everything(), length) && !SealMetadata::fits(&Shape::everything(), length - 1)
        );
    }
}
