mod bus;
mod checks;
mod disk;
mod retention;
mod rights;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tallybus_bus::{Bus, BusError, Observer};
use tallybus_sdk::progress::ProgressError;
use tallybus_sdk::{DeliveryGuarantee, Sink, SinkError, Tried};
use tallybus_worker::settings::{Role, Settings, SinkSettings, shared_destinations};
use tallybus_worker::{DestinationError, disagreements};
use tokio::runtime::Handle;

use self::bus::look_at_bus;
use self::checks::{Checks, Finding};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::count_of;
use crate::waiting::waiting;
use crate::{Global, config, control};

/// A sink that does not answer within this time counts as unavailable.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);
/// Creating a table may take a while.
const FIX_TIMEOUT: Duration = Duration::from_secs(180);
/// An earlier time means that the clock was never set: 2024-01-01.
const EARLIEST: jiff::Timestamp = jiff::Timestamp::constant(1_704_067_200, 0);

/// Check everything that can be wrong before the first message moves.
///
/// It checks settings, bus, topics, groups, backends, the clock, and the rights of this login on Kafka, and creates nothing
/// without --fix. A `note` is
/// neither a success nor a failure: nothing has to be done now. Exit status 0: no check failed, 1: a check failed, 2: the
/// settings cannot be read.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Check only the settings; connect to nothing.
    #[arg(long)]
    offline: bool,
    /// First create what the backends are missing: databases, tables, buckets. Changes nothing that exists.
    #[arg(long, conflicts_with = "offline")]
    fix: bool,
    /// Only this sink; repeatable.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    /// Check the rights of this role, as `tallybus acl` prints them. For producer, topics and operator, nothing of the sinks
    /// is checked.
    #[arg(long, value_name = "ROLE", default_value = "worker", value_parser = super::acl::role_parser())]
    role: Role,
}

impl Doctor {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let mut checks = Checks::new(output);
        let settings = match config::load_for(global, &self.sinks) {
            Ok(settings) => settings,
            Err(Failure::Settings { source, problems }) if output.json => {
                for problem in &problems {
                    checks.add(&format!("settings {}", problem.path), Err(problem.message.clone()))?;
                }
                checks.finish()?;
                return Err(Failure::Settings { source, problems });
            }
            Err(failure) => return Err(failure),
        };
        let chosen = crate::selection::select(&settings, &self.sinks)?;
        let sinks: Vec<&str> = chosen.iter().map(|sink| sink.name.as_str()).collect();
        let names = if sinks.is_empty() { String::new() } else { format!(": {}", sinks.join(", ")) };
        checks.add("settings", Ok(format!("{}{names}", count_of(sinks.len() as u64, "sink"))))?;
        let shared = shared_destinations(&settings.sinks);
        if !shared.is_empty() {
            checks.add("destinations", Err(shared.join("; ")))?;
        }
        checks.add("clock", clock())?;
        if !self.offline {
            self.look(&settings, &chosen, &mut checks)?;
        }
        checks.finish()
    }

    fn look(&self, settings: &Settings, sinks: &[&SinkSettings], checks: &mut Checks<'_>) -> Result<(), Failure> {
        let runtime = super::start_runtime()?;
        let of_sinks = if self.looks_at_sinks() { sinks } else { &[] };
        // `None` when the bus cannot be read: then what depends on it is not checked.
        let observer = match config::open_bus(settings) {
            Ok(bus) => {
                let observer = look_at_bus(bus.as_ref(), settings, of_sinks, checks)?;
                if let Some(observer) = &observer {
                    rights::check(observer.as_ref(), settings, sinks, self.role, checks)?;
                    look_at_control(&bus, settings, of_sinks, checks)?;
                }
                disk::check_bus(&settings.bus.address, checks)?;
                observer
            }
            Err(Failure::CouldNotLook(error)) => {
                checks.add("bus", no_bus(&error))?;
                None
            }
            Err(failure) => return Err(failure),
        };
        for sink in of_sinks {
            let what = format!("the backend of the sink {}", sink.name);
            let check = || check_sink(sink, self.fix, observer.as_deref(), runtime.handle());
            let (finding, directory) = waiting(checks.output(), &what, check);
            checks.add(&format!("sink {}", sink.name), finding)?;
            if let Some(reason) = sink.make().ok().and_then(|sink| sink.unencrypted()) {
                checks.add(&format!("encryption of {}", sink.name), Finding::Note(reason))?;
            }
            if let Some(directory) = directory {
                disk::check_space(&directory, checks)?;
            }
        }
        Ok(())
    }

    /// Producers and who creates topics have nothing to do with backends and groups.
    fn looks_at_sinks(&self) -> bool {
        !matches!(self.role, Role::Producer | Role::Topics | Role::Operator)
    }
}

