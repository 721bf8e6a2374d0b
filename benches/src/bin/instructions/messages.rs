//! What the cases read: the drain benchmark's events, a thousand series of them.

use std::convert::Infallible;

use anyhow::{Result, ensure};
use tallybus_benches::workload::{Input, Workload};
use tallybus_schemas::{Decoder, Encoding, Receiver};

/// Series in the input.
pub(crate) const SERIES: u64 = 1_000;

/// Messages of one partition.
pub(crate) struct Messages {
    pub(crate) encoding: Encoding,
    pub(crate) payloads: Vec<Vec<u8>>,
}

impl Messages {
    /// So many events, in as many messages as the input takes.
    pub(crate) fn new(input: Input, events: u64) -> Self {
        let encoding = match input {
            Input::Json => Encoding::Json,
            Input::Line => Encoding::Influx,
            Input::Native => Encoding::Native,
        };
        let mut payloads = Vec::new();
        let workload = Workload { input, events, series: SERIES, partitions: 1 };
        let Ok(()) = workload.write::<Infallible>(&mut |_, payload| {
            payloads.push(payload.to_vec());
            Ok(())
        });
        Self { encoding, payloads }
    }
}

/// Keeps as little as one can.
#[derive(Default)]
struct Sum {
    events: u64,
    text: usize,
    value: u64,
}

impl Receiver for Sum {
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        self.text += name.len() + tags.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        0
    }

    fn event(&mut self, series: u32, value: u64, time: i64) {
        self.events += 1;
        self.value = self.value.wrapping_add(value ^ u64::from(series) ^ time.cast_unsigned());
    }
}

/// Decodes all messages so often, each of so many events.
pub(crate) fn decode(messages: &Messages, times: u64, events: u64) -> Result<()> {
    let (mut decoder, mut sum) = (Decoder::new(), Sum::default());
    for _ in 0..times {
        for payload in &messages.payloads {
            decoder.decode(Some(messages.encoding), payload, 0, &mut sum)?;
        }
    }
    ensure!(sum.events == times * events && sum.text > 0, "{} events", sum.events);
    std::hint::black_box(sum.value);
    Ok(())
}
