//! Joining a group, with the shortest session timeout that the brokers accept: other members take over a dead member's
//! partitions when its session has timed out.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use tracing::info;

use super::commits::Commits;
use super::config::Settings;
use super::lookup::Lookup;
use super::member::MemberContext;
use super::waker::Wakeups;
use crate::{BusError, GroupOptions};

/// The session timeout unless options or settings name another. Declaring a live member dead costs a rebalance and no
/// count; heartbeats come from a thread of their own, so a busy worker keeps sending them.
const SHORT_SESSION: Duration = Duration::from_secs(2);
/// The shortest that brokers accept by default (`group.min.session.timeout.ms`).
const COMMON_SESSION: Duration = Duration::from_secs(6);
/// The longest that one query about the topics blocks the joining thread.
const LOOKING: Duration = Duration::from_secs(1);
/// How many partitions a topic is assumed to have while the brokers cannot be reached.
const UNKNOWN_PARTITIONS: u32 = 16;

/// The group and topics that a member joins, and its options.
pub(super) struct Joining {
    settings: Settings,
    group: String,
    topics: Vec<String>,
    options: GroupOptions,
    session: Duration,
}

/// A consumer that has begun to join.
pub(super) struct Joined {
    // The answers' queue is dropped before the consumer: fields are dropped in this order.
    pub(super) commits: Commits,
    pub(super) consumer: BaseConsumer<MemberContext>,
}

impl Joining {
    pub(super) fn new(settings: &Settings, group: &str, topics: &[String], options: &GroupOptions) -> Self {
        let shortest = if settings.short_sessions_refused() { COMMON_SESSION } else { SHORT_SESSION };
        let session = options.session_timeout.unwrap_or(shortest);
        let (settings, group, topics) = (settings.clone(), group.to_owned(), topics.to_vec());
        Self { settings, group, topics, options: options.clone(), session }
    }

    /// The session timeout.
    pub(super) fn session(&self) -> Duration {
        self.session
    }

    /// The brokers refused the session timeout. Returns whether to retry with a longer one.
    pub(super) fn lengthen(&mut self) -> bool {
        let is_chosen = self.options.session_timeout.is_some() || self.settings.has_session();
        if is_chosen || self.session == COMMON_SESSION {
            return false;
        }
        self.session = COMMON_SESSION;
        if self.settings.note_short_sessions_refused() {
            info!(
                target: "kafka",
                "the brokers refuse a session timeout of {SHORT_SESSION:?}; using {COMMON_SESSION:?}: when a worker \
                 is killed, \
                 other workers take over that much later; `group.min.session.timeout.ms = {}` on the brokers allows the shorter one",
                SHORT_SESSION.as_millis()
            );
        }
        true
    }

    /// Begins to join.
    pub(super) fn join(&self, wakeups: &Wakeups, look: &Lookup) -> Result<Joined, BusError> {
        let refused = |error: rdkafka::error::KafkaError| BusError::Settings(error.to_string());
        let partitions = self.count_partitions(look);
        let config = self.settings.member(&self.group, &self.options.client_id, self.session, partitions);
        let mut consumer: BaseConsumer<MemberContext> =
            config.create_with_context(MemberContext::new()).map_err(refused)?;
        let waker = wakeups.waker().clone();
        consumer.set_nonempty_callback(move || waker.wake());
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(refused)?;
        Ok(Joined { commits: Commits::new(&consumer, wakeups.waker())?, consumer })
    }

    /// The number of partitions over which prefetched records are bounded: all of them, since this member may be
    /// assigned every one. Only a memory limit depends on it, and joining must not wait for it: a topic that is missing,
    /// or whose partitions the brokers do not report in time, counts as [`UNKNOWN_PARTITIONS`].
    fn count_partitions(&self, look: &Lookup) -> u32 {
        let known = |topic: &String| look.partitions(topic, LOOKING).ok().flatten();
        self.topics.iter().map(|topic| known(topic).unwrap_or(UNKNOWN_PARTITIONS)).sum()
    }
}
