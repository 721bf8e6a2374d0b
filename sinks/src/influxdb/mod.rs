//! InfluxDB, versions 1 and 2.
//!
//! # What is written
//! The measurement is the counter's name, the tags are its tags, and one integer field `value` holds the sum of the
//! increments of one series in one batch and window: `http.requests,route=/v1 value=17i 1700000000000064003`. Bodies are
//! gzipped line protocol with nanosecond precision, one request for each batch.
//!
//! # Why writing twice changes nothing, and two batches never overwrite each other
//! InfluxDB identifies a point by series and time, and the same point written again overwrites the first. So a batch
//! written again is harmless as long as its points have the same times, and counts are lost when two batches write a
//! series at the same time. So a point's time is *start of its window + slot*, and the slot depends on the batch alone:
//!
//! ```text
//! P = topics * max_partitions                 slot ranges, one for each partition of each topic
//! R = window - window / 64                    what belongs to them of a window
//! M = R / P                                   places that a slot range has in a window
//! slot = (first offset mod M) * P + topic * max_partitions + partition          always less than R
//! ```
//!
//! The last 64th of a window is the slot range of dead letters that are written again (`tallybus replay`): `R + first offset
//! mod (window / 64)`. Their windows are old, so this range does not move when `max_partitions` or the topics change.
//!
//! **The bound.** Batches of different partitions or topics never share a slot. Two batches of one partition that hold
//! events of the same series *and the same window* share one only if their first offsets are congruent modulo M, that is M
//! or more messages apart: with the defaults (1 s, one topic, 64 partitions) 15,380,859 messages of one partition, all
//! within the time that events of one second take to come in. A window that would bring M under 1,000,000 is refused.
//!
//! **With window 0** each event is a point in its own millisecond, at `millisecond + slot`, and M = 984,375 / P (15,380)
//! is shared out:
//! - Half of it (7,691) for single events, by their message's offset modulo that. Two messages with events of the same
//!   series and millisecond collide only if they are a multiple of that many messages apart. Events of one message,
//!   series and millisecond are summed into one point.
//! - A batch that has 16 or more messages of one series and millisecond (a bulk load in which every event has the same
//!   time) sums them into one point. Its place is `first >> s` modulo a sixth of M (2,563), s being 12, 8 or 4, the
//!   largest that the batch's length in offsets covers. Two such batches collide only if they are 10,493,952, 655,872
//!   or 40,992 messages apart.
//!
//! Points that collide inside one batch are summed, so totals stay exact. [`Batch::split`](tallybus_sdk::Batch::split)
//! keeps together the points that may be summed.
//!
//! `max_partitions` and the topics are part of the sink's layout fingerprint: a batch sealed under other values is not
//! written under new ones. A partition beyond `max_partitions` is not begun. The bound holds across a change that adds
//! slot ranges (`max_partitions` raised, a topic added behind the others) or that changes the window, but not across
//! one that removes some or takes them in another order, nor across a change from or to window 0: then a series that
//! has events of one window on both sides of the change can lose some. Set a new bucket for such a change.
//!
//! # Order
//! Does not matter: points of different batches never collide.
//!
//! # Answers
//! See `answer.rs`. A batch of which InfluxDB refuses points is halved until the bad ones are isolated; these are
//! rejected with the server's message.

mod answer;
mod ask;
mod claims;
mod client;
mod config;
mod encode;
mod identity;
mod read;
mod v2;
mod version;

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tallybus_sdk::{
    Admin, Answer, BackendVersion, Batch, Claims, DeliveryGuarantee, Encoded, Fault, Kind, QUESTIONS, Question,
    ReadBack, ShadowName, Sink, SinkError, Storage, Tried, Usage, VisitHeld, WindowsQuery, WriteOutcome,
};

