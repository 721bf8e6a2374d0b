//! `tallybus tap`: where it starts, what it follows, which events it shows, and how.

mod behind;
mod follow;
mod form;
mod gaps;
mod sample;
mod show;
mod start;
mod sums;

use std::time::Duration;

use clap::Args;
use tallybus_bus::{BusError, Observer, OffsetRange};
use tallybus_sdk::config::parse_duration;

use self::follow::Follow;
use self::form::Form;
use self::sample::Rate;
use self::show::Show;
use self::start::{Place, Start};
use crate::failure::{Failure, Verdict};
use crate::filter::FilterArgs;
use crate::interrupt::Interrupted;
use crate::output::Output;
use crate::waiting::waiting;
use crate::{Global, config, interrupt, numbers};

const WAIT: Duration = Duration::from_millis(250);

/// Follow the bus live, without side effects.
///
/// It joins no consumer group and moves no offset. Every encoding is shown in the same form: with --json, one event per line.
/// Offsets that the bus does not deliver are named as gaps, and where the bus is faster than the tap it says how far it is behind.
/// Ctrl-C and SIGTERM end it, with exit status 0.
#[derive(Debug, Args)]
pub(crate) struct Tap {
    /// Where to start: beginning, end, an offset (in every partition), or a time, such as -5m.
    #[arg(long, value_name = "WHERE", default_value = "end", allow_hyphen_values = true)]
    from: String,
    /// Show what is around this record or event, with coordinates, and end: topic/partition/offset, or
    /// topic/partition/offset/index, also as logs have them, with the topic's incarnation. The table marks it with >.
    #[arg(long, value_name = "COORDINATE", value_parser = Place::parse, conflicts_with_all = ["from", "topic", "until_end"])]
    around: Option<Place>,
    /// With --around: how many offsets before and after it. A message of many events has one offset.
    #[arg(long, value_name = "OFFSETS", default_value_t = 5, value_parser = numbers::whole, allow_negative_numbers = true,
          requires = "around")]
    context: u64,
    /// Topic [default: the bus's].
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// End after this many events.
    #[arg(long, value_name = "N", value_parser = numbers::whole, allow_negative_numbers = true)]
    limit: Option<u64>,
    /// End at the current end of the topic.
    #[arg(long)]
    until_end: bool,
    /// Show the coordinate of each event: topic, partition, offset, index.
    #[arg(long)]
    coordinates: bool,
    /// Show one event in N (1/N), or at most N per second (N/s), and say how many were left out.
    #[arg(long, value_name = "RATE", value_parser = Rate::parse)]
    sample: Option<Rate>,
    /// Show sums by this tag, or by the counter's name with `name`, instead of events; repeatable. A line sums the events of one
    /// interval of their own time; events that come after it was printed make another line of the same interval.
    #[arg(long, value_name = "TAG", conflicts_with_all = ["sample", "coordinates", "around"])]
    sum_by: Vec<String>,
    /// The interval of the sums; without --sum-by, of all events together [default: 1s].
    #[arg(long, value_name = "DURATION", value_parser = interval, conflicts_with_all = ["sample", "coordinates", "around"])]
    every: Option<Duration>,
    /// The form of the result [default: table].
    #[arg(long = "output", value_name = "FORM", value_enum)]
    form: Option<Form>,
}

impl Tap {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let form = Form::chosen(self.form, output)?;
        if self.sums() && form == Form::Influx {
            return Err(Failure::could_not_look(
                "--output influx writes events, not sums: leave out --sum-by and --every, or choose json or csv",
            ));
        }
        let settings = config::load_bus(global)?;
        let topic = self.around.as_ref().map(|place| &place.topic).or(self.topic.as_ref());
        let topic = topic.unwrap_or(&settings.bus.topic);
        let start = Start::parse(&self.from)?;
        let bus = config::open_bus(&settings)?;
        let interrupted = interrupt::listen()?;
        let observer = bus.observer()?;
        let ranges = self.wait_for_topic(observer.as_ref(), topic, &bus.describe(), &interrupted, output)?;
        let Some(ranges) = ranges else { return Ok(Verdict::Good) };
        if let Some(place) = self.around.as_ref().filter(|place| place.stream.is_some()) {
            for present in observer.stream_ids(&[topic])? {
                place.check(&present)?;
            }
        }
        let plan = match &self.around {
            Some(place) => place.plan(&ranges, self.context)?,
            None => start.plan(observer.as_ref(), topic, &ranges, self.until_end)?,
        };
        let mut show = Show::new(self, &settings.bus.encodings, form, &plan, output)?;
        if form == Form::Table && output.is_terminal() {
            let (what, where_from) = if plan.stops { ("reading", "") } else { ("following", "; stop with Ctrl-C") };
            output.say(&format!("{what} {topic} on {}{where_from}", bus.describe()));
        }
        let follow =
            Follow { bus: bus.as_ref(), observer: observer.as_ref(), topic, interrupted: &interrupted, output };
        let outcome = if self.limit == Some(0) { Ok(()) } else { follow.run(&plan, &mut show) };
        let finished = show.finish();
        outcome.and(finished)?;
        match &self.around {
            // Ended before it came there, it cannot say.
            Some(place) if !show.has_seen_place() && !show.is_full() && !interrupted.is_set() => {
                Err(Failure::could_not_look(format!(
                    "{topic}/{}/{} is not on the bus: its place in the partition is empty (transactions and compaction leave such \
                 gaps)",
                    place.partition, place.offset
                )))
            }
            _ => Ok(Verdict::Good),
        }
    }

    /// Whether it shows sums instead of events.
    fn sums(&self) -> bool {
        !self.sum_by.is_empty() || self.every.is_some()
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
                Err(BusError::NoTopic(_)) if !self.until_end && self.around.is_none() => {}
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
}

/// Reads the length of an interval.
fn interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        interval if interval.is_zero() => Err("an interval must be longer than 0".to_owned()),
        interval if i64::try_from(interval.as_nanos()).is_err() => {
            Err("an interval may have 292 years at most".to_owned())
        }
        interval => Ok(interval),
    }
}
