use std::io::{BufWriter, Stdout, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tallybus_bus::{Bus, BusError, Observer, OffsetRange, Progress, Record};
use tallybus_schemas::{Event, Series, json};
use tallybus_sdk::dead_letter::DeadLetterHeaders;
use tallybus_sdk::text::escape_json;
use tallybus_verify::audit::{Messages, Row};

use crate::failure::{Failure, Verdict};
use crate::filter::{Filter, parse_tag};
use crate::interrupt::Interrupted;
use crate::output::{Output, written};
use crate::waiting::waiting;
use crate::{Global, config, interrupt, numbers, text, times};

const WAIT: Duration = Duration::from_millis(250);
/// The series cache is cleared at this size: a tap may run for weeks.
const MOST_SERIES: usize = 100_000;

/// Follow the bus live, without side effects.
///
/// Every encoding is shown in the same form: with --json, one event per line. Ctrl-C and SIGTERM end it, with exit status
/// 0.
#[derive(Debug, Args)]
pub(crate) struct Tap {
    /// Where to start: beginning, end, an offset (in every partition), or a time.
    #[arg(long, value_name = "WHERE", default_value = "end", allow_hyphen_values = true)]
    from: String,
    /// Topic [default: the bus's].
    #[arg(long)]
    topic: Option<String>,
    /// Only counters whose name matches.
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// Only series with this tag; repeatable.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// End after this many events.
    #[arg(long, value_name = "N", value_parser = numbers::whole, allow_negative_numbers = true)]
    limit: Option<u64>,
    /// End at the current end of the topic.
    #[arg(long)]
    until_end: bool,
    /// Show the coordinate of each event: topic, partition, offset, index.
    #[arg(long)]
    coordinates: bool,
}

impl Tap {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load_bus(global)?;
        let topic = self.topic.as_ref().unwrap_or(&settings.bus.topic);
        let start = Start::parse(&self.from)?;
        let filter = Filter::new(self.name.as_deref(), &self.tags)?;
        let messages = Messages::new(&settings.bus.encodings).map_err(Failure::could_not_look)?;
        let bus = config::open_bus(&settings)?;
        let interrupted = interrupt::listen()?;
        let observer = bus.observer()?;
        let ranges = self.wait_for_topic(observer.as_ref(), topic, &bus.describe(), &interrupted, output)?;
        let Some(ranges) = ranges else { return Ok(Verdict::Good) };
        let starts = start.offsets(observer.as_ref(), topic, &ranges)?;
        drop(observer);

        if !output.json && output.is_terminal() {
            output.say(&format!("following {topic} on {}; stop with Ctrl-C", bus.describe()));
        }
        let mut show = Show {
            tap: self,
            filter,
            messages,
            json: output.json,
            out: BufWriter::new(std::io::stdout()),
            shown: 0,
            undecodable: 0,
            line: Vec::new(),
            output,
            interrupted,
        };
        let outcome = self.follow(bus, topic, &starts, &ranges, &mut show);
        let flushed = written(show.out.flush());
        if show.undecodable > 0 {
            output.say(&format!("{} could not be decoded", text::count_of(show.undecodable, "record")));
        }
        outcome.and(flushed).map(|()| Verdict::Good)
    }

    /// The partitions of the topic, once it exists; `None` when there is nothing to wait for.
    fn wait_for_topic(
        &self,
        observer: &dyn Observer,
        topic: &str,
        bus: &str,
        interrupted: &Interrupted,
        output: &Output,
    ) -> Result<Option<Vec<OffsetRange>>, Failure> {
        let mut said = false;
        loop {
            match waiting(output, bus, || observer.offsets_of(topic)) {
                Ok(ranges) => {
                    if said {
                        output.say(&format!("the topic {topic} exists now; following it"));
                    }
                    return Ok(Some(ranges));
                }
                Err(BusError::NoTopic(_)) if !self.until_end => {}
                Err(error) => return Err(error.into()),
            }
            if !said {
                output.say(&format!("waiting for the topic {topic} on {bus}"));
                said = true;
            }
            if interrupted.is_set() {
                return Ok(None);
            }
            std::thread::sleep(WAIT);
        }
    }

    fn follow(
        &self,
        bus: Arc<dyn Bus>,
        topic: &str,
        starts: &[(u32, u64)],
        ranges: &[OffsetRange],
        show: &mut Show<'_>,
    ) -> Result<(), Failure> {
        let mut open: Vec<(u32, u64)> = (0..)
            .zip(ranges)
            .zip(starts)
            .filter(|((_, range), start)| start.1 < range.end)
            .map(|((partition, range), _)| (partition, range.end))
            .collect();
        if self.until_end && open.is_empty() || self.limit == Some(0) {
            return Ok(());
        }
        let mut reader = bus.reader()?;
        reader.assign(topic, starts)?;
        let mut away = false;
        loop {
            let mut outcome = Ok(());
            let polled = reader.poll(WAIT, &mut |record| {
                let end = ranges.get(record.partition as usize).map_or(u64::MAX, |range| range.end);
                if self.until_end && record.offset >= end {
                    open.retain(|(partition, _)| *partition != record.partition);
                    return ControlFlow::Continue(());
                }
                if record.offset + 1 >= end {
                    open.retain(|(partition, _)| *partition != record.partition);
                }
                match show.record(&record) {
                    Ok(true) => ControlFlow::Continue(()),
                    Ok(false) => ControlFlow::Break(()),
                    Err(failure) => {
                        outcome = Err(failure);
                        ControlFlow::Break(())
                    }
                }
            });
            outcome?;
            written(show.out.flush())?;
            match polled {
                Ok(Progress::End(partition)) => open.retain(|(other, _)| *other != partition),
                Ok(Progress::Records | Progress::Idle) => {
                    if away {
                        show.output.say("bus available again");
                    }
                    away = false;
                }
                Err(BusError::Unavailable(reason)) => {
                    if !away {
                        show.output.say(&format!("bus unavailable, waiting for it: {reason}"));
                    }
                    away = true;
                    std::thread::sleep(WAIT);
                }
                Err(error) => return Err(error.into()),
            }
            if show.is_full() || show.interrupted.is_set() || self.until_end && open.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Where to start.
enum Start {
    Beginning,
    End,
    Offset(u64),
    Time(i64),
}

impl Start {
    fn parse(text: &str) -> Result<Self, Failure> {
        // Offsets do not reach the magnitude of nanoseconds since 1970.
        const HIGHEST_OFFSET: u64 = 1_000_000_000_000_000;
        match text {
            "beginning" => return Ok(Self::Beginning),
            "end" => return Ok(Self::End),
            _ => {}
        }
        match text.parse::<u64>() {
            Ok(offset) if offset < HIGHEST_OFFSET => Ok(Self::Offset(offset)),
            _ => match times::parse(text) {
                Ok(time) => Ok(Self::Time(time)),
                Err(reason) => {
                    Err(Failure::could_not_look(format!("--from: beginning, end, an offset, or a time; {reason}")))
                }
            },
        }
    }

    fn offsets(
        &self,
        observer: &dyn Observer,
        topic: &str,
        ranges: &[OffsetRange],
    ) -> Result<Vec<(u32, u64)>, Failure> {
        let at_time = match self {
            // A record that is 1 ns too old must not be left out just because its own time has only millisecond
            // resolution.
            Self::Time(time) => observer.offsets_at_time(topic, time.div_euclid(1_000_000))?,
            _ => Vec::new(),
        };
        let offset = |partition: usize, range: &OffsetRange| match self {
            Self::Beginning => range.first,
            Self::End => range.end,
            Self::Offset(offset) => (*offset).clamp(range.first, range.end),
            Self::Time(_) => at_time.get(partition).copied().unwrap_or(range.end),
        };
        let starts = ranges.iter().enumerate().map(|(partition, range)| offset(partition, range));
        Ok((0..).zip(starts).collect())
    }
}

/// Prints events.
struct Show<'a> {
    tap: &'a Tap,
    filter: Filter,
    messages: Messages,
    json: bool,
    out: BufWriter<Stdout>,
    shown: u64,
    undecodable: u64,
    line: Vec<u8>,
    output: &'a Output,
    interrupted: Interrupted,
}

impl Show<'_> {
    /// Prints a record's events; `false` when the limit is reached.
    fn record(&mut self, record: &Record<'_>) -> Result<bool, Failure> {
        self.messages.forget_series(MOST_SERIES);
        if let Err(reason) = self.messages.decode(record) {
            self.undecodable += 1;
            let (topic, partition, offset) = (record.topic, record.partition, record.offset);
            let what = match DeadLetterHeaders::of(record) {
                Some(dead_letter) => format!("dead letter {}: {}", dead_letter.coordinate(), dead_letter.reason),
                None => reason,
            };
            self.output.say(&text::escape(&format!("{topic}/{partition}/{offset}: {what}"), false));
            return Ok(true);
        }
        for line in self.messages.refused() {
            self.undecodable += 1;
            let (topic, partition, offset, index) = (record.topic, record.partition, record.offset, line.index);
            self.output.say(&format!("{topic}/{partition}/{offset}/{index}: {}", line.reason));
        }
        for at in 0..self.messages.rows().len() {
            let row = self.messages.rows()[at];
            let series = Arc::clone(self.messages.series(row.series));
            if !self.filter.takes(&series) {
                continue;
            }
            self.event(record, row, &series)?;
            if self.is_full() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn event(&mut self, record: &Record<'_>, row: Row, series: &Series) -> Result<(), Failure> {
        self.shown += 1;
        self.line.clear();
        let (topic, partition, offset, index) = (record.topic, record.partition, record.offset, row.index);
        if self.json {
            json::write_event(&mut self.line, &Event { series: series.clone(), value: row.value, time: row.time });
            if self.tap.coordinates {
                self.line.pop();
                let place =
                    format!(",\"topic\":\"{topic}\",\"partition\":{partition},\"offset\":{offset},\"index\":{index}}}");
                self.line.extend_from_slice(place.as_bytes());
            }
            if let Some(dead_letter) = DeadLetterHeaders::of(record) {
                self.line.pop();
                let (key, reason) =
                    (serde_json::Value::from(dead_letter.coordinate()), serde_json::Value::from(dead_letter.reason));
                self.line.extend_from_slice(format!(",\"dead_letter\":{key},\"reason\":{reason}}}").as_bytes());
            }
        } else {
            let (time, value) = (times::show(row.time), text::grouped(row.value));
            let mut line = format!("{time:<30} {value:>9}  {}", text::series(series));
            if self.tap.coordinates {
                line.push_str(&format!("  [{topic}/{partition}/{offset}/{index}]"));
            }
            if let Some(dead_letter) = DeadLetterHeaders::of(record) {
                line.push_str(&format!("  [{}: {}]", dead_letter.coordinate(), dead_letter.reason));
            }
            self.line.extend_from_slice(text::escape(&line, false).as_bytes());
        }
        self.line.push(b'\n');
        let line = String::from_utf8_lossy(&self.line);
        written(self.out.write_all(escape_json(&line).as_bytes()))
    }

    fn is_full(&self) -> bool {
        self.tap.limit.is_some_and(|limit| self.shown >= limit)
    }
}