use self::answer::{judge, says_missing};
use self::client::Client;
use self::config::{Api, Config};
use self::identity::Identity;
use self::read::influxql;
use self::v2::V2;
use crate::shared::fingerprint::short_fingerprint;
use crate::shared::http::Reply;
use crate::shared::questions;
use crate::shared::shadow::not_shadow;

/// The sink's entry in the table of kinds.
pub const KIND: Kind = Kind {
    name: "influxdb",
    summary: "InfluxDB 1 and 2: one measurement per counter",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "each point's identity depends on its batch alone, so that writing again overwrites; within a stated \
        bound",
    settings: config::SETTINGS,
    parse: config::parse,
    questions: QUESTIONS,
    storage: Some(STORAGE),
    shadow: Some(config::shadow),
};

/// What [`ReadBack::storage`] counts.
const STORAGE: &str = "version 1: the shards of the database, with everything in it, by SHOW STATS";

/// Writes to one bucket or database.
#[derive(Debug)]
pub struct InfluxSink {
    client: Client,
    v2: Option<V2>,
    identity: Identity,
    shape: String,
    gzip: bool,
}

impl InfluxSink {
    fn new(config: Config, identity: Identity, topics: &[String]) -> Result<Self, SinkError> {
        let mut shape = identity.describe();
        if topics.len() > 1 {
            // The order of the topics determines their slot ranges.
            let order = short_fingerprint(topics.iter().map(String::as_str));
            shape.push_str(&format!(",order={order}"));
        }
        let (v2, gzip) = (V2::new(&config)?, config.gzip);
        Ok(Self { client: Client::new(config)?, v2, identity, shape, gzip })
    }

    async fn probe(&self) -> Result<Reply, SinkError> {
        self.client.write(Bytes::new()).await.map_err(SinkError::Unavailable)
    }

    async fn send(&self, encoded: &Encoded) -> Result<(), Fault> {
        let body = encoded.as_bytes()?;
        let reply = self.client.write(body.clone()).await.map_err(Fault::retry)?;
        judge(&reply, SystemTime::now())
    }

    /// Checks that the server is reachable; returns its version if it reports one.
    async fn health(&self) -> Result<Option<String>, SinkError> {
        match &self.v2 {
            Some(v2) => v2.health().await,
            None => self.client.ping().await.map_err(SinkError::Unavailable),
        }
    }

    async fn create(&self) -> Result<(), SinkError> {
        let created = match (&self.v2, &self.client.config().api) {
            (Some(v2), _) => v2.create_bucket().await,
            (None, Api::V1 { database, .. }) => self.of_database("CREATE", database).await,
            (None, Api::V2 { .. }) => Ok(()),
        };
        self.explained(created).await
    }

    async fn of_database(&self, verb: &str, database: &str) -> Result<(), SinkError> {
        let statement = format!("{verb} DATABASE {}", influxql::identifier(database));
        let mut each = |answer: &serde_json::Value| match answer["results"][0]["error"].as_str() {
            Some(message) => {
                Err(SinkError::Halt(format!("InfluxDB refused to {verb} the database {database}: {message}")))
            }
            None => Ok(()),
        };
        self.client.influxql(&statement, &mut each).await
    }

    /// Checks that the server is there, and accepts an empty write to the bucket or database.
    async fn check_backend(&self) -> Result<(), SinkError> {
        let version = self.health().await?;
        tracing::debug!(url = %self.client.config().url, version = version.as_deref(), "influxdb answers");
        let reply = self.probe().await?;
        if self.client.config().create && says_missing(&reply) {
            return Ok(());
        }
        // Version 2 answers an empty write with 400 once it has found the bucket and accepted the token.
        if reply.status == 400 && !says_missing(&reply) {
            return Ok(());
        }
        Ok(judge(&reply, SystemTime::now())?)
    }
}

