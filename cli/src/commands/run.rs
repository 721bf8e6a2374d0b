use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::Bus;
use tallybus_sdk::Usage;
use tallybus_sdk::clock::Clock;
use tallybus_sdk::config::parse_duration;
use tallybus_sdk::progress::ProgressError;
use tallybus_worker::settings::{Settings, SinkSettings, shared_destinations};
use tallybus_worker::supervisor::{Ended, Running, Stop, is_caught_up};
use tallybus_worker::{OnRefusal, Outcome, SystemClock, WorkerStatus, prepare_topics};

use super::health::{HealthFile, Watched};
use super::live::Live;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::selection::select;
use crate::text::{amount_of, count_of, grouped};
use crate::{Global, config};

/// Run the workers of the settings, or some of them.
///
/// They run until SIGTERM, SIGHUP or Ctrl-C. A second signal, a second later or more, terminates immediately; no data is lost by that either. The log has
/// a line a minute for each sink: events per second, lag in messages and seconds, and dead letters. A failure that lasts is
/// logged when it begins, after 1, 5 and 15 minutes, then every hour, and when it ends. With `listen` in `[status]`, it
/// answers `/healthz`, `/readyz`, `/metrics` and `/status` there (docs/metrics.md).
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Only this sink; repeatable.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    /// End once everything on the bus is written and settled.
    #[arg(long)]
    until_caught_up: bool,
    /// How long a stop waits for the batches in flight.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    drain: Duration,
    /// Stop when standard input ends, as it does when the process that started this one has ended, however it ended.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
    /// Write the state of the workers to this file every second, for `tallybus health`.
    #[arg(long, value_name = "PATH")]
    health_file: Option<std::path::PathBuf>,
}

impl Run {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load_for(global, &self.sinks)?;
        let chosen = select(&settings, &self.sinks)?;
        if chosen.is_empty() {
            return Err(Failure::could_not_look("nothing to run: add a table [sinks.NAME] to the settings"));
        }
        let shared = shared_destinations(&settings.sinks);
        if !shared.is_empty() {
            return Err(Failure::could_not_look(shared.join("; ")));
        }
        let runtime = super::start_runtime()?;
        let stop = Stop::default();
        stop.listen(runtime.handle()).map_err(cannot_listen)?;
        if self.until_stdin_ends {
            stop_with_stdin(&stop)?;
        }
        let health = self.health_file.as_deref().map(HealthFile::start).transpose()?;
        let bus = config::open_or_create_bus(&settings)?;
        let mut live = Live::start(global, &settings, &bus.describe(), stop.clone())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let on_refusal = if self.until_caught_up { OnRefusal::Fail } else { OnRefusal::Wait };
        if !prepare_topics(&bus, &settings.bus, &chosen, &clock, &stop, on_refusal)? {
            output.say("stopped before the bus could be reached: nothing was written");
            if output.json {
                output.report(&json!({ "sinks": [] }).to_string())?;
            }
            return Ok(if self.until_caught_up { Verdict::Bad } else { Verdict::Good });
        }

        let mut running = Vec::with_capacity(chosen.len());
        for &sink in &chosen {
            let mut options = sink.worker_options();
            options.drain = self.drain;
            options.until_caught_up = self.until_caught_up;
            let start = if live.takes_commands() { Running::start_controlled } else { Running::start };
            running.push(start(sink, options, Arc::clone(&bus), runtime.handle(), Arc::clone(&clock)));
        }
        if let Some(health) = &health {
            health.watch(running.iter().map(watched).collect());
        }
        let shown = live.watch(&running, &settings, &chosen, &bus, &clock);
        stop.watch(running.iter().filter_map(|running| running.handle().cloned()).collect());

        if shown.is_err() {
            stop.ask();
        }
        let ended = Running::wait_for_all(running, runtime.handle(), &stop);
        live.leave();
        shown?;
        self.summarise(&ended, output)?;
        let mut all_well = ended.iter().all(|ended| ended.outcome.is_ok());
        if self.until_caught_up && stop.is_asked() && all_well {
            let unfinished = unfinished(bus.as_ref(), &chosen);
            all_well = unfinished.is_none();
            if let Some(text) = unfinished {
                output.say(&text);
            }
        }
        Ok(if all_well { Verdict::Good } else { Verdict::Bad })
    }

    fn summarise(&self, ended: &[Ended], output: &Output) -> Result<(), Failure> {
        if output.json {
            let sinks: Vec<Value> = ended.iter().map(as_json).collect();
            return output.report(&json!({ "sinks": sinks }).to_string());
        }
        for ended in ended {
            output.say(&line(ended));
        }
        Ok(())
    }
}

fn line(ended: &Ended) -> String {
    match &ended.outcome {
        Err(reason) => format!("{}: failed: {reason}", ended.name),
        Ok(Outcome { status, drained }) => {
            let behind = behind(status);
            let left = if *drained { "" } else { "; batches in flight are left sealed for the next worker" };
            let dead_letters = match status.dead_letters {
                0 => String::new(),
                count => format!(", {}", count_of(count, "dead letter")),
            };
            let (left, state) = (format!("{left}{}", usage_line(&ended.usage)), state_line(status));
            format!(
                "{}: {} in {} and {} written{dead_letters}, {behind}{left}{state}",
                ended.name,
                count_of(status.events, "event"),
                count_of(status.points, "point"),
                count_of(status.batches, "batch"),
            )
        }
    }
}

