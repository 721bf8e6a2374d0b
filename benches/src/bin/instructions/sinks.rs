//! A whole worker between a bus in memory and the InfluxDB sink, whose requests go nowhere; and the sink's encoder alone.

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use async_trait::async_trait;
use serde_json::json;
use tallybus_benches::workload::{Input, NATIVE_EVENTS};
use tallybus_sdk::{Batch, BatchLimits, DeliveryGuarantee, Encoded, Sink, SinkError, WriteOutcome};
use tallybus_worker::settings::Settings;
use tallybus_worker::{Worker, WorkerOptions};

use crate::Case;
use crate::memory_bus::{MemoryBus, TOPIC};
use crate::messages::Messages;

/// Events of a batch; every case runs over whole batches.
const BATCH: u64 = 6_000;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "encode_influx",
        operation: "encode a point as line protocol",
        times: 6,
        operations: BATCH,
        run: |times| encode(times, false),
    },
    Case {
        name: "encode_influx_gzip",
        operation: "encode a point as line protocol and compress it",
        times: 4,
        operations: BATCH,
        run: |times| encode(times, true),
    },
    Case {
        name: "worker_json",
        operation: "drain an event, JSON, one event a message",
        times: 2,
        operations: BATCH,
        run: |batches| drain(Input::Json, batches, "0s"),
    },
    Case {
        name: "worker_json_summed",
        operation: "drain an event, JSON, summed over a second",
        times: 2,
        operations: BATCH,
        run: |batches| drain(Input::Json, batches, "1s"),
    },
    Case {
        name: "worker_line",
        operation: "drain an event, line protocol, one event a message",
        times: 2,
        operations: BATCH,
        run: |batches| drain(Input::Line, batches, "0s"),
    },
    Case {
        name: "worker_native",
        operation: "drain an event, native, 2,000 a message",
        times: 6,
        operations: BATCH,
        run: |batches| drain(Input::Native, batches, "0s"),
    },
];

/// The InfluxDB sink, but for the requests.
struct Unsent {
    sink: Arc<dyn Sink>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    batches: u64,
    bytes: usize,
    last: Option<Batch>,
}

#[async_trait]
impl Sink for Unsent {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        self.sink.delivery_guarantee()
    }

    fn layout_fingerprint(&self) -> String {
        self.sink.layout_fingerprint()
    }

    fn has_place(&self, topic_index: u32, partition: u32) -> Result<(), String> {
        self.sink.has_place(topic_index, partition)
    }

    async fn check(&self) -> Result<(), SinkError> {
        Ok(())
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        self.sink.encode(batch)
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.batches += 1;
        seen.bytes += encoded.memory;
        if seen.last.is_none() {
            seen.last = Some(batch.clone());
        }
        WriteOutcome::Done
    }
}

fn drain(input: Input, batches: u64, window: &str) -> Result<()> {
    let seen = work(input, batches, window)?;
    ensure!(seen.batches == batches, "{} batches were written, not {batches}", seen.batches);
    ensure!(seen.bytes > 0, "nothing was encoded");
    Ok(())
}

/// One batch as a worker makes it, encoded again and again.
fn encode(times: u64, gzip: bool) -> Result<()> {
    let batch = work(Input::Json, 1, "0s")?.last.context("no batch was written")?;
    ensure!(batch.points.len() as u64 == BATCH, "{} points", batch.points.len());
    let sink = influxdb("0s", gzip)?.1;
    for _ in 0..times {
        let encoded = sink.encode(black_box(&batch));
        ensure!(!encoded.is_nothing() && encoded.rejected.is_empty(), "{:?}", encoded.rejected.first());
    }
    Ok(())
}

/// Lets a worker write so many batches.
fn work(input: Input, batches: u64, window: &str) -> Result<Seen> {
    let messages = Messages::new(input, 2 * BATCH);
    let each = if input == Input::Native { NATIVE_EVENTS } else { 1 };
    let bus = MemoryBus::new(Arc::new(messages), batches * BATCH / each);
    let (settings, sink) = influxdb(window, false)?;
    let found = settings.sink("bench").context("the sink is in the settings")?;
    let options = WorkerOptions {
        topics: vec![TOPIC.to_owned()],
        // No batch ends by the clock.
        limits: BatchLimits {
            max_events: usize::try_from(BATCH)?,
            max_delay: Duration::from_secs(3_600),
            ..BatchLimits::default()
        },
        drain: Duration::from_secs(60),
        until_caught_up: true,
        ..found.worker_options()
    };
    let unsent = Arc::new(Unsent { sink, seen: Mutex::default() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let outcome =
        Worker::new(Arc::new(bus), Arc::<Unsent>::clone(&unsent), runtime.handle().clone(), options)?.run()?;
    ensure!(outcome.drained, "the worker ended before its time");
    let seen = std::mem::take(&mut *unsent.seen.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(seen)
}

fn influxdb(window: &str, gzip: bool) -> Result<(Settings, Arc<dyn Sink>)> {
    let settings = Settings::from_value(
        &json!({
            "bus": { "kind": "embedded", "path": "unused.db" },
            "sinks": { "bench": {
                "kind": "influxdb", "url": "http://127.0.0.1:1", "api": "v1", "database": "bench",
                "window": window, "gzip": gzip,
            } },
        }),
        tallybus_sinks::KINDS,
    )
    .map_err(|problems| anyhow!("{problems:?}"))?;
    let sink = settings.sink("bench").context("the sink is in the settings")?.make()?;
    Ok((settings, sink))
}
