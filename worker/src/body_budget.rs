use std::sync::Arc;

use tallybus_sdk::Batch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the bodies of all requests that are ready or under way may take up together, in KiB: enough for half a dozen large ones,
/// so that many partitions do not make a worker large.
const ALL_BODIES: u32 = 12 << 10;

/// What a line has beside the texts of its series, mostly: marks, a value, a time.
const BESIDE_TEXT: usize = 48;

/// Bounds what encoded batches take up, over all partitions of a worker.
///
/// A partition whose backend does not take its batch keeps its share meanwhile. That is two bodies at most, so only a failure of
/// many partitions at once holds up the others: a failure of the backend as a whole.
#[derive(Clone)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

/// Goes back when dropped.
pub(crate) struct BodyShare(Option<OwnedSemaphorePermit>);

impl BodyBudget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ALL_BODIES as usize)))
    }

    /// Waits until there is capacity for the batch's body, as large as it can be expected to be.
    pub(crate) async fn share_for(&self, batch: &Batch) -> BodyShare {
        let text = batch.series.mean_len() + BESIDE_TEXT;
        let wanted = kibibytes(batch.points.len().saturating_mul(text));
        // The semaphore is never closed; a body without a share would only not be counted.
        BodyShare(Arc::clone(&self.0).acquire_many_owned(wanted).await.ok())
    }
}

impl BodyShare {
    /// Gives back what the body did not need.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let Some(permit) = &mut self.0 else { return };
        let surplus = permit.num_permits().saturating_sub(kibibytes(bytes) as usize);
        drop(permit.split(surplus));
    }
}

/// A body that is larger than all may be together waits until it is alone.
fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).clamp(1, ALL_BODIES)
}
