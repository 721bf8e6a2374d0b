//! Says to workers over the bus what they shall do, waits for each, and reports what came of it.

mod addressees;
mod ask;
mod outcome;
mod send;
mod show;
mod wait;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tallybus_bus::Bus;
use tallybus_control::{Address, Command, Desired, DesiredState, Key, Reply, VERSION, desired_key};
use tallybus_sdk::config::parse_duration;
use tallybus_sdk::progress::GroupProgress;
use tallybus_verify::heartbeats::Presence;
use tallybus_worker::live::{host_name, millis};
use tallybus_worker::settings::{Settings, names, read_key};

use self::addressees::{Addressees, Groups};
use self::ask::{Asking, new_id};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::count_of;
use crate::{Global, config};

/// The longest reason, in bytes: a record that is too long is refused by everybody who reads it.
const LONGEST_REASON: usize = 1_000;

/// How long a command may live: workers refuse one that claims to live longer than a day.
const LONGEST: Duration = Duration::from_secs(86_000);

/// Pause, drain and resume workers, and ask them how they are, over the bus.
///
/// TARGET is `all`, `kind/KIND`, `sink/NAME`, `sink/NAME@WORKER` or `worker/WORKER`; WORKER is a process's name (by default its
/// host's) or its id, as `ctl show` lists them. It waits until every worker that the target means has answered. Exit status 0: all
/// answered well; 1: one refused or failed; 2: bus unavailable, wrong usage, or no worker; 3: one was silent; 4: the deadline passed
/// before all were done. See docs/control.md.
#[derive(Debug, Subcommand)]
pub(crate) enum Ctl {
    /// Have workers seal nothing more, settle what is sealed, and keep their partitions.
    Pause(Change),
    /// Have workers settle what is sealed and give their partitions to others; the processes stay up.
    Drain(Change),
    /// Have workers run again.
    Resume(Change),
    /// Ask workers for their status.
    Status(Ask),
    /// Have workers that wait for their backend try at once.
    RetryNow(Ask),
    /// Ask workers for what they hold in memory.
    Dump(Ask),
    Show(show::Show),
    Send(send::Send),
}

/// A change of what workers shall be doing.
#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    ask: Ask,
    /// Why, for those who look at it later.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Record what is wanted although no worker runs that it means: those that start later follow it.
    #[arg(long)]
    for_later: bool,
}

/// Whom to ask, and how long to wait.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// For which workers.
    #[arg(value_name = "TARGET")]
    target: Address,
    /// How long a worker may take for its first answer before it counts as silent.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    wait: Duration,
    /// When it shall be done; a command expires then, while what is wanted of a worker stays wanted.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    deadline: Duration,
    /// The key to sign with: env:NAME or file:PATH; the first of `keys` in [control] otherwise.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl Ctl {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        match self {
            Self::Pause(change) => change.run(DesiredState::Paused, global, output),
            Self::Drain(change) => change.run(DesiredState::Drained, global, output),
            Self::Resume(change) => change.run(DesiredState::Running, global, output),
            Self::Status(ask) => ask.run("status", global, output),
            Self::RetryNow(ask) => ask.run("retry-now", global, output),
            Self::Dump(ask) => ask.run("dump", global, output),
            Self::Show(show) => show.run(global, output),
            Self::Send(send) => send.run(global, output),
        }
    }
}

/// What a request needs of the bus.
struct Place {
    settings: Settings,
    bus: Arc<dyn Bus>,
    keys: Vec<Key>,
}

impl Place {
    fn open(global: &Global, key: Option<&str>) -> Result<Self, Failure> {
        let settings = config::load_bus(global)?;
        let keys = match key {
            Some(reference) => read_key(reference).map(|key| vec![key]),
            None => settings.control.keys(),
        };
        let keys = keys.map_err(|reason| Failure::could_not_look(format!("the signing key: {reason}")))?;
        let bus = config::open_bus(&settings)?;
        Ok(Self { settings, bus, keys })
    }

    fn control_topic(&self) -> String {
        names::control_topic(&self.settings.bus.namespace)
    }

    /// Refuses before anything is written what the addressees would refuse: an unsigned desired state would take the place of a
    /// signed one.
    fn check_key(&self, addressees: &Addressees) -> Result<(), Failure> {
        let demands = addressees.all.iter().find(|one| one.demands_signature && one.presence == Presence::Live);
        match demands {
            Some(one) if self.keys.is_empty() => Err(Failure::could_not_look(format!(
                "{} takes signed commands only: name the key with --key, or in `keys` of [control]; nothing was sent",
                one.name
            ))),
            _ => Ok(()),
        }
    }

    fn commands_topic(&self) -> String {
        names::commands_topic(&self.settings.bus.namespace)
    }
}

