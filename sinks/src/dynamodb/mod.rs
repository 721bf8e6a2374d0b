//! DynamoDB: one table, one item for each series and window, or one for each event.
//!
//! # What is written
//! Every item has the partition key `pk` (SHA-256 of the series, `#`, a shard) and the sort key `sk`, which begins with the
//! time as text (`2023-11-14T22:13:20.000000000Z`), so that a query gets the windows of a series between two times in order.
//! `name` and `tags` (a map) hold the series itself, `value` the count, `expires_at` the time when the item may be
//! deleted, if `ttl` is set.
//!
//! **Rollup** adds each batch's sums to the items of their windows, one `UpdateItem` each:
//! ```text
//! SET @<topic>.<partition> = :end  ADD value :sum
//! if @<topic>.<partition> does not exist, or is at most :first          (the batch holds offsets [first, end))
//! ```
//! **Raw** puts each point at its series, time and coordinate (topic, partition, offset, index), 25 a request.
//!
//! # Why writing twice changes nothing
//! **Raw:** the same event is the same item with the same content; a coordinate occurs once.
//!
//! **Rollup:** an item carries, for each partition that has counted into it, a *mark*: the offset up to which it has. A
//! batch writes to an item at most once (points of the same item, as with window 0, are summed first; `Batch::split`
//! keeps such points together, so parts write to disjoint items). Then for an item and a batch [first, end) of a
//! partition:
//! - *Not applied yet:* whatever the partition wrote there before came from batches that end at `first` or before,
//!   since a batch is begun only when the previous ones are applied. The condition holds, and sum and mark change in
//!   one atomic step.
//! - *Applied already*, by this worker, by another at the same time, or before a crash: the mark is at `end`, or
//!   further if later batches wrote to the item. The condition fails, and nothing changes. The same holds for a worker
//!   that lost the partition and sends an old batch late, however many batches came after; and a crash between two
//!   items of a batch is repaired by the next write of it.
//!
//! The condition *below `end`* would suffice for these cases. *At most `first`* also refuses an invalid state: a mark
//! inside `(first, end)` was left by a different chain of batches. That halts, and so does a mark that is past a batch
//! that cannot have been written before (not found sealed, and not begun by this process): the topic was recreated, the
//! group's offsets were reset, or another sink writes to the table. Treating such a batch as applied would lose it.
//!
//! **The ledger.** One item for each partition records how far its batches may have been written: a batch raises it to
//! `end` before its first item is written, under the same condition as an item. What a mark records for an item, the
//! ledger records for the partition, in both modes, and the worker reads it before anything is sealed
//! ([`Sink::ledger_end`]). A ledger that is behind where this process has seen it before refuses the batch, and that halts: a
//! backup was restored under the worker.
//!
//! **The bound.** The guarantee lasts as long as the item: an item that has expired (`ttl`) has lost its marks, and an
//! old batch that is written after that recreates it, to expire again. Marks of one sink never share a name: the
//! partition is in it in full, topics by 48 bits of SHA-256, and a sink whose topics collide is refused. An item grows
//! by about 27 bytes for each partition that counts into its window, and by nothing else; at 400 KB, reached with about
//! 15,000 partitions (12,000 for the longest series), DynamoDB refuses it, and the point becomes a dead letter.
//!
//! # Hot keys
//! DynamoDB accepts 1,000 write units per second for each partition key. In rollup a series costs one for each batch
//! that writes to one of its windows (more when an item is over 1 KB), whatever the rate of events. With `shards = n`
//! the partitions of a series are spread over n keys. Raw costs one for each event, spread over `shards` keys by
//! offset. The shards and the mode are part of the sink's layout. `ttl` is not: it does not affect counts.
//!
//! # Order
//! In order within a partition; no order between partitions.
//!
//! # Adaptive concurrency
//! All partitions of a sink share a bound on concurrent requests, which halves when the table throttles and rises by
//! one at a time when it does not (`concurrency.rs`). Writes that the table did not accept stay open: the worker waits
//! and calls again, and only open writes are sent again. A restart loses the record of open writes, which costs
//! requests but no count.

mod answer;
mod ask;
mod claims;
mod client;
mod concurrency;
mod config;
mod encode;
mod keys;
mod read;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tallybus_bus::TopicPartition;
use tallybus_sdk::{
    Admin, Batch, BatchId, Claims, DeliveryGuarantee, Encoded, Fault, Kind, LedgerEnd, LedgerFloor, ReadBack, Sink,
    SinkError, Usage, WriteOutcome,
};
use tokio::task::{JoinError, JoinSet};

use self::answer::{Outcome, Tally};
use self::client::{Client, PUTS};
use self::concurrency::{AdaptiveConcurrency, Permit};
use self::config::Config;
use self::encode::{Mode, Write, Writes};

/// The sink's entry in the table of kinds.
pub const KIND: Kind = Kind {
    name: "dynamodb",
    summary: "Amazon DynamoDB: one item per series and window, or per event",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "each item knows how far every partition has counted into it, and updates are conditional on that; in raw mode an \
            item's key is the event's coordinate; until an item expires",
    settings: config::SETTINGS,
    parse: config::parse,
    questions: &["series_by_minute"],
    storage: Some(STORAGE),
    shadow: Some(config::shadow),
};

