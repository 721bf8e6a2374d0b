//! What several backends need.

pub(crate) mod calendar;
pub(crate) mod fingerprint;
pub(crate) mod http;
pub(crate) mod in_doubt;
pub(crate) mod json_tags;
