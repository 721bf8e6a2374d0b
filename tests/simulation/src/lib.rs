//! Lives of workers in virtual time: services, one to three sinks of one to three workers each, backends and a bus, with faults
//! in the order of a seed, all on one thread. An oracle looks at every step and knows each event's fate.
//!
//! A life is its seed: [`live`] does the same whenever it is called with the same one.

mod events;
mod fault;
mod life;
mod oracle;
mod process;
mod shrink;
mod sinks;
mod strike;
mod time;
mod world;

pub use fault::{Fault, Plan};
pub use life::{Report, live, live_with, plan_of};
pub use shrink::shrink;
pub use tallybus_worker::simulation::Mutant;
