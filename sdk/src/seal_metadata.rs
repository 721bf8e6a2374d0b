use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Shape;

/// The maximum number of sealed batches of a partition: enough for a worker at full speed to have batches to write
/// while two commits in a row are in flight, on a busy machine.
pub const SEAL_AHEAD: usize = 16;

/// The usual limit of a commit's metadata, in bytes: Kafka's default. A worker queries its bus for the actual limit.
pub const USUAL_METADATA_BYTES: usize = 4_096;

/// The commit metadata beside the settled offset: where the sealed batches after it end, and the shape that they were
/// sealed under. A new owner reads it and writes exactly the same batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealMetadata {
    v: u32,
    /// Ends of the sealed batches, in order; the first batch begins at the committed offset, each further one at the
    /// end of the one before.
    pub ends: Vec<u64>,
    /// The complete shape, so that a worker with newer settings can still finish the batches under the old ones.
    pub shape: Option<Shape>,
}

/// Why commit metadata is not a valid seal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealMetadataError {
    /// Another program commits to this group.
    #[error("the group's commit metadata is not from tallybus: does another program use this group? ({0})")]
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
    /// Seals batches that end at `ends`.
    pub fn new(ends: Vec<u64>, shape: &Shape) -> Self {
        let shape = (!ends.is_empty()).then(|| shape.clone());
        Self { v: 1, ends, shape }
    }

    /// Parses the metadata that was committed with `offset`. Empty metadata (an operator's reset, for example) seals
    /// nothing.
    ///
    /// # Errors
    /// Metadata of another program, of a newer version, or with ends that are not in order.
    pub fn parse(offset: u64, metadata: &str) -> Result<Self, SealMetadataError> {
        if metadata.is_empty() {
            return Ok(Self { v: 1, ends: Vec::new(), shape: None });
        }
        let version: Version =
            serde_json::from_str(metadata).map_err(|error| SealMetadataError::Foreign(error.to_string()))?;
        if version.v > 1 {
            return Err(SealMetadataError::Newer(version.v));
        }
        let mut note: Self =
            serde_json::from_str(metadata).map_err(|error| SealMetadataError::Foreign(error.to_string()))?;
        if note.ends.is_empty() {
            note.shape = None;
        }
        let mut before = offset;
        for &end in &note.ends {
            if end <= before {
                return Err(SealMetadataError::Order { offset, ends: note.ends });
            }
            before = end;
        }
        Ok(note)
    }

    /// The text to commit.
    ///
    /// # Errors
    /// It cannot be written as JSON. Nothing may be committed then: without metadata, the commit would seal nothing.
    pub fn to_metadata(&self) -> Result<String, SealMetadataError> {
        serde_json::to_string(self).map_err(|error| SealMetadataError::Unwritable(error.to_string()))
    }

    /// One past the last sealed offset; `None` when nothing is sealed.
    pub fn sealed_end(&self) -> Option<u64> {
        self.ends.last().copied()
    }

    /// Whether a shape leaves enough space in the metadata for the ends of the batches.
    /// `limit` is the most that the bus accepts, in bytes.
    pub fn fits(shape: &Shape, limit: usize) -> bool {
        let widest = Self::new(vec![u64::MAX; SEAL_AHEAD], shape);
        widest.to_metadata().is_ok_and(|metadata| metadata.len() <= limit)
    }
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        let note = SealMetadata::new(vec![20, 35], &Shape::everything());
        assert_eq!(SealMetadata::parse(10, &note.to_metadata().unwrap()), Ok(note));
    }

    #[test]
    fn settling_alone_names_no_shape() {
        let note = SealMetadata::new(Vec::new(), &Shape::everything());
        assert_eq!(note.to_metadata().unwrap(), r#"{"v":1,"ends":[],"shape":null}"#);
        assert_eq!(note.sealed_end(), None);
    }

    #[test]
    fn empty_metadata_seals_nothing() {
        assert_eq!(SealMetadata::parse(7, "").map(|note| note.ends), Ok(Vec::new()));
    }

    #[test]
    fn refuses_what_it_cannot_finish() {
        assert!(matches!(SealMetadata::parse(0, "hello"), Err(SealMetadataError::Foreign(_))));
        assert!(matches!(SealMetadata::parse(0, r#"{"v":2,"batches":{}}"#), Err(SealMetadataError::Newer(2))));
        let note = SealMetadata::new(vec![20, 15], &Shape::everything()).to_metadata().unwrap();
        assert!(matches!(SealMetadata::parse(10, &note), Err(SealMetadataError::Order { .. })));
        let note = SealMetadata::new(vec![10], &Shape::everything()).to_metadata().unwrap();
        assert!(matches!(SealMetadata::parse(10, &note), Err(SealMetadataError::Order { .. })));
    }

    #[test]
    fn a_shape_that_fills_the_metadata_does_not_fit() {
        let mut shape = Shape::everything();
        assert!(SealMetadata::fits(&shape, USUAL_METADATA_BYTES));
        shape.names = (0..400).map(|number| format!("a.rather.long.counter.name.{number}")).collect();
        assert!(!SealMetadata::fits(&shape, USUAL_METADATA_BYTES));
    }
}