/// A sink that operators want paused or drained does not write, which is no fault of it.
fn look_at_control(
    bus: &Arc<dyn Bus>,
    settings: &Settings,
    sinks: &[&SinkSettings],
    checks: &mut Checks<'_>,
) -> Result<(), Failure> {
    for sink in sinks {
        let finding = match control::rest_of(settings, bus, sink) {
            Ok(None) => continue,
            Ok(Some(rest)) => format!("{} {}; `tallybus ctl resume` ends that", rest.state.name(), rest.why()),
            Err(Failure::CouldNotLook(error)) => format!("whether it shall run is not known: {error:#}"),
            Err(failure) => return Err(failure),
        };
        checks.add(&format!("control of {}", sink.name), Finding::Note(finding))?;
    }
    Ok(())
}

/// A bus that the first command that writes to it creates is no fault.
fn no_bus(error: &anyhow::Error) -> Finding {
    match error.downcast_ref() {
        Some(BusError::NoBus(missing)) => {
            Finding::Note(format!("{missing}; the first `tallybus emit` or `tallybus run` creates it"))
        }
        _ => Finding::Fault(format!("{error:#}")),
    }
}

/// What is found of a sink, and the directory of this machine that it writes into.
fn check_sink(
    settings: &SinkSettings,
    fix: bool,
    observer: Option<&dyn Observer>,
    runtime: &Handle,
) -> (Result<String, String>, Option<PathBuf>) {
    let sink = match settings.make() {
        Ok(sink) => sink,
        Err(error) => return (Err(error.to_string()), None),
    };
    let outcome = runtime.block_on(async {
        let outcome = check_backend(&sink, fix).await;
        let outcome = match (outcome, observer) {
            (Ok(tried), Some(observer)) => check_destination(observer, settings, sink.as_ref()).await.map(|()| tried),
            (outcome, _) => outcome,
        };
        sink.close().await;
        outcome
    });
    let promise = promise(sink.delivery_guarantee());
    let finding = outcome.map(|tried| format!("{}, {promise}{}", settings.kind.name, not_tried(tried)));
    (finding, sink.directory())
}

async fn check_backend(sink: &Arc<dyn Sink>, fix: bool) -> Result<Tried, String> {
    if fix && let Some(admin) = sink.admin() {
        within(FIX_TIMEOUT, admin.fix()).await.map_err(|reason| format!("cannot be fixed: {reason}"))?;
    }
    within(CHECK_TIMEOUT, sink.check()).await?;
    match sink.admin() {
        Some(admin) => within(CHECK_TIMEOUT, admin.try_access()).await,
        None => Ok(Tried::Nothing),
    }
}

/// What `ok` does not cover.
fn not_tried(tried: Tried) -> &'static str {
    match tried {
        Tried::WritingAndReading => "",
        Tried::Reading => "; writing was not tried",
        Tried::Writing => "; reading was not tried",
        Tried::Nothing => "; writing and reading were not tried",
    }
}

/// Whether a worker would halt, or is halted, because the destination contradicts its group.
async fn check_destination(observer: &dyn Observer, settings: &SinkSettings, sink: &dyn Sink) -> Result<(), String> {
    match tokio::time::timeout(CHECK_TIMEOUT, disagreements(observer, settings, sink)).await {
        Ok(Ok(reasons)) if reasons.is_empty() => Ok(()),
        Ok(Ok(reasons)) => Err(format!("halted: {}", reasons.join("; "))),
        Ok(Err(DestinationError::Bus(ProgressError::Bus(BusError::NoTopic(_))))) => Ok(()),
        // A worker does not begin at an offset that it cannot use.
        Ok(Err(DestinationError::Bus(error @ ProgressError::Seal { .. }))) => Err(format!("halted: {error}")),
        Ok(Err(error)) => Err(format!("whether it is halted is unknown: {error}")),
        Err(_) => Err(format!("whether it is halted is unknown: no answer within {} s", CHECK_TIMEOUT.as_secs())),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, SinkError>>) -> Result<T, String> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s: is the address right?", limit.as_secs())),
    }
}

/// The delivery guarantee of the sink with its current settings.
fn promise(delivery_guarantee: DeliveryGuarantee) -> String {
    match delivery_guarantee {
        DeliveryGuarantee::ExactlyOnce => delivery_guarantee.to_string(),
        DeliveryGuarantee::AtLeastOnce => format!(
            "{delivery_guarantee}: no data is lost, but a batch that is sent again (after a lost answer or a crash) \
             may count twice"
        ),
    }
}

fn clock() -> Result<String, String> {
    let now = jiff::Timestamp::now();
    if now < EARLIEST {
        return Err("the clock is not set, so events get wrong times: set it, or run an NTP client".to_owned());
    }
    Ok(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
