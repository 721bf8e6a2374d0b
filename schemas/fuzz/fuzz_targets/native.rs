//! `cargo +nightly fuzz run native corpus/native ../golden/native`, in `schemas/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| tallybus_schemas_fuzz::native(message));