impl Change {
    fn run(&self, state: DesiredState, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        self.ask.check()?;
        if self.reason.len() > LONGEST_REASON {
            return Err(Failure::could_not_look(format!("--reason: expected at most {LONGEST_REASON} bytes")));
        }
        let place = Place::open(global, self.ask.key.as_deref())?;
        let addressees = Addressees::find(&place, &self.ask.target)?;
        place.check_key(&addressees)?;
        let groups = addressees.groups(&place.settings.bus.topic);
        if addressees.is_empty() && !self.for_later {
            return Err(no_addressee(
                &self.ask.target,
                "; with --for-later it is recorded for workers that start later",
            ));
        }
        let mut asking = Asking::begin(&place, addressees)?;
        let desired = Desired {
            version: VERSION,
            id: new_id(),
            issuer: issuer(),
            issued_ms: millis(SystemTime::now()),
            target: self.ask.target.clone(),
            state,
            reason: self.reason.clone(),
        };
        let payload = encoded(serde_json::to_vec(&desired))?;
        let key = desired_key(&desired.target);
        asking.publish_desired(&key, &desired.id, desired.issued_ms, &payload, self.ask.deadline)?;
        let what = format!("{} of {}", verb(state), desired.target);
        if asking.addressees.is_empty() {
            let text = format!("recorded: {what}; no worker runs that it means, and those that start later follow it");
            match output.json {
                true => output
                    .report(&json!({ "id": desired.id, "target": desired.target, "addressees": [] }).to_string())?,
                false => output.report(&text)?,
            }
            return Ok(Verdict::Good);
        }
        let verdict = self.ask.wait(&mut asking, &desired.id, &what, output)?;
        if state != DesiredState::Drained || verdict != Verdict::Good || !self.ask.is_of_whole_sinks() {
            return Ok(verdict);
        }
        match left_behind(&place, &groups)? {
            None => Ok(verdict),
            Some(left) => {
                output.say(&left);
                Ok(Verdict::Silent)
            }
        }
    }
}

/// What is sealed and not settled in these groups although everyone who answered is drained: the work of processes that are gone,
/// and whose heartbeats were forgotten. `None` when nothing is.
fn left_behind(place: &Place, groups: &Groups) -> Result<Option<String>, Failure> {
    let observer = place.bus.observer()?;
    let mut left = Vec::new();
    for (group, topics) in groups {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        match GroupProgress::read(observer.as_ref(), group, &topics) {
            Ok(progress) if progress.sealed_batches() == 0 => {}
            Ok(progress) => left.push(format!(
                "{} of group {group} are sealed and not settled, by a process that is gone. Start a worker of the sink, or resume \
                 one: it settles them",
                count_of(progress.sealed_batches() as u64, "batch")
            )),
            Err(error) => left.push(format!(
                "whether group {group} has batches that are sealed and not settled, by a process that is gone, is not known: {error}"
            )),
        }
    }
    Ok((!left.is_empty()).then(|| left.join("; ")))
}

impl Ask {
    fn run(&self, name: &str, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        self.check()?;
        let place = Place::open(global, self.key.as_deref())?;
        let addressees = Addressees::find(&place, &self.target)?;
        if addressees.is_empty() {
            return Err(no_addressee(&self.target, ""));
        }
        let mut asking = Asking::begin(&place, addressees)?;
        let issued_ms = millis(SystemTime::now());
        let life = i64::try_from(self.deadline.as_millis()).unwrap_or(i64::MAX);
        let command = Command {
            version: VERSION,
            id: new_id(),
            issuer: issuer(),
            issued_ms,
            expires_ms: issued_ms.saturating_add(life),
            target: self.target.clone(),
            name: name.to_owned(),
            arguments: Value::Null,
            reply: Reply::Bus,
        };
        let payload = encoded(serde_json::to_vec(&command))?;
        asking.publish_command(&command.id, issued_ms, &payload, self.deadline)?;
        self.wait(&mut asking, &command.id, &format!("{name} of {}", self.target), output)
    }

    /// Whether the target means every worker of the sinks that it means.
    fn is_of_whole_sinks(&self) -> bool {
        matches!(self.target, Address::All | Address::Kind(_) | Address::Sink { worker: None, .. })
    }

    fn check(&self) -> Result<(), Failure> {
        if matches!(self.target, Address::Service { .. }) {
            return Err(Failure::could_not_look(
                "services are asked by `tallybus ctl send`, also to drain an instance: name workers here",
            ));
        }
        if self.deadline > LONGEST || self.deadline.is_zero() {
            return Err(Failure::could_not_look("--deadline: expected more than nothing and less than a day"));
        }
        Ok(())
    }

    fn wait(&self, asking: &mut Asking, id: &str, what: &str, output: &Output) -> Result<Verdict, Failure> {
        let report = asking.wait(id, self.wait, self.deadline, output)?;
        if output.json {
            output.report(&report.as_json(id, what).to_string())?;
        } else {
            for line in report.lines(what) {
                output.report(&line)?;
            }
        }
        Ok(report.verdict())
    }
}

fn verb(state: DesiredState) -> &'static str {
    match state {
        DesiredState::Running => "resume",
        DesiredState::Paused => "pause",
        DesiredState::Drained => "drain",
    }
}

fn encoded(record: serde_json::Result<Vec<u8>>) -> Result<Vec<u8>, Failure> {
    record.map_err(|error| Failure::failed(format!("cannot be written as JSON: {error}")))
}

fn no_addressee(target: &Address, else_what: &str) -> Failure {
    Failure::could_not_look(format!(
        "no worker runs that {target} means, as far as heartbeats on the bus tell: `tallybus ctl show` lists those that \
         run{else_what}"
    ))
}

/// Who asks, for people.
fn issuer() -> String {
    let variable = |name| std::env::var(name).ok().filter(|text: &String| !text.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "unknown".to_owned());
    let host = host_name();
    if host.is_empty() { user } else { format!("{user}@{host}") }
}
