//! The worker runtime: from a consumer group's partitions to settled batches.
//!
//! The guarantee: every record of a partition is, in offset order, part of exactly one *sealed* batch; a sealed batch
//! is written until the sink confirms that it is stored (or reports which points it will never store, which are then
//! published to the dead-letter topic); and only then does the group's offset pass it.
//!
//! Before the first seal of a partition, the destination's ledger is compared with the group's offsets once for each
//! ownership: see [`tallybus_sdk::Sink::ledger_end`]. A ledger that is ahead halts the partition with nothing sealed,
//! so that the partition halts again after a restart or a rebalance.
//!
//! Each worker has one thread that polls, seals and settles; only this thread uses the consumer group. Each partition
//! it owns is a *partition task*: a state machine without I/O. Encoding and writing run beside it as two Tokio tasks,
//! so that the next batch is encoded while one is written, and partitions do not wait for each other.
//!
//! ```text
//! records ─▶ open batch ─▶ closed ─▶ [seal: commit offset + ends] ─▶ sealed ─▶ encode ─▶ write ─▶ settled
//!                                     one commit seals closed batches and settles written ones
//! ```

mod backoff;
mod body_budget;
mod builder;
mod claims;
mod clock;
pub mod control;
pub mod counters;
mod dead_letter;
mod descriptors;
mod destination_check;
mod duty;
mod failure_log;
mod future;
mod holdings;
pub mod live;
pub mod metrics;
mod notes;
mod partition_task;
mod partition_tasks;
mod pulse;
mod readiness;
mod record_ages;
mod records;
mod retry_now;
mod scale;
pub mod settings;
#[cfg(feature = "simulation")]
pub mod simulation;
mod status;
mod stop_signals;
pub mod supervisor;
mod topics;
mod worker;
mod writer;

pub use clock::SystemClock;
pub use destination_check::{DestinationError, disagreements};
pub use duty::{Duty, Rest, RestProgress, SettledPartition, Wanted};
pub use holdings::{Holding, Holdings, holdings};
pub use notes::{Note, read_notes};
pub use scale::{Hold, ScaleHint};
pub use status::{BackendFailure, BatchesInMemory, HaltCause, PartitionState, PartitionStatus, WorkerStatus};
pub use stop_signals::{StopSignal, StopSignals};
pub use topics::{OnRefusal, compacted_topic, prepare_topics};
pub use worker::{Outcome, Worker, WorkerError, WorkerHandle, WorkerOptions};
