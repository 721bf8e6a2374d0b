use std::sync::Arc;

use tallybus_sdk::Batch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The total memory that the bodies of all requests that are ready or in flight may use, in KiB: enough for half a
/// dozen large ones, so that a worker with many partitions stays small.
const ALL_BODIES: u32 = 12 << 10;

/// Typical size of a line beside the texts of its series: separators, a value, a time.
const BESIDE_TEXT: usize = 48;

/// Bounds the memory of the encoded batches of all partitions of a worker.
///
/// A partition whose backend does not accept its batch keeps its share in the meantime. That is at most two bodies, so
/// only a failure of many partitions at once (of the backend as a whole) blocks the other partitions.
#[derive(Clone)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

/// Returned when dropped.
pub(crate) struct BodyShare(Option<OwnedSemaphorePermit>);

impl BodyBudget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ALL_BODIES as usize)))
    }

    /// Waits until there is capacity for the largest body that the batch can be expected to need.
    pub(crate) async fn share_for(&self, batch: &Batch) -> BodyShare {
        let text = batch.series.mean_len() + BESIDE_TEXT;
        let wanted = kibibytes(batch.points.len().saturating_mul(text));
        // The semaphore is never closed; if it were, a body without a share would merely not be counted.
        BodyShare(Arc::clone(&self.0).acquire_many_owned(wanted).await.ok())
    }
}

impl BodyShare {
    /// Returns the part of the share that the body did not need.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let Some(permit) = &mut self.0 else { return };
        let surplus = permit.num_permits().saturating_sub(kibibytes(bytes) as usize);
        drop(permit.split(surplus));
    }
}

/// A body larger than the whole budget waits until no other body is in memory.
fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).clamp(1, ALL_BODIES)
}
