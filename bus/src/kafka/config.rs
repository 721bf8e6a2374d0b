use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::BusError;

/// Properties that cannot be set, because a guarantee depends on each; with the reason given when one is refused.
const FIXED: &[(&str, &str)] = &[
    ("bootstrap.servers", "`brokers` in [bus] says it"),
    ("metadata.broker.list", "`brokers` in [bus] says it"),
    ("group.id", "each sink has its own group, tallybus.<name>"),
    ("enable.idempotence", "a record must not be stored twice"),
    ("enable.gapless.guarantee", "a failed record is given back to its counter instead"),
    ("acks", "a record counts as published once all replicas have it"),
    ("request.required.acks", "a record counts as published once all replicas have it"),
    ("transactional.id", "publishing is idempotent, not transactional"),
    ("message.timeout.ms", "a record that is given up in flight may be stored all the same"),
    ("delivery.timeout.ms", "a record that is given up in flight may be stored all the same"),
    ("enable.auto.commit", "offsets are committed with the batches they seal"),
    ("auto.commit.enable", "offsets are committed with the batches they seal"),
    ("enable.auto.offset.store", "offsets are committed with the batches they seal"),
    ("auto.offset.reset", "records gone by retention are reported, never skipped"),
    ("partition.assignment.strategy", "retained partitions must be read without interruption through a rebalance"),
    ("enable.partition.eof", "a member would lose records to it, and a reader goes by it"),
    ("allow.auto.create.topics", "a topic is created on purpose, with the partitions asked for"),
    ("log.queue", "the log is taken from the client's queue"),
];

/// Defaults that suit counters; the settings may override any of them.
const DEFAULTS: &[(&str, &str)] = &[
    // A broker that has recovered is found within a second or two, not within librdkafka's ten.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    // New topics and partitions are seen after this long at most.
    ("topic.metadata.refresh.interval.ms", "5000"),
    // The longest that a request, and so a commit, may stay unanswered.
    ("socket.timeout.ms", "20000"),
];

const CONSUMER_DEFAULTS: &[(&str, &str)] = &[
    // The default of a second costs three quarters of the rate when the queue is full.
    ("fetch.queue.backoff.ms", "2"),
    ("fetch.max.bytes", "8388608"),
    // How late a reader reports the end of a quiet partition.
    ("fetch.wait.max.ms", "100"),
    ("max.poll.interval.ms", "300000"),
];

/// The most bytes of fetched records that a member holds in memory, over all its partitions.
const PREFETCH_KILOBYTES: u32 = 4_096;
const PREFETCH_RECORDS: u32 = 32_768;

const PRODUCER_DEFAULTS: &[(&str, &str)] = &[
    ("linger.ms", "5"),
    ("compression.type", "lz4"),
    // The same key goes where a Java client would send it.
    ("partitioner", "murmur2_random"),
    // Unsent records: bounds memory while the bus is unavailable.
    ("queue.buffering.max.kbytes", "65536"),
];

/// The settings of every client of one bus.
#[derive(Clone)]
pub(super) struct Settings {
    brokers: String,
    properties: BTreeMap<String, String>,
    /// What the brokers have reported, shared by all members created from this bus.
    short_sessions_refused: Arc<AtomicBool>,
}

impl Settings {
    /// Checks the properties one by one, and reports all that are wrong at once.
    pub(super) fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Self, BusError> {
        if brokers.trim().is_empty() {
            return Err(BusError::Settings("no brokers are given".to_owned()));
        }
        check_all(properties)?;
        Ok(Self { brokers: brokers.to_owned(), properties: properties.clone(), short_sessions_refused: Arc::default() })
    }

    /// The name under which the brokers know this client, as their access control lists write it; `None` where only they know
    /// it: that of a certificate, or of a token.
    pub(super) fn principal(&self) -> Option<String> {
        let property = |name: &str| self.properties.get(name).map(String::as_str);
        let protocol = property("security.protocol").unwrap_or("PLAINTEXT").to_ascii_uppercase();
        match protocol.as_str() {
            "PLAINTEXT" => Some("User:ANONYMOUS".to_owned()),
            "SASL_PLAINTEXT" | "SASL_SSL" => property("sasl.username").map(|name| format!("User:{name}")),
            _ => None,
        }
    }

