//! The cases of the contract. A case does not depend on the kind of sink it runs against: differences are in the
//! [`Backend`].
//!
//! [`Backend`]: super::Backend

pub mod claims;
pub mod content;
pub mod failure;
pub mod ledger;
pub mod questions;
pub mod repetition;
pub mod shadow;
