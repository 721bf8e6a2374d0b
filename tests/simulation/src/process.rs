//! A worker's process: its connection to the bus, and a runtime of its own, so that a frozen process does nothing at all.

use std::sync::Arc;

use anyhow::Result;
use tallybus_bus::sim::SimBus;
use tallybus_control::{Address, Desired, DesiredState, VERSION};
use tallybus_sdk::Sink;
use tallybus_sdk::clock::ManualClock;
use tallybus_worker::{Duty, Rest, RestProgress, SettledPartition, Wanted, Worker, WorkerOptions};
use tokio::runtime::{Builder, Runtime};

use crate::time::{ProcessClock, run_tasks};

pub(crate) struct Process {
    /// Which sink's worker it is.
    pub(crate) sink: usize,
    pub(crate) bus: Arc<SimBus>,
    worker: Worker,
    runtime: Arc<Runtime>,
    /// Until which step it is frozen.
    pub(crate) frozen_until: Option<u32>,
    /// Until which step it is cut off.
    pub(crate) cut_off_until: Option<u32>,
    /// Until which step it is to be paused or drained by itself.
    pub(crate) rests_until: Option<u32>,
    /// Whether it has said that it is drained.
    was_drained: bool,
}

impl Process {
    pub(crate) fn start(
        sink: usize,
        bus: &SimBus,
        connection: Arc<dyn Sink>,
        options: WorkerOptions,
        time: &ManualClock,
        rest: Option<DesiredState>,
    ) -> Result<Self> {
        let runtime = Arc::new(Builder::new_current_thread().build()?);
        let bus = Arc::new(bus.connect());
        let clock = Arc::new(ProcessClock::new(time.clone(), &runtime));
        let handle = runtime.handle().clone();
        let worker = match rest {
            None => Worker::with_clock(bus.clone(), connection, handle, options, clock)?,
            Some(_) => Worker::controlled(bus.clone(), connection, handle, options, clock)?,
        };
        let process = Self {
            sink,
            bus,
            worker,
            runtime,
            frozen_until: None,
            cut_off_until: None,
            rests_until: None,
            was_drained: false,
        };
        process.want(rest);
        Ok(process)
    }

    /// An operator wants it in this state; `None` for running.
    pub(crate) fn want(&self, rest: Option<DesiredState>) {
        let desired = rest.map(|state| Desired {
            version: VERSION,
            id: state.name().to_owned(),
            issuer: "operator".to_owned(),
            issued_ms: 0,
            target: Address::All,
            state,
            reason: String::new(),
        });
        self.worker.handle().want(Wanted::Known(desired));
    }

    /// What it says since it is drained, when it is; and whether it says so for the first time.
    pub(crate) fn drained(&mut self) -> Option<(Vec<SettledPartition>, bool)> {
        let duty = self.worker.handle().status().duty;
        let is_first = duty.is_drained() && !self.was_drained;
        self.was_drained = duty.is_drained();
        match duty {
            Duty::Resting(Rest { progress: RestProgress::Settled(said), .. }) if self.was_drained => {
                Some((said, is_first))
            }
            _ => None,
        }
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen_until.is_some()
    }

    /// One iteration of the worker, and so many turns of its tasks.
    ///
    /// # Errors
    /// The worker has ended.
    pub(crate) fn step(&mut self, turns: Option<u32>) -> Result<()> {
        run_tasks(&self.runtime, turns);
        self.worker.step()?;
        Ok(())
    }

    /// Why it needs an operator.
    pub(crate) fn halts(&self) -> Vec<String> {
        self.worker.handle().status().halts()
    }

    pub(crate) fn summary(&self) -> String {
        let status = self.worker.handle().status();
        let (partitions, error, duty) = (status.partitions, status.last_error, status.duty);
        format!("sink {}: {partitions:?}, last error {error:?}, {duty:?}", self.sink)
    }

    /// It dies: no final commit, no goodbye.
    pub(crate) fn kill(self) {
        self.bus.kill();
        drop(self.worker);
    }

    /// It ends in good order.
    pub(crate) fn end(self) {
        self.worker.end();
        // Its process is gone, whether the bus has heard its goodbye or not.
        self.bus.kill();
    }
}
