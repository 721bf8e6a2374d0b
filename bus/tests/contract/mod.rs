//! What every bus must do, whoever implements it.
//!
//! A test binary per bus implements [`Subject`] and calls [`suite!`]. Members that are killed or stopped are processes:
//! the test binary starts itself again as its own test `child_process`, which talks over standard input and output.

// Each bus's test binary compiles this module for itself, and may stop at the first surprise.
#![allow(dead_code, unreachable_pub, missing_docs, unused_macros, unused_imports)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

pub mod child;
pub mod groups;
pub mod member;
pub mod processes;
pub mod records;
pub mod topics;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tallybus_bus::{Bus, Delivery, GroupOptions, NewRecord, Publisher, TopicOptions, read_headers, read_range};

/// No wait in the suite is longer; a bus that needs more is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A bus under test.
pub trait Subject: Send + Sync {
    /// A handle of its own, as another process would have.
    fn bus(&self) -> Box<dyn Bus>;

    /// What [`child::Start`] in another process makes its own handle of.
    fn address(&self) -> String {
        panic!("another process cannot open this bus")
    }

    /// The wall clock that gives records their times: milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64 {
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
    }

    /// Lets this much of the bus's time pass.
    fn pass(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// The shortest session that the bus allows, so that the tests of dead members are quick.
    fn session_timeout(&self) -> Duration;

    /// Deletes the records of a partition below `first`, as retention does.
    fn trim(&self, topic: &str, partition: u32, first: u64);

    /// Deletes a topic, and returns when it is gone.
    fn delete_topic(&self, topic: &str);

    /// Whether the bus compares what a change expects the group to hold.
    fn compares(&self) -> bool;

    /// A topic (or group) that no other test uses.
    fn unique(&self, name: &str) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        format!("{name}-{}-{number}", std::process::id())
    }

    /// A new topic with that many partitions.
    fn topic(&self, name: &str, partitions: u32) -> String {
        let topic = self.unique(name);
        assert!(self.bus().create_topic(&topic, &TopicOptions::new(partitions)).unwrap());
        topic
    }

    fn options(&self) -> GroupOptions {
        GroupOptions::default().with_session_timeout(self.session_timeout())
    }
}

/// Makes a test of every case of the contract. `$subject` is an expression that yields `&dyn Subject`, and `$reopen` a
/// `fn(&str) -> Box<dyn Bus>` that opens the bus from [`Subject::address`]. A bus that lives in one process leaves `$reopen`
/// and the cases with other processes out.
macro_rules! suite {
    ($subject:expr, $reopen:expr) => {
        contract::suite!($subject);
        contract::suite!(@ $subject, processes:
            a_member_killed_without_goodbye_is_followed_by_others
            a_commit_is_refused_after_the_partition_was_lost
            several_processes_publish_at_once
            what_a_killed_publisher_was_promised_is_there
        );

        #[test]
        #[ignore = "another process of the tests above"]
        fn child_process() {
            contract::child::run($reopen);
        }
    };
    ($subject:expr) => {
        contract::suite!(@ $subject, topics:
            a_topic_is_created_once_and_then_checked
            a_topic_that_does_not_exist_is_reported_as_such
            offsets_tell_what_each_partition_holds
            offsets_at_find_the_first_record_of_a_time
            a_member_is_assigned_a_stream_and_learns_of_another
            an_observer_answers_about_several_topics_and_what_has_changed
            a_stream_id_stays_while_the_topic_lives_and_changes_when_it_is_recreated
        );
        contract::suite!(@ $subject, records:
            every_record_is_answered_exactly_once
            partitions_keep_their_order_when_interleaved
            a_key_always_goes_to_the_same_partition
            records_come_back_as_written
            a_record_of_a_megabyte_comes_back
            a_record_larger_than_the_bus_takes_is_answered_as_too_large
            a_topic_or_partition_that_does_not_exist_takes_nothing
            a_range_is_read_exactly
            a_reader_gets_the_end_once_until_more_comes
            a_reader_goes_on_where_it_broke_off
            a_reader_is_noticed_by_no_group
            a_reader_started_at_a_deleted_offset_gets_the_deleted_offsets
        );
        contract::suite!(@ $subject, groups:
            one_member_gets_everything_and_goes_on_where_it_committed
            members_share_join_and_leave_and_see_every_record_once
            metadata_comes_back_as_written
            a_commit_inside_a_revocation_is_seen_by_the_next_owner
            a_commit_after_the_release_is_refused
            a_commit_is_answered_by_an_event
            a_change_that_expects_something_else_is_refused_where_the_bus_compares
            a_group_is_reset_only_while_it_has_no_member
            ten_thousand_commits
            pausing_stops_one_partition_and_resuming_goes_on
            a_member_that_has_enough_gets_the_rest_later
            a_wait_ends_when_another_thread_wakes_it
            a_rebalance_at_the_end_skips_nothing
            a_subscriber_gets_the_end_again_after_more_came
            groups_do_not_see_each_other
            a_partition_left_out_of_start_is_not_delivered
            a_member_started_at_a_deleted_offset_gets_the_deleted_offsets
        );
    };
    (@ $subject:expr, $module:ident: $($case:ident)*) => {
        $(#[test]
        fn $case() {
            contract::$module::$case($subject);
        })*
    };
}
pub(crate) use suite;

