//! One table of the settings file, as a backend reads its own: typed values, secrets, and every problem at once.

mod config_table;
mod key_path;
mod secret;
mod values;

#[cfg(any(test, feature = "testkit"))]
pub use config_table::read_for_test;
pub use config_table::{ConfigTable, Problem, list, nearest};
pub use key_path::key_path;
pub use secret::Secret;
pub use url::Url;
pub use values::{parse_bytes, parse_duration};
