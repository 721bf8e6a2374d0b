//! `cargo +nightly fuzz run json corpus/json ../golden/json`, in `schemas/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| tallybus_schemas_fuzz::json(message));
