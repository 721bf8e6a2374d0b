//! A worker's process: its connection to the bus, and a runtime of its own, so that a frozen process does nothing at all.

use std::sync::Arc;

use anyhow::Result;
use tallybus_bus::sim::SimBus;
use tallybus_sdk::Sink;
use tallybus_sdk::clock::ManualClock;
use tallybus_worker::{Worker, WorkerOptions};
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
}

impl Process {
    pub(crate) fn start(
        sink: usize,
        bus: &SimBus,
        connection: Arc<dyn Sink>,
        options: WorkerOptions,
        time: &ManualClock,
    ) -> Result<Self> {
        let runtime = Arc::new(Builder::new_current_thread().build()?);
        let bus = Arc::new(bus.connect());
        let clock = Arc::new(ProcessClock::new(time.clone(), &runtime));
        let handle = runtime.handle().clone();
        let worker = Worker::with_clock(bus.clone(), connection, handle, options, clock)?;
        Ok(Self { sink, bus, worker, runtime, frozen_until: None, cut_off_until: None })
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
        format!("sink {}: {:?}, last error {:?}", self.sink, status.partitions, status.last_error)
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
