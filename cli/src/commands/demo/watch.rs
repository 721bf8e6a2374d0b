use std::time::{Duration, Instant};

use tallybus_bus::Observer;
use tallybus_sdk::progress::GroupProgress;
use tallybus_worker::settings::Settings;

use super::samples::Sample;
use crate::failure::Failure;
use crate::output::Output;
use crate::text::{grouped, wrap};

/// How often progress is printed where no line can be redrawn.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The characters of the progress bar.
const BAR: u64 = 12;

/// Samples the progress, and shows it.
pub(super) struct Watch<'a> {
    settings: &'a Settings,
    observer: &'a dyn Observer,
    events: u64,
    output: &'a Output,
    began: Instant,
    told: Option<Instant>,
    pub(super) samples: Vec<Sample>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(settings: &'a Settings, observer: &'a dyn Observer, events: u64, output: &'a Output) -> Self {
        Self { settings, observer, events, output, began: Instant::now(), told: None, samples: Vec::new() }
    }

    /// Takes a sample. Returns whether every sink has settled everything.
    pub(super) fn look(&mut self, emitted: u64, delivered: u64) -> Result<bool, Failure> {
        let topic = self.settings.bus.topic.as_str();
        let mut is_settled = true;
        let mut sample =
            Sample { seconds: self.began.elapsed().as_secs_f64(), emitted, delivered, ..Sample::default() };
        for sink in &self.settings.sinks {
            let progress = GroupProgress::read(self.observer, &sink.group(), &[topic])?;
            is_settled &= progress.is_settled();
            let settled = |partition: &tallybus_sdk::progress::PartitionProgress| {
                partition.settled.unwrap_or(partition.range.first)
            };
            sample.settled.push(progress.partitions.iter().map(settled).collect());
            // The last group read saw the most.
            sample.messages = progress.partitions.iter().map(|partition| partition.range.end).collect();
        }
        self.show(&sample);
        self.samples.push(sample);
        Ok(is_settled)
    }

    fn show(&mut self, sample: &Sample) {
        let behind: Vec<String> = (self.settings.sinks.iter().enumerate())
            .map(|(number, sink)| format!("{} {}", sink.name, grouped(sample.behind(number))))
            .collect();
        let text = format!("emitted {}; behind: {}", grouped(sample.emitted), behind.join(", "));
        if self.output.is_terminal() {
            self.output.redraw(&format!("{} {text}", bar(sample, self.events, self.settings.sinks.len())));
        } else if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            let time = format!("{:4.1} s  ", sample.seconds);
            for (number, line) in wrap(&text, self.output.width().saturating_sub(time.len() + 1)).iter().enumerate() {
                let margin = if number == 0 { time.clone() } else { " ".repeat(time.len()) };
                self.output.say(&format!("{margin}{line}"));
            }
        }
    }
}

/// How much is done: half of it is emitting, half of it settling by every sink.
fn bar(sample: &Sample, events: u64, sinks: usize) -> String {
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let settled: f64 = (0..sinks).map(|sink| share(sample.settled(sink), sample.messages())).sum();
    let done = share(sample.emitted, events) * (1.0 + settled / sinks.max(1) as f64) / 2.0;
    let full = (1..=BAR).filter(|part| done >= share(*part, BAR) - 1e-9).count();
    format!("[{:-<width$}]", "#".repeat(full), width = usize::try_from(BAR).unwrap_or(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_full_once_everything_is_settled() {
        let sample = |emitted, settled: u64| Sample {
            emitted,
            messages: vec![8],
            settled: vec![vec![settled], vec![8]],
            ..Sample::default()
        };
        for (emitted, settled, expected) in [
            (0, 0, "[------------]"),
            (50, 8, "[######------]"),
            (100, 0, "[#########---]"),
            (100, 8, "[############]"),
        ] {
            assert_eq!(bar(&sample(emitted, settled), 100, 2), expected);
        }
        assert_eq!(bar(&Sample::default(), 0, 0), "[------------]");
    }
}
