//! What tests of sinks and workers use: a backend in memory that fails on command, and the sink that writes to it.

mod backend;
mod fake;

pub use backend::{FakeBackend, Step, Write};
pub use fake::FakeSink;