    /// Whether the operator has set a session timeout.
    pub(super) fn has_session(&self) -> bool {
        self.properties.contains_key("session.timeout.ms")
    }

    pub(super) fn short_sessions_refused(&self) -> bool {
        self.short_sessions_refused.load(Ordering::Relaxed)
    }

    /// Remembers it; returns whether it was unknown before.
    pub(super) fn note_short_sessions_refused(&self) -> bool {
        !self.short_sessions_refused.swap(true, Ordering::Relaxed)
    }

    /// The largest record that the client sends, in bytes including Kafka's overhead.
    pub(super) fn largest_record(&self) -> Option<u64> {
        let config = self.producer().create_native_config().ok()?;
        config.get("message.max.bytes").ok()?.parse().ok()
    }

    pub(super) fn brokers(&self) -> &str {
        &self.brokers
    }

    /// A consumer that joins this group, for at most this many partitions. Each has a queue of its own, so fetched and
    /// unread records are bounded per partition.
    pub(super) fn member(&self, group: &str, client_id: &str, session: Duration, partitions: u32) -> ClientConfig {
        let mut config = self.consumer();
        let partitions = partitions.max(1);
        let kilobytes = (PREFETCH_KILOBYTES / partitions).clamp(64, 4_096);
        self.set_default(&mut config, "queued.max.messages.kbytes", &kilobytes.to_string());
        // Small records take several times their size, so that their number is bounded too.
        let records = (PREFETCH_RECORDS / partitions).max(1_000);
        self.set_default(&mut config, "queued.min.messages", &records.to_string());
        let answer = (kilobytes * 1_024).min(1 << 20);
        self.set_default(&mut config, "max.partition.fetch.bytes", &answer.to_string());
        config.set("group.id", group).set("client.id", client_id);
        // With the group protocol of KIP-848 these three are configured on the broker.
        let classic = self.properties.get("group.protocol").is_none_or(|protocol| protocol != "consumer");
        if classic {
            let session = session.max(Duration::from_millis(100));
            // A rebalance is noticed at the next heartbeat; and the more of them a session has, the less it matters that one
            // is late.
            let heartbeat = (session / 8).min(Duration::from_secs(1));
            config.set("partition.assignment.strategy", "cooperative-sticky");
            self.set_default(&mut config, "session.timeout.ms", &session.as_millis().to_string());
            self.set_default(&mut config, "heartbeat.interval.ms", &heartbeat.as_millis().to_string());
        }
        config
    }

    /// A consumer that joins no group; `group` is a name under which nothing is ever committed.
    pub(super) fn reader(&self, group: &str) -> ClientConfig {
        let mut config = self.consumer();
        config.set("group.id", group).set("client.id", "tallybus-reader").set("enable.partition.eof", "true");
        self.set_default(&mut config, "queued.max.messages.kbytes", &PREFETCH_KILOBYTES.to_string());
        self.set_default(&mut config, "queued.min.messages", &PREFETCH_RECORDS.to_string());
        // Membership is not used, so the properties that request it are left out.
        for property in ["group.protocol", "group.instance.id", "group.remote.assignor"] {
            config.remove(property);
        }
        config
    }

    /// A consumer that only asks what a group has committed.
    pub(super) fn observer(&self, group: &str) -> ClientConfig {
        self.reader(group)
    }

    /// A client that queries topics and offsets. Without a group, so that it needs no permission on one. Partitions end where
    /// records do, not where an open transaction hides them: they are behind all the same.
    pub(super) fn lookup(&self) -> ClientConfig {
        let mut config = self.committed_lookup();
        config.set("isolation.level", "read_uncommitted");
        config
    }

    /// The same for a client for which partitions end where an open transaction begins.
    pub(super) fn committed_lookup(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set("client.id", "tallybus-lookup");
        for property in ["group.protocol", "group.instance.id", "group.remote.assignor"] {
            config.remove(property);
        }
        config
    }

    pub(super) fn admin(&self) -> ClientConfig {
        let mut config = self.common(&[]);
        config.set("client.id", "tallybus-admin");
        config
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.common(PRODUCER_DEFAULTS);
        self.set_default(&mut config, "client.id", "tallybus");
        config.set("enable.idempotence", "true").set("acks", "all").set("message.timeout.ms", "0");
        config
    }

