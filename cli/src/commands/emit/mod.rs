mod input;
mod lines;
mod timed;

use std::time::{Duration, Instant};

use clap::Args;
use metrics::{Key, Label, Level, Metadata, Recorder as _};
use serde_json::json;
use tallybus::{Guard, Report};
use tallybus_sdk::config::parse_duration;
use tallybus_worker::settings::{BusSettings, names, open_own_bus};

use self::input::{Input, LONGEST_LINE, Line, Next};
use self::lines::{Given, parse_line};
use self::timed::{Fate, Timed};
use crate::failure::{Failure, Verdict};
use crate::filter::parse_tag;
use crate::output::Output;
use crate::text::{count_of, grouped};
use crate::{Global, config, interrupt, numbers, times};

/// The limit of series in one run; the collector's own limit is for services, not for files of events.
const MOST_SERIES: usize = 10_000_000;
/// Events with their own time wait at most this long for more events of their partition.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Emit counts from a shell, or from lines on standard input.
///
/// A line is a JSON event as `tap --json` writes it, or `NAME [VALUE] [key=value]…`, of 1 MiB at most; a line of another format
/// is refused with its number. Events without their own time are summed by the collector, like those of a service.
/// Ctrl-C and SIGTERM end the input; what was read until then is delivered. Exit status 0 only if everything was delivered.
#[derive(Debug, Args)]
pub(crate) struct Emit {
    /// The counter's name; `-` reads lines from standard input.
    name: String,
    /// The increment.
    #[arg(value_parser = numbers::positive, allow_negative_numbers = true)]
    value: Option<u64>,
    /// A tag; repeatable. With `-` it is added to every event that does not have the key.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// When it happened: RFC 3339, a date, -1h, or nanoseconds since 1970 [default: now].
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    time: Option<i64>,
    /// Topic [default: the bus's].
    #[arg(long)]
    topic: Option<String>,
    /// How long to wait for the bus to accept everything, once all input is read.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    deadline: Duration,
}

impl Emit {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load_bus(global)?;
        let topic = self.topic.as_ref().unwrap_or(&settings.bus.topic);
        tallybus_worker::settings::check_topic(topic).map_err(Failure::could_not_look)?;
        if names::is_reserved(topic) {
            return Err(Failure::could_not_look(format!(
                "{topic} holds Tallybus's own records, not events: choose another topic"
            )));
        }
        let from_lines = self.name == "-";
        if from_lines && (self.value.is_some() || self.time.is_some()) {
            return Err(Failure::could_not_look("with `-`, each line has its own value and time"));
        }
        // Checked before the bus is opened, which may create it.
        let single = if from_lines { None } else { Some(self.given()?) };
        let mut emitter = Emitter::start(&settings.bus, topic, self.deadline)?;
        let fed = match single {
            Some(given) => emitter.emit(&given),
            None => self.read_lines(&mut emitter, output),
        };
        // Events that could not be handed over have waited already.
        let delivered = emitter.finish(if fed.is_ok() { self.deadline } else { Duration::ZERO });
        delivered.tell(output)?;
        fed?;
        Ok(if delivered.is_complete() { Verdict::Good } else { Verdict::Bad })
    }

    /// The event of the command line.
    fn given(&self) -> Result<Given, Failure> {
        let given =
            Given { name: self.name.clone(), tags: Vec::new(), value: self.value.unwrap_or(1), time: self.time };
        for (place, (key, _)) in self.tags.iter().enumerate() {
            if self.tags[..place].iter().any(|(other, _)| other == key) {
                return Err(Failure::could_not_look(format!("--tag: the tag {key:?} is given twice")));
            }
        }
        given.with_tags(&self.tags).map_err(Failure::could_not_look)
    }

    /// Emits the lines of standard input, until it ends or a signal ends it.
    fn read_lines(&self, emitter: &mut Emitter, output: &Output) -> Result<(), Failure> {
        let interrupted = interrupt::listen()?;
        let mut input = Input::start(interrupted.clone())?;
        let mut number = 0_u64;
        loop {
            let line = match input.next(LONGEST_WAIT) {
                Next::Line(line) => line,
                Next::Nothing => {
                    emitter.send_waiting()?;
                    continue;
                }
                Next::End => break,
            };
            number += 1;
            let line = match line {
                Line::Bytes(line) => line,
                Line::TooLong => {
                    let longest = grouped(LONGEST_LINE as u64);
                    emitter.refuse(
                        number,
                        &format!("longer than {longest} bytes, the most that a line may have"),
                        output,
                    );
                    continue;
                }
                Line::Failed(reason) => return Err(Failure::failed(format!("standard input: {reason}"))),
            };
            // What some programs put before the first line.
            let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(&line);
            let parsed = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned()).and_then(parse_line);
            let tagged = parsed.and_then(|given| given.into_iter().map(|given| given.with_tags(&self.tags)).collect());
            match tagged {
                Ok::<Vec<Given>, String>(given) if emitter.has_room(&given) => {
                    for given in given {
                        emitter.emit(&given)?;
                    }
                }
                Ok(_) => emitter.refuse(
                    number,
                    "the values of one run together stay below 2^64: emit it in another run",
                    output,
                ),
                Err(reason) => emitter.refuse(number, &reason, output),
            }
        }
        if interrupted.is_set() {
            output.say(&format!("stopped by a signal after {}", count_of(number, "line")));
        }
        Ok(())
    }
}

