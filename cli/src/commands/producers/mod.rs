mod dismiss;
mod list;

use std::sync::Arc;

use clap::{Args, Subcommand};
use tallybus_bus::Bus;
use tallybus_verify::producers::{Producer, ProducersTopic};
use tallybus_worker::settings::names;

use self::dismiss::Dismiss;
use self::list::List;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::waiting::waiting_for_bus;
use crate::{Global, config};

/// Show the services that count, and up to which time everything that each has counted is on the bus.
///
/// A service says so itself every ten seconds, on the topic `tallybus.producers`; programs that write no checkpoints are not shown.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Producers {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    Dismiss(Dismiss),
}

impl Producers {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        match &self.action {
            None => self.list.run(global, output),
            Some(Action::Dismiss(command)) => command.run(global, output),
        }
    }
}

/// The bus, the topic's name, and what is on it.
struct Opened {
    bus: Arc<dyn Bus>,
    topic: String,
    read: ProducersTopic,
}

fn open(global: &Global, output: &Output) -> Result<Opened, Failure> {
    let settings = config::load_without_secrets(global)?;
    let bus = config::open_bus(&settings)?;
    let topic = names::producers_topic(&settings.bus.namespace);
    let mut read = ProducersTopic::new(Arc::clone(&bus), &topic);
    waiting_for_bus(output, bus.as_ref(), || bus.observer().and_then(|observer| read.refresh(observer.as_ref())))?;
    Ok(Opened { bus, topic, read })
}

/// The first digits of a producer's id, by which it is named.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// A producer for a line of text.
pub(crate) fn name(service: &str, instance: &str, id: &str) -> String {
    match service {
        "" => short(id).to_owned(),
        service => format!("{service}/{instance} ({})", short(id)),
    }
}

fn name_of(id: &str, producer: &Producer) -> String {
    match producer.checkpoint() {
        Some(checkpoint) => name(&checkpoint.service, &checkpoint.instance, id),
        None => short(id).to_owned(),
    }
}
