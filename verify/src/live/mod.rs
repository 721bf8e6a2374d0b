//! The stream at one moment: how far each sink is, and why it is no further. It joins no group, moves no offset, and asks the bus
//! a few questions, however many sinks and partitions there are.
//!
//! [`Look`] is what the bus answered, [`History`] the looks of the last seconds, from which it derives a [`Picture`]. A figure
//! that is not known is `None` there, and never 0.

mod forgotten;
mod history;
mod look;
mod picture;
mod report;
#[cfg(test)]
mod tests;
mod why;

pub use self::forgotten::Forgotten;
pub use self::history::History;
pub use self::look::{Look, Noted, Watched, WatchedSink};
pub use self::picture::{
    CatchUp, FailedLook, PICTURE_VERSION, PartitionPicture, Picture, SinkPicture, SinkState, Tick, TopicPicture,
    TopicRole,
};
pub use self::report::{PartitionReport, WorkerReport};