    fn consumer(&self) -> ClientConfig {
        let mut config = self.common(CONSUMER_DEFAULTS);
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false");
        config
    }

    fn common(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in DEFAULTS.iter().chain(defaults) {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        let debugging = self.properties.contains_key("debug");
        config.set_log_level(if debugging { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        config
    }

    fn set_default(&self, config: &mut ClientConfig, key: &str, value: &str) {
        if !self.properties.contains_key(key) {
            config.set(key, value);
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets even where their names do not suggest it.
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("Settings").field("brokers", &self.brokers).field("properties", &names).finish()
    }
}

/// Checks the properties one by one; the error names all that are wrong.
pub(super) fn check_all(properties: &BTreeMap<String, String>) -> Result<(), BusError> {
    let mut wrong = Vec::new();
    for (key, value) in properties {
        if let Some((_, reason)) = FIXED.iter().find(|(fixed, _)| fixed == key) {
            wrong.push(format!("`{key}` cannot be set: {reason}"));
        } else if let Err(reason) = check(key, value) {
            wrong.push(reason);
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(BusError::Settings(wrong.join("; "))) }
}

/// Checks that librdkafka knows the property and accepts the value. The value is never repeated: it may be a secret.
fn check(key: &str, value: &str) -> Result<(), String> {
    let mut config = ClientConfig::new();
    config.set(key, value);
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(kind, ..)) => {
            let unknown = matches!(kind, rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN);
            Err(if unknown {
                format!("`{key}` is not a librdkafka property, or not in this build")
            } else {
                format!("`{key}` has a value that librdkafka does not accept")
            })
        }
        Err(_) => Err(format!("`{key}` cannot be set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, BusError> {
        let properties = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Settings::new("127.0.0.1:9092", &properties)
    }

    #[test]
    fn every_wrong_property_is_named_at_once_and_no_value_is() {
        let wrong = settings(&[
            ("acks", "1"),
            ("enable.idempotence", "false"),
            ("no.such.property", "hunter2"),
            ("security.protocol", "hunter3"),
            ("linger.ms", "20"),
        ]);
        let text = wrong.unwrap_err().to_string();
        for key in ["`acks`", "`enable.idempotence`", "`no.such.property`", "`security.protocol`"] {
            assert!(text.contains(key), "{key} is missing in {text}");
        }
        assert!(!text.contains("hunter") && !text.contains("linger"), "{text}");
    }

    #[test]
    fn every_fixed_property_is_one_that_librdkafka_knows() {
        for (key, _) in FIXED {
            let known = check(key, "x").is_ok_and(|()| true)
                || !check(key, "x").unwrap_err().contains("is not a librdkafka property");
            assert!(known || *key == "delivery.timeout.ms", "{key}");
        }
    }

    #[test]
    fn the_principal_is_the_one_that_the_brokers_know() {
        let principal = |pairs: &[(&str, &str)]| settings(pairs).unwrap().principal();
        assert_eq!(principal(&[]).as_deref(), Some("User:ANONYMOUS"));
        let login = [("security.protocol", "sasl_ssl"), ("sasl.mechanism", "PLAIN"), ("sasl.username", "alice")];
        assert_eq!(principal(&login).as_deref(), Some("User:alice"));
        assert_eq!(principal(&[("security.protocol", "SSL")]), None);
    }

    #[test]
    fn secrets_do_not_show() {
        let settings = settings(&[("sasl.password", "hunter2"), ("ssl.key.password", "hunter2")]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn the_operators_value_wins_over_a_default() {
        let settings = settings(&[("linger.ms", "77"), ("session.timeout.ms", "9999")]).unwrap();
        assert_eq!(settings.producer().get("linger.ms"), Some("77"));
        assert_eq!(settings.member("g", "c", Duration::from_secs(2), 4).get("session.timeout.ms"), Some("9999"));
        assert_eq!(settings.producer().get("acks"), Some("all"));
    }

    #[test]
    fn the_new_group_protocol_keeps_its_settings_on_the_broker() {
        let settings = settings(&[("group.protocol", "consumer")]).unwrap();
        let member = settings.member("g", "c", Duration::from_secs(2), 4);
        assert_eq!(member.get("session.timeout.ms"), None);
        assert_eq!(member.get("partition.assignment.strategy"), None);
        assert_eq!(settings.reader("r").get("group.protocol"), None);
    }
}