/// Publishes and waits for every answer: partition and offset, in the order published.
pub fn publish_all(publisher: &mut dyn Publisher, records: &[NewRecord<'_>]) -> Vec<(u32, u64)> {
    let mut answers: BTreeMap<u64, (u32, u64)> = BTreeMap::new();
    let mut deliveries = Vec::new();
    let until = Instant::now() + PATIENCE;
    let mut settle = |publisher: &mut dyn Publisher, timeout| {
        publisher.poll(timeout, &mut deliveries);
        for Delivery { token, outcome } in deliveries.drain(..) {
            let placed = outcome.unwrap();
            let offset = placed.offset.expect("both buses tell the offset");
            let earlier = answers.insert(token, (placed.partition, offset));
            assert_eq!(earlier, None, "token {token} was answered twice");
        }
        assert!(Instant::now() < until, "deliveries are missing");
    };
    for (token, record) in (0u64..).zip(records) {
        while let Err(error) = publisher.publish(*record, token) {
            assert!(error.is_transient(), "{error}");
            settle(publisher, Duration::from_millis(20));
        }
    }
    while publisher.in_flight() > 0 {
        settle(publisher, Duration::from_millis(100));
    }
    assert_eq!(answers.len(), records.len());
    answers.into_values().collect()
}

/// Publishes `count` records to one partition; the payload of each is its number in decimal, from `first` on.
pub fn publish_numbers(bus: &dyn Bus, topic: &str, partition: u32, first: u64, count: u64) {
    let payloads: Vec<String> = (first..first + count).map(|number| number.to_string()).collect();
    let records: Vec<NewRecord<'_>> = payloads
        .iter()
        .map(|payload| NewRecord {
            topic,
            partition: Some(partition),
            key: None,
            payload: payload.as_bytes(),
            headers: &[],
        })
        .collect();
    publish_all(&mut *bus.publisher().unwrap(), &records);
}

/// A record as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub partition: u32,
    pub offset: u64,
    pub time_ms: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Seen {
    pub fn of(record: tallybus_bus::Record<'_>) -> Self {
        Self {
            partition: record.partition,
            offset: record.offset,
            time_ms: record.time_ms,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.to_vec(),
            headers: read_headers(record.headers),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// Everything that the topic holds now.
pub fn read_all(bus: &dyn Bus, topic: &str) -> Vec<Seen> {
    let ranges: Vec<_> = (0u32..)
        .zip(bus.observer().unwrap().offsets_of(topic).unwrap())
        .map(|(partition, range)| (partition, range.first..range.end))
        .collect();
    let mut seen = Vec::new();
    let mut reader = bus.reader().unwrap();
    read_range(&mut *reader, topic, &ranges, PATIENCE, &mut |record| seen.push(Seen::of(record))).unwrap();
    seen
}