#[async_trait]
impl Sink for InfluxSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    fn layout_fingerprint(&self) -> String {
        self.shape.clone()
    }

    fn lasting_layout(&self) -> Option<String> {
        Some(format!("{},window={}ns", self.shape, self.identity.window()))
    }

    fn has_place(&self, topic_index: u32, partition: u32) -> Result<(), String> {
        match self.identity.slot_range(topic_index, partition) {
            Some(_) => Ok(()),
            None => Err(format!(
                "partition {partition} has no slot range in InfluxDB: raise `max_partitions` above {partition} once \
                 everything \
                 sealed is settled"
            )),
        }
    }

    async fn check(&self) -> Result<(), SinkError> {
        let checked = self.check_backend().await;
        self.explained(checked).await
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }

    fn destination(&self) -> Option<String> {
        let Config { url, api, .. } = self.client.config();
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        Some(match api {
            Api::V1 { database, retention_policy: None, .. } => format!("InfluxDB {host}:{port}/{database}"),
            Api::V1 { database, retention_policy: Some(policy), .. } => {
                format!("InfluxDB {host}:{port}/{database}/{policy}")
            }
            Api::V2 { org, bucket, .. } => format!("InfluxDB {host}:{port}/{org}/{bucket}"),
        })
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }

    fn usage(&self) -> Vec<Usage> {
        let (writes, bytes) = self.client.sent();
        vec![Usage::of("requests", writes), Usage::of("bytes", bytes)]
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        encode::encode(batch, &self.identity, self.gzip)
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        if let Err(reason) = self.has_place(batch.topic_index, batch.id.partition) {
            return WriteOutcome::Halt { reason };
        }
        if encoded.is_nothing() {
            return WriteOutcome::Done;
        }
        match self.send(encoded).await {
            Err(Fault::Operator { reason }) => WriteOutcome::Halt { reason: self.with_version(reason).await },
            outcome => outcome.into(),
        }
    }
}

#[async_trait]
impl Admin for InfluxSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        if self.client.config().create && says_missing(&self.probe().await?) {
            self.create().await?;
        }
        self.check().await
    }

    async fn fix(&self) -> Result<(), SinkError> {
        if says_missing(&self.probe().await?) {
            self.create().await?;
        }
        self.check().await
    }

    async fn remove_shadow(&self) -> Result<(), SinkError> {
        let destination = self.client.config().api.destination();
        if !ShadowName::is(destination) {
            return Err(not_shadow(format_args!("{destination} of InfluxDB")));
        }
        match &self.v2 {
            Some(v2) => v2.remove_bucket().await,
            None => self.of_database("DROP", destination).await,
        }
    }

    async fn try_access(&self) -> Result<Tried, SinkError> {
        // The check has written nothing, with success, unless the database is yet to be created.
        if says_missing(&self.probe().await?) {
            return Ok(Tried::Nothing);
        }
        self.entries().await.map_err(|error| {
            let reason = format!("it can be written, but not read, which workers and `tallybus audit` need: {error}");
            match error {
                SinkError::Unavailable(_) => SinkError::Unavailable(reason),
                _ => SinkError::Halt(reason),
            }
        })?;
        Ok(Tried::WritingAndReading)
    }
}

#[async_trait]
impl ReadBack for InfluxSink {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        let read = read::windows(&self.client, self.v2.as_ref(), query, self.identity.resolution(), visit).await;
        self.explained(read).await
    }

    async fn ask(&self, question: &Question) -> Result<Answer, SinkError> {
        match questions::prepare(question, self.identity.window()) {
            Ok(question) => {
                let asked = ask::ask(&self.client, self.v2.as_ref(), &question, self.identity.resolution()).await;
                self.explained(asked).await
            }
            Err(answer) => Ok(answer),
        }
    }

    async fn storage(&self) -> Result<Storage, SinkError> {
        ask::storage(&self.client).await
    }

    async fn version(&self) -> Result<BackendVersion, SinkError> {
        Ok(match self.health().await? {
            Some(version) => BackendVersion::Is(version),
            None => BackendVersion::NotOffered("the server names no version"),
        })
    }
}
