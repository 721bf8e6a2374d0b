//! Shadow destinations: removed by their names alone.

use std::fmt::Display;

use tallybus_sdk::SinkError;

/// The refusal to remove a destination that `tallybus compare` did not create.
pub(crate) fn not_shadow(destination: impl Display) -> SinkError {
    SinkError::Halt(format!(
        "{destination} was not created by `tallybus compare`, whose destinations are named tallybus_compare_ and eight \
         characters: it was not removed"
    ))
}
