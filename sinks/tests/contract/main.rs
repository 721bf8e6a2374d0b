//! The contract that every sink keeps, run against every kind in the table and against the fake sink.
//!
//! A kind without a [`Subject`] fails [`every_kind_has_a_subject`]. A case never looks at what kind it runs against: what
//! differs stands in the subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops at the first surprise, and says which case it runs"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers made up by the tests"
)]

mod ask;
mod batches;
mod cases;
mod clickhouse_faults;
mod dynamodb;
mod faults;
mod http;
mod http_presets;
mod parquet_faults;
mod postgres_faults;
mod redshift_faults;
mod redshift_stand_in;
mod subjects;

use std::future::Future;
use std::pin::Pin;

use subjects::{
    Subject, clickhouse, dynamodb as dynamodb_subjects, fake, http as http_subjects, influxdb, parquet, postgres,
    redshift, sqlite,
};
use tallybus_sinks::KINDS;

type Case = for<'a> fn(&'a dyn subjects::Backend) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Every case, with the name that a failure shows.
const CASES: &[(&str, Case)] = &[
    ("check succeeds", |backend| Box::pin(cases::check_succeeds(backend))),
    ("an empty batch", |backend| Box::pin(cases::empty_batch(backend))),
    ("one event", |backend| Box::pin(cases::one_event(backend))),
    ("odd texts", |backend| Box::pin(cases::odd_texts(backend))),
    ("the largest batch", |backend| Box::pin(cases::largest_batch(backend))),
    ("large values", |backend| Box::pin(cases::large_values(backend))),
    ("the same batch twice", |backend| Box::pin(cases::same_batch_twice(backend))),
    ("the same batch by two at once", |backend| Box::pin(cases::same_batch_by_two_at_once(backend))),
    ("partitions interleaved", |backend| Box::pin(cases::partitions_interleaved(backend))),
    ("letters beside ordinary batches", |backend| Box::pin(cases::letters_beside_ordinary_batches(backend))),
    ("a crash between write and settle", |backend| Box::pin(cases::crash_before_settling(backend))),
    ("two batches of one series and window", |backend| Box::pin(cases::same_series_and_window(backend))),
    ("no window, equal times", |backend| Box::pin(cases::no_window_equal_times(backend))),
    ("a point that is refused", |backend| Box::pin(cases::refused_point(backend))),
    ("away and back", |backend| Box::pin(cases::away_and_back(backend))),
    ("throttled", |backend| Box::pin(cases::throttled(backend))),
    ("slow answers", |backend| Box::pin(cases::slow_answers(backend))),
    ("connections cut", |backend| Box::pin(cases::cut_connections(backend))),
    ("locked out", |backend| Box::pin(cases::locked_out(backend))),
    ("a ledger follows the batches", |backend| Box::pin(cases::ledger_follows_batches(backend))),
    ("a ledger ahead of a new batch", |backend| Box::pin(cases::ledger_ahead_of_a_new_batch(backend))),
    ("ranges of time", |backend| Box::pin(cases::ranges(backend))),
    ("a long history", |backend| Box::pin(cases::long_history(backend))),
    ("shape and bytes are the same every time", |backend| Box::pin(cases::pure_encoding(backend))),
];

#[test]
fn every_kind_has_a_subject() {
    for kind in KINDS {
        assert!(subjects().iter().any(|subject| subject.kind == kind.name), "kind {} has no subject", kind.name);
    }
}

#[test]
fn every_kind_documents_its_settings() {
    for kind in KINDS {
        assert!(!kind.summary.is_empty() && kind.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(kind.name);
        let readme = std::fs::read_to_string(folder.join("README.md")).expect("a README.md in the kind's folder");
        assert!(readme.contains(&format!("kind = \"{}\"", kind.name)), "{}: no example", kind.name);
        for setting in kind.settings {
            let row = format!("| `{}` |", setting.key);
            assert!(readme.contains(&row), "{}: README.md has no row {row}", kind.name);
            assert!(!setting.help.is_empty());
        }
    }
}

/// Every subject, each with a test of its own: its name and what it runs against.
macro_rules! subjects {
    ($($test:ident: $subject:expr,)+) => {
        fn subjects() -> Vec<Subject> {
            vec![$($subject),+]
        }
        $(
            #[test]
            fn $test() {
                run(&$subject);
            }
        )+
    };
}

subjects! {
    clickhouse: clickhouse::SUBJECT,
    fake: fake::SUBJECT,
    http: http_subjects::JSON,
    http_ndjson: http_subjects::NDJSON,
    http_zstd: http_subjects::ZSTD,
    sqlite: sqlite::SUBJECT,
    influxdb_v1: influxdb::V1,
    influxdb_v2: influxdb::V2,
    parquet_folder: parquet::FOLDER,
    parquet_s3: parquet::S3,
    postgres: postgres::SUBJECT,
    dynamodb_rollup: dynamodb_subjects::ROLLUP,
    dynamodb_raw: dynamodb_subjects::RAW,
    redshift: redshift::INSERT,
    redshift_copy: redshift::COPY,
}

/// Runs every case against a fresh backend of this subject.
fn run(subject: &Subject) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let Some(server) = (subject.start)() else { return };
    for (case, body) in CASES {
        println!("{}: {case}", subject.name);
        let backend = server.backend();
        runtime.block_on(body(&*backend));
    }
}
