//! Any HTTP API.
//!
//! # What is written
//! One request for each batch, in one of several formats (`format/`): Tallybus's own rows as JSON, or the formats of
//! existing systems: Datadog's series, Prometheus remote write, OTLP metrics, line protocol, StatsD's lines.
//!
//! # The effect of a repeated request
//! Every attempt at a batch, by any worker, sends the same bytes under the same `Idempotency-Key`: the sink's name and
//! [`Batch::key`]. A server that honours the key counts a batch once, for as long as it remembers keys. The operator
//! must state whether this server does (`idempotent = true`): HTTP has no way to query it. Otherwise delivery is *at
//! least once*: nothing is lost, and a batch that is sent again after a crash or a lost answer may count twice.
//!
//! Rows of JSON carry their identity too (batch, offset, index), so that a receiver can recognise repeated rows.
//!
//! # Formats that identify points by series and time
//! In `datadog`, `prometheus`, `otlp` and `influx` a point must not have the series and time of a point of another
//! batch. Each series gets the label `tallybus_partition`, and each point's time is after the start of its window by an
//! offset derived from the batch's first offset (`identity.rs`):
//!
//! ```text
//! slot   = first mod slots                                              the label tallybus_slot, with slots > 1
//! turn   = first div slots
//! within = (1 + turn mod W) ms + (1 + turn div W mod 999,999) ns        W = the window in milliseconds, less one
//! ```
//!
//! **The bound.** Two batches of one partition with the same series and window collide only if their first offsets are
//! a multiple of `slots * W * 999,999` apart where times keep nanoseconds, of `slots * W` where they keep milliseconds,
//! and of
//! `slots` where they keep seconds. What happens then, and when a request is repeated, depends on the server: see the
//! README.
//!
//! # Order
//! Does not matter.
//!
//! # Answers
//! See `answer.rs`. A request that the server refuses is halved until the bad points are isolated; these are rejected
//! with the server's message. That is safe with every server that accepts a request as a whole or not at all, and that
//! answers a known key before it validates the request again: a request answered with 400, 413 or 422 was not counted.

mod answer;
mod client;
mod config;
mod encode;
mod format;
mod identity;
mod read;
mod sign;
mod tls;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use tallybus_sdk::{
    Answer, BackendVersion, Batch, DeliveryGuarantee, Encoded, Fault, Kind, Question, ReadBack, Sink, SinkContext,
    SinkError, Storage, Usage, VisitHeld, WindowsQuery, WriteOutcome,
};

use self::answer::{WHO, describe, judge, judge_partial};
use self::client::Client;
use self::config::Config;
use self::format::Format;
use self::format::otlp::{self, PartialSuccess};
use self::identity::Identity;
use crate::shared::http::{is_page, not_written};

/// The sink's entry in the table of kinds.
pub const KIND: Kind = Kind {
    name: "http",
    summary: "any HTTP API: JSON rows, Datadog, Prometheus remote write, OTLP, line protocol, StatsD's lines",
    delivery_guarantee: DeliveryGuarantee::AtLeastOnce,
    mechanism: "counted once only with `idempotent = true`, for a server that counts a repeated request once: by the \
                header that `idempotency_key` names, or by the identity of its points; the bytes are the same on every \
                attempt",
    settings: config::SETTINGS,
    parse: config::parse,
    questions: &[],
    storage: None,
    shadow: None,
};

/// Writes to one URL.
#[derive(Debug)]
pub struct HttpSink {
    name: String,
    window: i64,
    client: Client,
    /// The number of points that an OTLP receiver refused without naming them, given up according to the settings.
    given_up: AtomicU64,
}

impl HttpSink {
    fn new(config: Config, context: &SinkContext) -> Result<Self, SinkError> {
        let client = Client::new(config)?;
        Ok(Self { name: context.name.clone(), window: context.window, client, given_up: AtomicU64::new(0) })
    }

