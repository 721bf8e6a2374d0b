use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::{Bus, BusError, Observer, TopicOptions};
use tallybus_sdk::config::parse_duration;
use tallybus_verify::replay::{
    Choice, DeadLetterIndex, Plan, Sent, Skipped, {self},
};
use tallybus_worker::settings::SinkSettings;
use tallybus_worker::supervisor::{Ended, Running, Stop};
use tallybus_worker::{Outcome, SystemClock, WorkerStatus};

use super::list::{dead_letter_json, what};
use super::{FilterArgs, STALL_TIMEOUT};
use crate::commands::run::cannot_listen;
use crate::failure::{Failure, Verdict};
use crate::output::{Output, number};
use crate::progress::Progress;
use crate::text::{count_of, escape, grouped};
use crate::{Global, config, control, numbers};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many dead letters are listed one by one in text output.
const MOST_LISTED: usize = 20;

/// Send dead letters back to the sink that refused them.
///
/// Without filters: all that were never sent back. Each counts once, however often this is run and wherever it is
/// killed; run it again to continue. Exit status 0: all are written, 1: some were refused again or could not be sent,
/// 2: bus unavailable or wrong usage.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The sink.
    #[arg(long, value_name = "NAME")]
    sink: String,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many dead letters, the oldest first.
    #[arg(long, value_name = "N", value_parser = numbers::count, allow_negative_numbers = true)]
    limit: Option<usize>,
    /// Include dead letters that were sent back and refused again, up to 3 times.
    #[arg(long)]
    again: bool,
    /// Include dead letters that were refused again, however often.
    #[arg(long)]
    force: bool,
    /// Print what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long a stop waits for the batches in flight.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    drain: Duration,
}

impl Run {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load(global)?;
        let sink = crate::selection::select_one(&settings, &self.sink)?;
        let choice = Choice { filter: self.filter.filter()?, limit: self.limit, again: self.again, force: self.force };
        let bus = config::open_bus(&settings)?;
        if let Some(rest) = control::rest_of(&settings, &bus, sink)?.filter(|_| !self.dry_run) {
            return Err(Failure::failed(format!(
                "sink {} is {} {}: nothing is sent back to it; `tallybus ctl resume sink/{}` ends that",
                self.sink,
                rest.state.name(),
                rest.why(),
                self.sink
            )));
        }
        let observer = bus.observer()?;
        let dead_letters = super::read(bus.as_ref(), observer.as_ref(), sink, output)?;
        if let Some(reason) = &dead_letters.lost_history {
            return Err(Failure::could_not_look(format!(
                "it is no longer known which dead letters of {} were sent back before, so none is sent: {reason}",
                self.sink
            )));
        }
        let plan = dead_letters.plan(&choice);
        if self.dry_run {
            return self.tell_plan(&dead_letters, &plan, output);
        }
        tell_skipped(plan.skipped, output);
        if plan.chosen.is_empty() && dead_letters.pending == 0 {
            output.say("nothing to send");
            if output.json {
                output.report(&as_json(&self.sink, &Sent::default(), None, plan.skipped).to_string())?;
            }
            return Ok(Verdict::Good);
        }
        let runtime = crate::commands::start_runtime()?;
        let stop = Stop::default();
        stop.listen(runtime.handle()).map_err(cannot_listen)?;
        let sent = choose(bus.as_ref(), observer.as_ref(), sink, &plan, output)?;
        for (key, reason) in &sent.failed {
            output.say(&format!("{key} is not sent: {reason}"));
        }
        let ended = self.write(sink, bus, &stop, runtime.handle(), output);
        if output.json {
            output.report(&as_json(&self.sink, &sent, Some(&ended), plan.skipped).to_string())?;
        } else {
            output.report(&line(&self.sink, &sent, &ended))?;
        }
        let stopped = stop.is_asked();
        if stopped {
            output.say("stopped before everything was written; run it again to continue");
        }
        let all_taken = ended.outcome.as_ref().is_ok_and(|outcome| outcome.status.dead_letters == 0);
        let good = all_taken && sent.failed.is_empty() && !stopped;
        Ok(if good { Verdict::Good } else { Verdict::Bad })
    }

    /// Writes the chosen dead letters, including those of earlier runs.
    fn write(
        &self,
        sink: &SinkSettings,
        bus: Arc<dyn Bus>,
        stop: &Stop,
        runtime: &tokio::runtime::Handle,
        output: &Output,
    ) -> Ended {
        let mut options = sink.replay_options();
        options.drain = self.drain;
        let running = Running::start(sink, options, bus, runtime, Arc::new(SystemClock));
        stop.watch(running.handle().into_iter().cloned().collect());
        let mut progress = Progress::new(output, "dead letters written");
        // Each dead letter is one record of the replay topic.
        let (mut done, mut whole) = (0, 0);
        while !running.has_ended() {
            if let Some(handle) = running.handle() {
                let status = handle.status();
                let waits = if status.partitions.is_empty() { "; waiting for another replay of this sink" } else { "" };
                let failure = status.last_error.as_ref().map(|failure| format!("; {failure}")).unwrap_or_default();
                if let Some(left) = status.lag() {
                    whole = left.max(whole);
                    done = whole - left;
                }
                progress.at_with(done, whole, &format!("{waits}{failure}"));
            }
            thread::sleep(LOOK_EVERY);
        }
        drop(progress);
        running.wait(runtime)
    }

    fn tell_plan(&self, dead_letters: &DeadLetterIndex, plan: &Plan<'_>, output: &Output) -> Result<Verdict, Failure> {
        let value: u128 = plan.chosen.iter().map(|dead_letter| u128::from(dead_letter.value())).sum();
        if output.json {
            let chosen: Vec<Value> = plan.chosen.iter().map(|dead_letter| dead_letter_json(dead_letter)).collect();
            let report = json!({
                "sink": self.sink, "dry_run": true, "would_send": chosen, "value": number(value),
                "pending": dead_letters.pending, "left_out": skipped_json(plan.skipped),
            });
            output.print(&report.to_string())?;
            return Ok(Verdict::Good);
        }
        let count = plan.chosen.len() as u64;
        output.print(&format!(
            "{}: would send {} worth {}",
            self.sink,
            count_of(count, "dead letter"),
            grouped(value)
        ))?;
        for dead_letter in plan.chosen.iter().take(MOST_LISTED) {
            output.print(&format!(
                "  {}: {} of {} ({})",
                dead_letter.key,
                grouped(dead_letter.value()),
                what(dead_letter),
                escape(&dead_letter.reason, false)
            ))?;
        }
        if plan.chosen.len() > MOST_LISTED {
            output.print(&format!(
                "  … and {} more; use --json to list all",
                grouped((plan.chosen.len() - MOST_LISTED) as u64)
            ))?;
        }
        if dead_letters.pending > 0 {
            let pending = count_of(dead_letters.pending, "dead letter");
            output.print(&format!("{}: would write {pending} more that were chosen before", self.sink))?;
        }
        tell_skipped(plan.skipped, output);
        Ok(Verdict::Good)
    }
}

