//! One table of the settings file, as a backend reads its own: typed values, secrets, and every problem at once.

mod secret;
mod section;
mod values;

pub use secret::Secret;
#[cfg(any(test, feature = "testkit"))]
pub use section::read_for_test;
pub use section::{ConfigTable, Problem, list, nearest};
pub use url::Url;
pub use values::{parse_bytes, parse_duration};