/// `12 behind (30 s)`: the messages that are not settled, and the age of the oldest. Unknown is not zero: a worker that
/// was stopped before it was assigned partitions has seen none of them.
fn behind(status: &WorkerStatus) -> String {
    let age = || match status.lag_time(SystemTime::now()) {
        Some(age) => format!("{} s", age.as_secs()),
        None => "age unknown".to_owned(),
    };
    match status.lag() {
        None => "lag unknown".to_owned(),
        Some(0) => "0 behind".to_owned(),
        Some(lag) => format!("{} behind ({})", grouped(lag), age()),
    }
}

fn as_json(ended: &Ended) -> Value {
    match &ended.outcome {
        Err(reason) => json!({ "name": ended.name, "error": reason }),
        Ok(Outcome { status, drained }) => json!({
            "name": ended.name,
            "events": status.events,
            "points": status.points,
            "batches": status.batches,
            "requests": status.requests,
            "retries": status.retries,
            "dead_letters": status.dead_letters,
            "drained": drained,
            "behind": status.lag(),
            "behind_seconds": status.lag_time(SystemTime::now()).map(|age| age.as_secs()),
            "halted": status.halts(),
            "last_error": status.last_error,
            "usage": usage_json(&ended.usage),
        }),
    }
}

/// What kept the worker from advancing when it was stopped; empty if nothing did.
fn state_line(status: &WorkerStatus) -> String {
    let halts = status.halts();
    if !halts.is_empty() {
        return format!("\n  halted, needs operator action; its records stay on the bus: {}", halts.join("; "));
    }
    status.failure().map(|failure| format!("\n  was not advancing: {failure}")).unwrap_or_default()
}

/// `; used 12 requests, 3.5 write units`; empty if the sink counts nothing.
fn usage_line(usage: &[Usage]) -> String {
    let parts: Vec<String> = usage.iter().map(|usage| amount_of(usage.amount, usage.what)).collect();
    if parts.is_empty() { String::new() } else { format!("; used {}", parts.join(", ")) }
}

fn usage_json(usage: &[Usage]) -> Value {
    usage.iter().map(|usage| (usage.what.to_owned(), json!(usage.amount))).collect()
}

/// The message for a stop before these sinks have settled everything; `None` when they have.
fn unfinished(bus: &dyn Bus, sinks: &[&SinkSettings]) -> Option<String> {
    match are_caught_up(bus, sinks) {
        Ok(true) => None,
        Ok(false) => Some("stopped before everything was written and settled".to_owned()),
        Err(error) => Some(format!("stopped; whether everything was written and settled is unknown: {error}")),
    }
}

/// Whether all of these sinks have settled everything that their topics hold.
fn are_caught_up(bus: &dyn Bus, sinks: &[&SinkSettings]) -> Result<bool, ProgressError> {
    let observer = bus.observer()?;
    for sink in sinks {
        if !is_caught_up(observer.as_ref(), sink)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// All sinks of the settings.
pub(crate) fn all(settings: &Settings) -> Vec<&SinkSettings> {
    settings.sinks.iter().collect()
}

fn watched(running: &Running) -> Watched {
    Watched { name: running.name().to_owned(), handle: running.handle().cloned(), check: running.check() }
}

/// Asks for a stop when standard input ends.
fn stop_with_stdin(stop: &Stop) -> Result<(), Failure> {
    let stop = stop.clone();
    let wait = move || {
        // What is written to it means nothing; an input that cannot be read has ended too.
        if let Err(error) = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()) {
            tracing::warn!(%error, "standard input cannot be read: stopping");
        }
        stop.ask();
    };
    let thread = std::thread::Builder::new().name("stdin".to_owned()).spawn(wait);
    thread.map(drop).map_err(|error| Failure::failed(format!("cannot watch standard input: {error}")))
}

/// Without signal handling a worker could not be stopped in an orderly way.
pub(crate) fn cannot_listen(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot listen for signals: {error}"))
}

#[cfg(test)]
mod tests {
    use tallybus_worker::BackendFailure;

    use super::*;
    use crate::broken_bus::{BrokenBus, settings};

    #[test]
    fn the_summary_of_a_halted_worker_says_that_it_is_halted_and_why() {
        let reason = "halted: needs operator action: no such table (retrying in 4 s)".to_owned();
        let status = WorkerStatus {
            last_error: Some(reason.clone()),
            backend_failures: vec![BackendFailure { reason, partitions: vec!["t/0".to_owned()] }],
            ..WorkerStatus::default()
        };
        let outcome = Ok(Outcome { status, drained: false });
        let ended = Ended { name: "a".to_owned(), outcome, usage: Vec::new() };
        let shown = line(&ended);
        assert!(shown.contains("halted, needs operator action"), "{shown}");
        assert!(shown.ends_with("no such table"), "{shown}");
        assert_eq!(as_json(&ended)["halted"], json!(["no such table"]));
    }

    #[test]
    fn the_lag_of_a_worker_that_was_stopped_before_it_had_partitions_is_unknown() {
        let outcome = Ok(Outcome { status: WorkerStatus::default(), drained: true });
        let ended = Ended { name: "a".to_owned(), outcome, usage: Vec::new() };
        assert_eq!(line(&ended), "a: 0 events in 0 points and 0 batches written, lag unknown");
        assert_eq!((&as_json(&ended)["behind"], &as_json(&ended)["behind_seconds"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn after_a_stop_what_the_bus_does_not_answer_is_unknown() {
        let settings = settings();
        let told = unfinished(&BrokenBus::after(0), &all(&settings)).unwrap();
        let expected = "stopped; whether everything was written and settled is unknown";
        assert!(told.starts_with(expected) && told.contains("the broker does not answer"), "{told}");
    }
}