/// What [`ReadBack::storage`] counts.
const STORAGE: &str = "the table by DescribeTable, which AWS updates about every six hours";

/// Writes to one table.
#[derive(Debug)]
pub struct DynamoSink {
    client: Arc<Client>,
    concurrency: Arc<AdaptiveConcurrency>,
    begun: Mutex<HashMap<TopicPartition, Progress>>,
    floor: Mutex<LedgerFloor>,
    /// In nanoseconds; 0: each event is its own point.
    window: i64,
}

/// The state of the batch of a partition that this process last began to write.
#[derive(Debug)]
struct Progress {
    id: BatchId,
    part: String,
    /// Whether the partition's ledger is known to be at its end.
    is_in_ledger: bool,
    /// Which of its writes need not be sent again; empty when none was sent, or all are applied.
    done: Vec<bool>,
    /// Why nothing more is sent, when the table holds counts of another chain of batches.
    foreign: Option<String>,
}

/// The outcome of each write of one request, by the write's place.
type Outcomes = Vec<(usize, Outcome)>;

impl DynamoSink {
    fn new(config: Config, window: i64) -> Self {
        let concurrency = AdaptiveConcurrency::new(config.concurrency);
        let client = Arc::new(Client::new(config));
        Self { client, concurrency, begun: Mutex::default(), floor: Mutex::default(), window }
    }

    fn mode(&self) -> Mode {
        self.client.config().layout.mode
    }

    fn all_begun(&self) -> MutexGuard<'_, HashMap<TopicPartition, Progress>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn floor(&self) -> MutexGuard<'_, LedgerFloor> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a batch is begun. Returns what is known about it.
    fn begin(&self, batch: &Batch, writes: usize) -> Result<Begun, String> {
        let mut all = self.all_begun();
        let begun = all.get(&batch.id.at()).filter(|begun| begun.id == batch.id);
        if let Some(reason) = begun.and_then(|begun| begun.foreign.clone()) {
            return Err(reason);
        }
        let is_first_try = begun.is_none();
        let is_in_ledger = begun.is_some_and(|begun| begun.is_in_ledger);
        let known = begun.filter(|begun| begun.part == batch.part && begun.done.len() == writes);
        let done = known.map_or_else(|| vec![false; writes], |begun| begun.done.clone());
        let (id, part) = (batch.id.clone(), batch.part.clone());
        all.insert(batch.id.at(), Progress { id, part, is_in_ledger, done: done.clone(), foreign: None });
        Ok(Begun { is_first_try, is_in_ledger, done })
    }

    fn end(&self, batch: &Batch, is_in_ledger: bool, done: Vec<bool>, foreign: Option<String>) {
        let (id, part) = (batch.id.clone(), batch.part.clone());
        self.all_begun().insert(batch.id.at(), Progress { id, part, is_in_ledger, done, foreign });
    }

    /// Raises the partition's ledger to the batch's end, before the first item of the batch is written.
    ///
    /// # Errors
    /// The ledger was not raised, and nothing of the batch may be written.
    async fn raise_ledger(&self, batch: &Batch, begun: &Begun) -> Result<(), WriteOutcome> {
        let id = &batch.id;
        let least = self.floor().of(&id.at());
        let permit = self.concurrency.permit().await;
        let outcome = self.client.raise_ledger(id, least).await;
        match outcome {
            Outcome::Applied => {
                permit.succeeded();
                self.floor().raise(id.at(), id.end);
                Ok(())
            }
            Outcome::Held(end) => {
                permit.succeeded();
                // An item that was deleted has no mark to report.
                let end = match end {
                    None if least > 0 => Some(self.client.ledger_end(&id.topic, id.partition).await?),
                    _ => end,
                };
                answer::held("the table's ledger", end, batch, begun.is_first_try, least).map_err(|reason| {
                    let foreign = begun.is_first_try.then(|| reason.clone());
                    self.end(batch, false, begun.done.clone(), foreign);
                    WriteOutcome::Halt { reason }
                })
            }
            Outcome::Throttled(reason) => {
                permit.was_throttled();
                Err(Fault::retry(reason).into())
            }
            // A refused ledger item needs operator action: every half of the batch has the same one.
            Outcome::Failed(Fault::Refused { reason }) => Err(WriteOutcome::Halt { reason }),
            Outcome::Failed(fault) => Err(fault.into()),
        }
    }
}

/// What is known about a batch that is about to be written.
struct Begun {
    /// Whether this process has not begun it before.
    is_first_try: bool,
    is_in_ledger: bool,
    /// Which writes are already applied.
    done: Vec<bool>,
}

