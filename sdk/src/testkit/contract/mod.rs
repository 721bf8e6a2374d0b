//! The contract that every sink keeps: one test for each case, made by one call of [`contract!`] in a module of the sink's own.
//!
//! A sink brings a [`Server`]: what serves all of its tests, and hands an empty [`Backend`] to each of them.
//!
//! ```ignore
//! struct Files;
//!
//! impl Server for Files {
//!     fn backend(&self) -> Box<dyn Backend> {
//!         Box::new(FileCase::in_a_new_folder())
//!     }
//! }
//!
//! mod files {
//!     tallybus_sdk::testkit::contract!(Some(&super::Files));
//! }
//! ```
//!
//! The cases depend on nothing but the sink's trait and the batches; no server of Tallybus's own tests is needed for them.

pub mod ask;
pub mod batches;
pub mod cases;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tallybus_schemas::Series;

use crate::Sink;

/// Serves the tests of one sink, several at a time.
pub trait Server: Send + Sync {
    /// An empty backend that no other test uses.
    fn backend(&self) -> Box<dyn Backend>;
}

/// An empty backend, with its ways to be away, to refuse access and to refuse a point.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Another empty one.
    fn fresh(&self) -> Box<dyn Backend>;
    /// The sink of a worker that reads these topics; windows in nanoseconds, 0 for none.
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink>;
    /// The sink of a worker that reads one topic.
    fn sink(&self, window: i64) -> Arc<dyn Sink> {
        self.sink_of(window, &["tallybus.counters"])
    }
    /// A sink without the right to write; its secret, if it has one, is `wrong-secret`.
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink>;
    /// Gives [`Backend::sink_locked_out`] the right to write, where that is up to the backend.
    fn let_in(&self) {}
    /// Whether it can be reached.
    fn set_away(&self, away: bool);
    /// Makes it refuse points of this series in the window of one second that starts here.
    async fn refuse(&self, series: &Series, start: i64);
    /// Whether the backend can refuse a point at all; files hold anything.
    fn refuses(&self) -> bool {
        true
    }
    /// Whether the sink may answer with a split.
    fn takes_parts(&self) -> bool;
    /// Puts a fault between sink and backend, or removes it; `false` where there is no network between them.
    fn inject(&self, fault: Option<NetworkFault>) -> bool {
        let _ = fault;
        false
    }
}

/// What can go wrong on the way to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkFault {
    /// The backend asks for fewer requests, in its own words.
    Throttled,
    /// Every answer takes that long.
    Slow(Duration),
    /// The connection is cut in the middle of the request.
    CutRequest,
    /// The backend has done what it was asked to, and the connection is cut before the answer.
    CutAnswer,
}

/// A case of the contract.
pub type Case = for<'a> fn(&'a dyn Backend) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Runs one case against an empty backend; nothing without a server, which is not installed then and says so itself.
pub fn run<S: Server + ?Sized>(server: Option<&S>, case: Case) {
    let Some(server) = server else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let backend = server.backend();
    runtime.block_on(case(&*backend));
}

/// Makes a test of every case of the contract. `$server` is an expression of type `Option<&impl Server>`.
#[macro_export]
#[doc(hidden)]
macro_rules! __sink_contract {
    ($server:expr) => {
        $crate::__sink_contract!(@ $server, content:
            a_fresh_backend_passes_the_check_and_holds_nothing
            an_empty_batch_settles_and_the_next_one_counts
            one_event_is_written_and_read_back
            odd_texts_come_back_as_they_were_written
            the_largest_batch_counts_once
            values_that_add_up_to_almost_two_to_the_63_are_exact
            batches_of_one_series_and_window_add_up
            events_of_equal_time_without_a_window_all_count
            a_range_of_time_is_read_by_the_start_of_each_window
            a_batch_has_the_same_bytes_every_time
        );
        $crate::__sink_contract!(@ $server, ledger:
            the_ledger_follows_the_batches
            a_ledger_that_is_ahead_halts_a_new_batch
        );
        $crate::__sink_contract!(@ $server, repetition:
            a_batch_written_twice_counts_once
            a_batch_written_by_two_workers_at_once_counts_once
            partitions_written_at_once_count_beside_each_other
            replayed_dead_letters_count_beside_ordinary_batches
            a_batch_written_before_a_crash_counts_once
            a_long_history_of_workers_and_retries_adds_up
        );
        $crate::__sink_contract!(@ $server, failure:
            a_refused_point_is_rejected_and_the_rest_is_written
            a_backend_that_is_away_is_retried_until_it_is_back
            a_throttled_batch_is_retried_and_counts_once
            a_batch_whose_answer_is_slow_counts_once
            a_batch_whose_connection_was_cut_counts_once
            a_sink_without_access_halts_and_shows_no_secret
        );
    };
    (@ $server:expr, $module:ident: $($case:ident)*) => {
        $(#[test]
        fn $case() {
            $crate::testkit::contract::run($server, |backend| Box::pin($crate::testkit::contract::cases::$module::$case(backend)));
        })*
    };
}
