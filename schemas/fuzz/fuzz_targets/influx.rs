//! `cargo +nightly fuzz run influx corpus/influx ../golden/influx`, in `schemas/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| tallybus_schemas_fuzz::influx(message));
