use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch by this host's clock. A clock before it takes no command: everything is issued too far ahead.
pub(crate) fn millis_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

/// A name of 32 hexadecimal digits that no other call of any process returns.
pub(crate) fn random_id() -> String {
    // Each holds keys of the system's random numbers.
    let half = || RandomState::new().hash_one((std::process::id(), SystemTime::now()));
    format!("{:016x}{:016x}", half(), half())
}
