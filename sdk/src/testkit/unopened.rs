use crate::{DeliveryGuarantee, Kind, SinkError};

/// A kind of sink named `unopened`, for tests that read settings and open no sink: creating its sink is an error.
pub const UNOPENED: Kind = Kind {
    name: "unopened",
    summary: "for tests",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "",
    settings: &[],
    parse: |_| Some(Box::new(|_| Err(SinkError::Halt("a sink of the kind `unopened` cannot be opened".to_owned())))),
    questions: &[],
    storage: None,
    shadow: None,
};
