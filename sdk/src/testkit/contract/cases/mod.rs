//! The cases of the contract. A case never looks at what kind of sink it runs against: what differs is in the [`Backend`].
//!
//! [`Backend`]: super::Backend

pub mod content;
pub mod failure;
pub mod ledger;
pub mod repetition;
