//! The task in hand, and the thread that does it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use tallybus_bus::TopicPartition;
use tallybus_control::Command;

use super::super::answerer::Answered;
use super::super::handlers::{Handlers, Request};
use super::super::listener::spawn;
use super::super::outbox::Done;
use super::orders::Orders;

/// What has happened to the task in hand.
pub(super) enum Happened {
    /// Its handler has ended: it is to be answered.
    Ended {
        /// The task.
        command: Box<Command>,
        /// With what.
        answered: Answered,
    },
    /// Its answer is on the bus, or will never be: it is to be committed.
    Answered {
        /// Its partition.
        at: TopicPartition,
        /// Its offset.
        offset: u64,
    },
}

enum Signal {
    Ended(Box<Command>, Result<serde_json::Value, String>),
    Answered,
}

/// Where the task in hand is on the bus.
struct Place {
    at: TopicPartition,
    offset: u64,
    again: bool,
    /// The partition is another member's: the task is answered, and not committed.
    is_disowned: bool,
}

/// See the module.
pub(super) struct Hand {
    names: Vec<String>,
    place: Option<Place>,
    to_do: Sender<(Box<Command>, bool)>,
    signal: Sender<Signal>,
    signals: Receiver<Signal>,
    orders: Arc<Orders>,
}

impl Hand {
    /// Starts the thread.
    pub(super) fn start(mut tasks: Handlers, orders: Orders, alive: Sender<()>) -> io::Result<Self> {
        let (to_do, jobs) = channel::<(Box<Command>, bool)>();
        let (signal, signals) = channel();
        let (ended, waking) = (signal.clone(), orders.clone());
        let names = tasks.names();
        spawn("tallybus-task", alive, move || {
            while let Ok((command, again)) = jobs.recv() {
                let result = tasks.run(&Request::of(&command, again));
                if ended.send(Signal::Ended(command, result)).is_err() {
                    return;
                }
                waking.wake();
            }
        })?;
        Ok(Self { names, place: None, to_do, signal, signals, orders: Arc::new(orders) })
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.place.is_none()
    }

    /// The partition of the task in hand, where it is still this instance's.
    pub(super) fn at(&self) -> Option<&TopicPartition> {
        self.place.as_ref().filter(|place| !place.is_disowned).map(|place| &place.at)
    }

    /// Begins a task. Only for an empty hand.
    pub(super) fn begin(&mut self, at: TopicPartition, offset: u64, command: Command, again: bool) {
        self.place = Some(Place { at, offset, again, is_disowned: false });
        // The thread ends when this does.
        let _sent = self.to_do.send((Box::new(command), again));
    }

    /// Partitions for which this holds are another member's from now on.
    pub(super) fn disown(&mut self, is_lost: impl Fn(&TopicPartition) -> bool) {
        if let Some(place) = &mut self.place {
            place.is_disowned |= is_lost(&place.at);
        }
    }

    /// What gets to know that the answer is on the bus.
    pub(super) fn answered(&self) -> Done {
        let (signal, orders) = (self.signal.clone(), Arc::clone(&self.orders));
        Box::new(move |_| {
            let _ended = signal.send(Signal::Answered);
            orders.wake();
        })
    }

    pub(super) fn next_event(&mut self) -> Option<Happened> {
        loop {
            match self.signals.try_recv().ok()? {
                Signal::Ended(command, result) => {
                    let again = self.place.as_ref().is_some_and(|place| place.again);
                    return Some(Happened::Ended { command, answered: Answered::of(result, again) });
                }
                Signal::Answered => match self.place.take() {
                    Some(place) if !place.is_disowned => {
                        return Some(Happened::Answered { at: place.at, offset: place.offset });
                    }
                    _ => {}
                },
            }
        }
    }
}