/// Passes events on: those without a time to a collector, the others unchanged to the bus.
struct Emitter {
    guard: Guard,
    recorder: tallybus::recorder::Recorder,
    bus: BusSettings,
    topic: String,
    /// How long events with their own time wait for an unavailable bus.
    timeout: Duration,
    timed: Option<Timed>,
    events: u64,
    sum: u64,
    /// The events that could not be handed over.
    unsent: u64,
    refused_lines: u64,
}

impl Emitter {
    fn start(bus: &BusSettings, topic: &str, timeout: Duration) -> Result<Self, Failure> {
        let collector = tallybus::builder()
            .service("")
            .instance("")
            .topic(topic)
            .max_series(MOST_SERIES)
            .create_topic(bus.partitions)
            .namespace(&bus.namespace)
            .start(tallybus::Connection::from_bus(open_own_bus(bus)?));
        Ok(Self {
            guard: collector.map_err(Failure::could_not_look)?,
            recorder: tallybus::recorder::Recorder::default(),
            bus: bus.clone(),
            topic: topic.to_owned(),
            timeout,
            timed: None,
            events: 0,
            sum: 0,
            unsent: 0,
            refused_lines: 0,
        })
    }

    /// Whether the sum of all values still fits the counters, which would wrap around beyond 64 bits.
    fn has_room(&self, given: &[Given]) -> bool {
        given.iter().try_fold(self.sum, |sum, given| sum.checked_add(given.value)).is_some()
    }

    fn refuse(&mut self, line: u64, reason: &str, output: &Output) {
        self.refused_lines += 1;
        output.say(&format!("line {line}: {reason}"));
    }

    fn emit(&mut self, given: &Given) -> Result<(), Failure> {
        self.events += 1;
        self.sum += given.value;
        if given.time.is_none() {
            let labels: Vec<Label> =
                given.tags.iter().map(|(key, value)| Label::new(key.clone(), value.clone())).collect();
            let key = Key::from_parts(given.name.clone(), labels);
            let counter = self.recorder.register_counter(&key, &Metadata::new("tallybus", Level::INFO, None));
            counter.increment(given.value);
            return Ok(());
        }
        let until = Instant::now() + self.timeout;
        let handed_over = self.timed(until).and_then(|timed| timed.add(given));
        if self.timed.is_none() {
            self.unsent += given.value;
        }
        handed_over
    }

    fn timed(&mut self, until: Instant) -> Result<&mut Timed, Failure> {
        match self.timed.take() {
            Some(timed) => Ok(self.timed.insert(timed)),
            None => {
                let bus = open_own_bus(&self.bus)?;
                Ok(self.timed.insert(Timed::start(bus, &self.topic, self.bus.partitions, until)?))
            }
        }
    }

    fn send_waiting(&mut self) -> Result<(), Failure> {
        self.timed.as_mut().map_or(Ok(()), Timed::send_waiting)
    }

    fn finish(self, deadline: Duration) -> Delivered {
        let until = Instant::now() + deadline;
        let mut timed = self.timed.map(|timed| timed.finish(until)).unwrap_or_default();
        timed.undelivered += self.unsent;
        let summed = self.guard.shutdown(until.saturating_duration_since(Instant::now()));
        Delivered { events: self.events, refused_lines: self.refused_lines, summed, timed }
    }
}

/// The outcome for all events.
struct Delivered {
    events: u64,
    refused_lines: u64,
    summed: Report,
    timed: Fate,
}

impl Delivered {
    fn is_complete(&self) -> bool {
        self.summed.is_complete() && self.timed.is_complete() && self.refused_lines == 0
    }

    fn tell(&self, output: &Output) -> Result<(), Failure> {
        let (summed, timed) = (&self.summed, &self.timed);
        let emitted = summed.emitted + timed.delivered + timed.undelivered + timed.unknown;
        let delivered = summed.delivered + timed.delivered;
        let undelivered = summed.undelivered + timed.undelivered;
        let unknown = summed.unknown + timed.unknown;
        let messages = summed.messages + timed.messages;
        if output.json {
            let report = json!({
                "events": self.events, "emitted": emitted, "delivered": delivered, "undelivered": undelivered,
                "unknown": unknown, "messages": messages, "refused_lines": self.refused_lines,
            });
            return output.report(&report.to_string());
        }
        let (events, messages) = (count_of(self.events, "event"), count_of(messages, "message"));
        output.report(&format!("delivered {} of {} ({events} in {messages})", grouped(delivered), grouped(emitted)))?;
        if undelivered > 0 {
            output.say(&format!("{} not delivered: check the bus, then emit them again", grouped(undelivered)));
        }
        if unknown > 0 {
            output.say(&format!("{} perhaps delivered: `tallybus count` shows what is on the bus", grouped(unknown)));
        }
        if self.refused_lines > 0 {
            output.say(&format!("{} refused", count_of(self.refused_lines, "line")));
        }
        Ok(())
    }
}
