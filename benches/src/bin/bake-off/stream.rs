//! The events that are compared.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Bus, NewRecord, TopicOptions};

/// The topic that they are on.
pub(super) const TOPIC: &str = "tallybus.counters";
/// Its partitions.
pub(super) const PARTITIONS: u32 = 4;
const EVENTS_OF_A_MESSAGE: u64 = 500;
const SERIES: u64 = 40;
/// The time that they span, until now.
const SPAN: Duration = Duration::from_secs(30);

/// Fills a bus with events of the last half minute.
pub(super) fn fill(file: &Path, events: u64) -> Result<()> {
    let bus = EmbeddedBus::open(file)?;
    bus.create_topic(TOPIC, &TopicOptions::new(PARTITIONS))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let span = u64::try_from(SPAN.as_nanos())?;
    let begin = u64::try_from(now)?.saturating_sub(span);
    let step = span / events.max(1);
    let mut publisher = bus.publisher()?;
    let mut deliveries = Vec::new();
    for message in 0..events.div_ceil(EVENTS_OF_A_MESSAGE) {
        let numbers = message * EVENTS_OF_A_MESSAGE..events.min((message + 1) * EVENTS_OF_A_MESSAGE);
        let lines: Vec<String> = numbers
            .map(|number| {
                let series = number % SERIES;
                format!(
                    r#"{{"name":"http.requests","value":{},"ts":{},"tags":{{"route":"/v1/{}","status":"{}"}}}}"#,
                    1 + number % 7,
                    begin + number * step,
                    series / 4,
                    200 + 100 * (series % 4),
                )
            })
            .collect();
        let payload = lines.join("\n");
        let partition = u32::try_from(message % u64::from(PARTITIONS))?;
        let record = NewRecord {
            topic: TOPIC,
            partition: Some(partition),
            key: None,
            payload: payload.as_bytes(),
            headers: &[],
        };
        publisher.publish(record, message)?;
        publisher.poll(Duration::ZERO, &mut deliveries);
    }
    while publisher.in_flight() > 0 {
        publisher.poll(Duration::from_millis(20), &mut deliveries);
    }
    // One that failed is an error wherever it came.
    for delivery in deliveries {
        delivery.outcome?;
    }
    Ok(())
}
