//! Any HTTP API.
//!
//! # What is written
//! One request for each batch, in one of several formats (`format/`): rows of our own as JSON, or what systems that exist
//! take: Datadog's series, Prometheus remote write, OTLP metrics, line protocol, StatsD's lines.
//!
//! # What a repeated request comes to
//! Every try of a batch, by whichever worker, sends the same bytes under the same `Idempotency-Key`: the sink's name and
//! [`Batch::key`]. A server that honours the key counts a batch once, for as long as it remembers keys. Whether this one
//! does is for the operator to say (`idempotent = true`): nothing in HTTP tells. Unless it is said, the effect is *at least
//! once*: nothing is lost, and what is sent again after a crash or a lost answer may count twice.
//!
//! Rows of JSON carry their identity too (batch, offset, index), so that a receiver can tell repeated rows by itself.
//!
//! # Formats that know points by series and time
//! In `datadog`, `prometheus`, `otlp` and `influx` a point must not meet a point of another batch. Each series gets the
//! label `tallybus_partition`, and each point stands behind the start of its window by a place that follows from the batch's
//! first offset (`identity.rs`):
//!
//! ```text
//! slot   = first mod slots                                              the label tallybus_slot, with slots > 1
//! turn   = first div slots
//! within = (1 + turn mod W) ms + (1 + turn div W mod 999,999) ns        W = the window in milliseconds, less one
//! ```
//!
//! **The bound.** Two batches of one partition that hold the same series and window meet only if their first offsets are a
//! multiple of `slots * W * 999,999` apart where times keep nanoseconds, of `slots * W` where they keep milliseconds, and of
//! `slots` where they keep seconds. What happens when they do, and when a request is repeated, is the server's affair: the
//! README says it for each.
//!
//! # Order
//! Does not matter.
//!
//! # Answers
//! See `answer.rs`. A request that the server refuses is halved until the bad points stand alone; these are rejected with
//! the server's words. That is safe with every server that takes a request as a whole and answers a key that it knows before
//! it looks at the request again: what it answers with 400, 413 or 422 it did not count.

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
    Batch, DeliveryGuarantee, Encoded, Fault, Kind, ReadBack, SeriesTotal, Sink, SinkContext, SinkError, TotalsQuery,
    Usage, VisitTotal, VisitWindow, WindowTotal, WindowsQuery, WriteOutcome,
};

use self::answer::{WHO, describe, judge, judge_partial};
use self::client::Client;
use self::config::Config;
use self::format::Format;
use self::format::otlp::{self, PartialSuccess};
use self::identity::Identity;

/// The line in the table of kinds.
pub const KIND: Kind = Kind {
    name: "http",
    summary: "any HTTP API: JSON rows, Datadog, Prometheus remote write, OTLP, line protocol, StatsD's lines",
    delivery_guarantee: DeliveryGuarantee::AtLeastOnce,
    mechanism: "identical bytes under one Idempotency-Key on every try; exactly once with `idempotent = true`, for a server that \
            honours the key",
    settings: config::SETTINGS,
    parse: config::parse,
};

/// Writes to one URL.
#[derive(Debug)]
pub struct HttpSink {
    name: String,
    window: i64,
    client: Client,
    /// Points that an OTLP receiver refused without naming them, given up as the settings say.
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
        match otlp::partial_success(&said) {
            Some(partial) if config.form.format == Format::Otlp => self.partial(batch, &partial),
            _ => Ok(()),
        }
    }

    /// What an OTLP receiver says behind a 200 that did not take everything.
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
            // A server that takes writes here need not answer to HEAD; it is there, and it has let us in.
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
    async fn totals(&self, query: &TotalsQuery, visit: &mut VisitTotal<'_>) -> Result<(), SinkError> {
        for (series, _, total) in read::rows(&self.client, self.window, None, query.range).await? {
            visit(SeriesTotal { series, total });
        }
        Ok(())
    }

    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitWindow<'_>) -> Result<(), SinkError> {
        for (_, time, total) in read::rows(&self.client, self.window, Some(&query.series), query.range).await? {
            visit(WindowTotal { start: query.window_start(time), total });
        }
        Ok(())
    }
}