/// Publishes the dead letters to the replay topic.
fn choose(
    bus: &dyn Bus,
    observer: &dyn Observer,
    sink: &SinkSettings,
    plan: &Plan<'_>,
    output: &Output,
) -> Result<Sent, Failure> {
    let topic = sink.replay_topic();
    match bus.create_topic(&topic, &TopicOptions::new(1).kept()) {
        Ok(_) => {}
        Err(BusError::PartitionCount { actual, .. }) => {
            return Err(Failure::could_not_look(format!(
                "the topic {topic} has {}; it must have one: does another program use it?",
                count_of(actual, "partition")
            )));
        }
        Err(error) => return Err(error.into()),
    }
    if plan.chosen.is_empty() {
        return Ok(Sent::default());
    }
    let mut progress = Progress::new(output, "dead letters chosen");
    let sent = replay::send(bus, observer, sink, plan, STALL_TIMEOUT, &SystemClock, &mut |done, whole| {
        progress.at(done, whole);
    });
    Ok(sent?)
}

fn tell_skipped(skipped: Skipped, output: &Output) {
    let told = [
        (skipped.chosen_before, "sent back before"),
        (skipped.refused_again, "refused again before; use --again to send them once more"),
        (skipped.too_often, "refused three times; use --force to send them nevertheless"),
        (skipped.unsettled, "in a batch that is not settled yet; let its worker settle it first"),
        (skipped.cut, "not replayable: an event that was too large for the topic and was truncated"),
    ];
    for (count, why) in told {
        if count > 0 {
            output.say(&format!("left out: {} {why}", count_of(count, "dead letter")));
        }
    }
}

fn line(name: &str, sent: &Sent, ended: &Ended) -> String {
    let chosen = count_of(sent.dead_letters, "dead letter");
    match &ended.outcome {
        Err(reason) => format!("{name}: {chosen} chosen, not all written: {reason}; run it again to continue"),
        Ok(Outcome { status, .. }) => {
            let refused = match status.dead_letters {
                0 => String::new(),
                count => format!(", refused again as {}", count_of(count, "dead letter")),
            };
            let (events, points) = (count_of(status.events, "event"), count_of(status.points, "point"));
            format!("{name}: {chosen} chosen, {events} in {points} sent{refused}")
        }
    }
}

fn as_json(name: &str, sent: &Sent, ended: Option<&Ended>, skipped: Skipped) -> Value {
    let failed: Vec<Value> = sent.failed.iter().map(|(key, reason)| json!({ "key": key, "reason": reason })).collect();
    // Without a worker nothing was written; after a worker's failure, the amount written is unknown.
    let count = |of: fn(&WorkerStatus) -> u64| match ended.map(|ended| &ended.outcome) {
        None => json!(0),
        Some(Ok(outcome)) => json!(of(&outcome.status)),
        Some(Err(_)) => Value::Null,
    };
    json!({
        "sink": name,
        "chosen": sent.dead_letters,
        "failed": failed,
        "events": count(|status| status.events),
        "points": count(|status| status.points),
        "refused_again": count(|status| status.dead_letters),
        "error": ended.and_then(|ended| ended.outcome.as_ref().err()),
        "left_out": skipped_json(skipped),
    })
}

fn skipped_json(skipped: Skipped) -> Value {
    json!({
        "chosen_before": skipped.chosen_before,
        "refused_again": skipped.refused_again,
        "too_often": skipped.too_often,
        "unsettled": skipped.unsettled,
        "cut": skipped.cut,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_worker_wrote_is_null_and_not_zero() {
        let failed = Ended { name: "a".to_owned(), outcome: Err("bus unavailable".to_owned()), usage: Vec::new() };
        let report = as_json("a", &Sent::default(), Some(&failed), Skipped::default());
        for key in ["events", "points", "refused_again"] {
            assert_eq!(report[key], Value::Null, "{key}");
        }
        assert_eq!(report["error"], "bus unavailable");
        let nothing_sent = as_json("a", &Sent::default(), None, Skipped::default());
        assert_eq!(nothing_sent["events"], 0);
    }
}
