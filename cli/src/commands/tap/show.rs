use std::collections::BTreeMap;
use std::io::{BufWriter, Stdout, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::Record;
use tallybus_schemas::Series;
use tallybus_sdk::dead_letter::DeadLetterHeaders;
use tallybus_verify::audit::{Messages, Row};

use super::Tap;
use super::form::{Form, Lines, coordinate};
use super::sample::Sample;
use super::start::{Place, Plan};
use super::sums::Sums;
use crate::failure::Failure;
use crate::filter::Selected;
use crate::output::{Output, written};
use crate::{text, times};

/// The series caches are cleared at this size: a tap may run for weeks.
const MOST_SERIES: usize = 100_000;
/// The interval of sums where none is given.
const EVERY: Duration = Duration::from_secs(1);

/// Prints events, or their sums.
pub(super) struct Show<'a> {
    selected: Selected,
    messages: Messages,
    lines: Lines,
    what: What,
    limit: Option<u64>,
    around: Option<Place>,
    has_seen_place: bool,
    out: BufWriter<Stdout>,
    line: Vec<u8>,
    taken: u64,
    undecodable: u64,
    left_out: u64,
    output: &'a Output,
}

/// What is printed of the events that the filter takes.
enum What {
    Each,
    Some(Sample),
    Sums { sums: Sums, printed: Instant, every: Duration },
}

impl<'a> Show<'a> {
    /// # Errors
    /// The filter is wrong, or an encoding of the settings is unknown.
    pub(super) fn new(
        tap: &Tap,
        encodings: &BTreeMap<String, String>,
        form: Form,
        plan: &Plan,
        output: &'a Output,
    ) -> Result<Self, Failure> {
        let now = Instant::now();
        let what = match tap.sample {
            _ if tap.sums() => {
                let every = tap.every.unwrap_or(EVERY);
                let behind = plan.ends.iter().map(|(partition, _)| *partition);
                What::Sums { sums: Sums::new(&tap.sum_by, every, behind), printed: now, every }
            }
            Some(rate) => What::Some(Sample::new(rate, now)),
            None => What::Each,
        };
        Ok(Self {
            selected: tap.filter.compile()?,
            messages: Messages::new(encodings).map_err(Failure::could_not_look)?,
            lines: Lines::new(form, tap.coordinates || tap.around.is_some(), tap.around.clone()),
            what,
            limit: tap.limit,
            around: tap.around.clone(),
            has_seen_place: false,
            out: BufWriter::new(std::io::stdout()),
            line: Vec::new(),
            taken: 0,
            undecodable: 0,
            left_out: 0,
            output,
        })
    }

    /// Prints a record's events, as far as the limit allows.
    pub(super) fn record(&mut self, record: &Record<'_>) -> Result<(), Failure> {
        if self.messages.forget_series(MOST_SERIES) {
            self.selected.forget_series();
            self.lines.forget_series();
            if let What::Sums { sums, .. } = &mut self.what {
                sums.forget_series();
            }
        }
        self.has_seen_place |= self.around.as_ref().is_some_and(|place| place.offset == record.offset);
        if let Err(reason) = self.messages.decode(record) {
            self.undecodable += 1;
            let (topic, partition, offset) = (record.topic, record.partition, record.offset);
            let what = match DeadLetterHeaders::of(record) {
                Some(dead_letter) => format!("dead letter {}: {}", dead_letter.coordinate(), dead_letter.reason),
                None => reason,
            };
            return self.say(&text::escape(&format!("{topic}/{partition}/{offset}: {what}"), false));
        }
        for at in 0..self.messages.refused().len() {
            let line = &self.messages.refused()[at];
            let what = format!("{}: {}", coordinate(record, line.index), line.reason);
            self.undecodable += 1;
            self.say(&text::escape(&what, false))?;
        }
        for at in 0..self.messages.rows().len() {
            let row = self.messages.rows()[at];
            let series = self.messages.series(row.series);
            if !self.selected.takes(record, &row, series) {
                continue;
            }
            let series = Arc::clone(series);
            self.event(record, row, &series)?;
            if self.is_full() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn event(&mut self, record: &Record<'_>, row: Row, series: &Series) -> Result<(), Failure> {
        match &mut self.what {
            What::Each => {}
            What::Some(sample) => {
                if !sample.takes() {
                    return Ok(());
                }
            }
            What::Sums { sums, .. } => {
                self.taken += 1;
                sums.add(record.partition, row, series);
                return Ok(());
            }
        }
        self.line.clear();
        if let Err(reason) = self.lines.event(&mut self.line, record, row, series) {
            self.left_out += 1;
            let what = format!("{} left out: {reason}", coordinate(record, row.index));
            return self.say(&text::escape(&what, false));
        }
        self.taken += 1;
        written(self.out.write_all(&self.line))
    }

    /// Prints what is due while no record is being read. `open`: the partitions that are still to be read to their ends of the
    /// start.
    pub(super) fn pause(&mut self, open: &[(u32, u64)]) -> Result<(), Failure> {
        let now = Instant::now();
        match &mut self.what {
            What::Each => Ok(()),
            What::Some(sample) => match sample.report(now) {
                Some(line) => self.say(&line),
                None => Ok(()),
            },
            What::Sums { sums, printed, every } => {
                sums.behind(open);
                // Late events that come one by one are printed together.
                if now.duration_since(*printed) < (*every).min(EVERY) {
                    return Ok(());
                }
                *printed = now;
                let lines = sums.finished(times::now().map_err(Failure::could_not_look)?);
                self.line.clear();
                self.lines.sums(&mut self.line, sums.by(), &lines);
                written(self.out.write_all(&self.line))?;
                self.flush()
            }
        }
    }

    /// Prints what is left, and on standard error what was left out.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.line.clear();
        match &mut self.what {
            What::Sums { sums, .. } => {
                let lines = sums.all();
                self.lines.sums(&mut self.line, sums.by(), &lines);
                self.lines.finish(&mut self.line, Some(sums.by()));
            }
            What::Each | What::Some(_) => self.lines.finish(&mut self.line, None),
        }
        let outcome = written(self.out.write_all(&self.line).and_then(|()| self.out.flush()));
        if let What::Some(sample) = &self.what {
            self.output.say(&sample.summary());
        }
        if self.left_out > 0 {
            self.output.say(&format!("{} left out", text::count_of(self.left_out, "event")));
        }
        if self.undecodable > 0 {
            self.output.say(&format!("{} could not be decoded", text::count_of(self.undecodable, "record")));
        }
        self.selected.notes().iter().for_each(|note| self.output.say(note));
        outcome
    }

    /// Writes out what is printed so far.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        written(self.out.flush())
    }

    /// Says something between two events.
    fn say(&mut self, line: &str) -> Result<(), Failure> {
        self.flush()?;
        self.output.say(line);
        Ok(())
    }

    /// Whether the limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.taken >= limit)
    }

    /// Whether the record that it was to show the surroundings of was there.
    pub(super) fn has_seen_place(&self) -> bool {
        self.has_seen_place
    }
}
