//! Tools for tests of sinks and workers: the [`contract`](mod@contract) that every sink keeps, and an in-memory backend
//! that fails on command, with the sink that writes to it.

mod backend;
#[allow(
    missing_docs,
    async_fn_in_trait,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test stops at the first surprise; small numbers made up by the tests"
)]
pub mod contract;
mod fake;
mod unopened;

pub use backend::{Backup, FakeBackend, Step, Write};
pub use fake::FakeSink;
pub use unopened::UNOPENED;

/// Generates a test for every case of the [`contract`](mod@contract): `contract!(server)`, with an expression of type
/// `Option<&impl Server>`.
pub use crate::__sink_contract as contract;
