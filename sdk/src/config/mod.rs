//! One table of the settings file, as a backend reads its own: typed values, secrets, and every problem at once.

mod config_table;
mod secret;
mod values;

#[cfg(any(test, feature = "testkit"))]
pub use config_table::read_for_test;
pub use config_table::{ConfigTable, Problem, key_path, list, nearest};
pub use secret::Secret;
pub use url::Url;
pub use values::{parse_bytes, parse_duration};
