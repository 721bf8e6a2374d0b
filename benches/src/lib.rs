//! What the benchmark programs share.
//!
//! Each program prints a table for operators and writes what it measured as JSON into `benches/results/`, where the tables of
//! the README and of `docs/performance.md` come from. None of them asserts a time; they do fail when a single count is
//! missing or doubled.

pub mod counting;
pub mod drain;
pub mod http;
pub mod live;
pub mod machine;
pub mod process;
pub mod report;
pub mod results;
pub mod table;
pub mod topic;
pub mod workload;