/// One request, which holds its permit until it is answered.
async fn request(
    client: &Client,
    mode: Mode,
    permit: Permit,
    writes: &[Write],
    batch: &BatchId,
    places: Vec<usize>,
) -> Outcomes {
    let chosen: Vec<&Write> = places.iter().map(|place| &writes[*place]).collect();
    let outcomes = match (mode, chosen.as_slice()) {
        (Mode::Rollup, [write]) => vec![client.add(write, batch).await],
        _ => client.put(&chosen).await,
    };
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Throttled(_))) {
        permit.was_throttled();
    } else if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Applied | Outcome::Held(_))) {
        permit.succeeded();
    }
    places.into_iter().zip(outcomes).collect()
}

/// Gathers the outcomes of one batch.
struct Gathered<'b> {
    batch: &'b Batch,
    writes: Arc<Writes>,
    is_first_try: bool,
    done: Vec<bool>,
    tally: Tally,
    foreign: Option<String>,
}

impl Gathered<'_> {
    fn add(&mut self, outcomes: Result<Outcomes, JoinError>) {
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) => return self.tally.put_off(format!("a request was cancelled: {error}")),
        };
        for (place, outcome) in outcomes {
            match outcome {
                Outcome::Applied => self.is_in(place),
                Outcome::Held(mark) => match answer::held("an item", mark, self.batch, self.is_first_try, 0) {
                    Ok(()) => self.is_in(place),
                    Err(reason) => {
                        if self.is_first_try {
                            self.foreign.get_or_insert_with(|| reason.clone());
                        }
                        self.tally.halt(reason);
                    }
                },
                Outcome::Throttled(reason) | Outcome::Failed(Fault::Retry { reason, .. }) => self.tally.put_off(reason),
                Outcome::Failed(Fault::Refused { reason }) => self.tally.refused(&self.writes.0[place].points, &reason),
                Outcome::Failed(Fault::Operator { reason }) => self.tally.halt(reason),
            }
        }
    }

    fn is_in(&mut self, place: usize) {
        self.done[place] = true;
        self.tally.applied();
    }
}

#[async_trait]
impl Sink for DynamoSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    fn layout_fingerprint(&self) -> String {
        let mode = match self.mode() {
            Mode::Rollup => "rollup",
            Mode::Raw => "raw",
        };
        format!("{mode},shards={}", self.client.config().layout.shards)
    }

    async fn check(&self) -> Result<(), SinkError> {
        table::check(&self.client, self.client.config().create).await
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }

    fn destination(&self) -> Option<String> {
        let Config { aws, table, .. } = self.client.config();
        let place = aws.endpoint_host().or_else(|| aws.region().map(str::to_owned));
        Some(match place {
            Some(place) => format!("DynamoDB table {table} at {place}"),
            None => format!("DynamoDB table {table}"),
        })
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }

    fn usage(&self) -> Vec<Usage> {
        self.client.usage()
    }

    async fn ledger_end(&self, topic: &str, partition: u32) -> Result<Option<LedgerEnd>, SinkError> {
        let offset = self.client.ledger_end(topic, partition).await?;
        self.floor().found(TopicPartition::new(topic, partition), offset);
        Ok(Some(LedgerEnd { destination: format!("the table {}", self.client.config().table), offset }))
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        encode::encode(batch, &self.client.config().layout)
    }

    /// Sends the open writes, with as many concurrent requests as there are permits, and stops early when the table
    /// accepts hardly any.
    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        let writes = match encoded.as_value::<Writes>() {
            Ok(writes) => writes,
            Err(error) => return Fault::from(error).into(),
        };
        if writes.0.is_empty() {
            return WriteOutcome::Done;
        }
        let begun = match self.begin(batch, writes.0.len()) {
            Ok(begun) => begun,
            Err(reason) => return WriteOutcome::Halt { reason },
        };
        if !begun.is_in_ledger
            && let Err(answer) = self.raise_ledger(batch, &begun).await
        {
            return answer;
        }
        let Begun { is_first_try, done, .. } = begun;
        let open: Vec<usize> = (0..writes.0.len()).filter(|place| !done[*place]).collect();
        let mut requests = open.chunks(if self.mode() == Mode::Raw { PUTS } else { 1 });
        let tally = Tally::default();
        let mut gathered = Gathered { batch, writes: Arc::clone(&writes), is_first_try, done, tally, foreign: None };
        let mut under_way = JoinSet::new();
        loop {
            while let Some(outcomes) = under_way.try_join_next() {
                gathered.add(outcomes);
            }
            if !gathered.tally.is_hopeless()
                && let Some(places) = requests.next()
            {
                let (permit, places) = (self.concurrency.permit().await, places.to_vec());
                let (client, mode) = (Arc::clone(&self.client), self.mode());
                let (writes, id) = (Arc::clone(&writes), batch.id.clone());
                under_way.spawn(async move { request(&client, mode, permit, &writes.0, &id, places).await });
                continue;
            }
            match under_way.join_next().await {
                Some(outcomes) => gathered.add(outcomes),
                None => break,
            }
        }
        let left = gathered.done.iter().filter(|is_in| !**is_in).count();
        let answer = gathered.tally.answer(left);
        let is_settled = matches!(answer, WriteOutcome::Done | WriteOutcome::Rejected(_));
        self.end(batch, true, if is_settled { Vec::new() } else { gathered.done }, gathered.foreign);
        answer
    }
}