    async fn send(&self, batch: &Batch, encoded: &Encoded) -> Result<(), Fault> {
        let (config, body) = (self.client.config(), encoded.as_bytes()?);
        let len = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if let Some(most) = config.max_body.filter(|most| len > *most) {
            return Err(Fault::refused(format!("a body of {len} bytes is over `max_body` ({most})")));
        }
        let key = format!("{}/{}", self.name, batch.key());
        let (reply, said) = self.client.write(&key, body.clone()).await.map_err(Fault::retry)?;
        judge(&reply, config.key_header.is_some(), SystemTime::now())?;
        if is_page(&said) && !config.accepts_pages {
            let reply = reply.with_body(&said, &config.secrets());
            return Err(Fault::operator(format!(
                "{}; {}; if the API itself answers with a page, set `accept = \"any\"`",
                describe(&reply),
                not_written("an API does not answer with a page for a browser")
            )));
        }
        match otlp::partial_success(&said) {
            Some(partial) if config.form.format == Format::Otlp => self.partial(batch, &partial),
            _ => Ok(()),
        }
    }

    /// An OTLP receiver's partial success in a 200 that did not accept everything.
    fn partial(&self, batch: &Batch, partial: &PartialSuccess) -> Result<(), Fault> {
        let config = self.client.config();
        let points = otlp::data_points(batch, &Identity::of(batch, config.form.slots));
        judge_partial(partial, points, config.gives_up_partly, &config.secrets())?;
        let refused = u64::try_from(partial.rejected_data_points).unwrap_or_default();
        if refused == 0 && partial.error_message.is_empty() {
            return Ok(());
        }
        let message = tallybus_sdk::text::redact(&partial.error_message, &config.secrets());
        self.given_up.fetch_add(refused, Ordering::Relaxed);
        tracing::warn!(sink = %self.name, batch = %batch.key(), refused, %message, "the server refused points");
        Ok(())
    }
}

#[async_trait]
impl Sink for HttpSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        match self.client.config().is_idempotent {
            true => DeliveryGuarantee::ExactlyOnce,
            false => DeliveryGuarantee::AtLeastOnce,
        }
    }

    /// The largest body is part of it: a batch that one worker sent whole, and another in halves, would count twice.
    fn layout_fingerprint(&self) -> String {
        let config = self.client.config();
        match config.max_body {
            None => config.form.describe(),
            Some(most) => format!("{},max_body={most}", config.form.describe()),
        }
    }

    async fn check(&self) -> Result<(), SinkError> {
        let reply = self.client.look().await.map_err(SinkError::Unavailable)?;
        let is_asked_for_writes_only = self.client.config().check_url.is_none();
        match reply.status {
            200..=299 => Ok(()),
            // A server that accepts writes need not support HEAD; it is reachable, and it accepted the credentials.
            400 | 405 | 406 | 411 | 415 | 422 | 501 if is_asked_for_writes_only => Ok(()),
            401 | 403 | 407 => {
                Err(SinkError::Halt(format!("{}; check the credentials in `headers`", describe(&reply))))
            }
            404 | 410 if is_asked_for_writes_only => Err(SinkError::Halt(format!(
                "{}; check `url`; if it is right and answers to {} only, set `check_url`",
                describe(&reply),
                self.client.config().method
            ))),
            300..=399 => Err(SinkError::Halt(format!(
                "{}; the server redirects to another address: check the URL",
                describe(&reply)
            ))),
            _ => Err(reply.refusal(WHO)),
        }
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }

    fn usage(&self) -> Vec<Usage> {
        let (requests, sent, plain) = self.client.used();
        vec![
            Usage::of("requests", requests),
            Usage::of("bytes sent", sent),
            Usage::of("bytes before compression", plain),
            Usage::of("points refused unnamed", self.given_up.load(Ordering::Relaxed)),
        ]
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        self.client.config().form.encode(batch)
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        if encoded.is_nothing() {
            return WriteOutcome::Done;
        }
        self.send(batch, encoded).await.into()
    }
}

#[async_trait]
impl ReadBack for HttpSink {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        read::windows(&self.client, self.window, query.range, visit).await
    }

    async fn ask(&self, _question: &Question) -> Result<Answer, SinkError> {
        Ok(Answer::NotOffered("there is no query language that every HTTP API speaks"))
    }

    async fn storage(&self) -> Result<Storage, SinkError> {
        Ok(Storage::NotOffered("HTTP has no request that every server answers with its storage"))
    }

    async fn version(&self) -> Result<BackendVersion, SinkError> {
        Ok(BackendVersion::NotOffered("HTTP has no request that every server answers with its version"))
    }
}
