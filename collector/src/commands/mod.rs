//! Commands: what a service does when it is asked over the bus.
//!
//! ```no_run
//! use tallybus::commands::Commands;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let guard = tallybus::init("kafka://127.0.0.1:9092", "orders")?;
//! let commands = Commands::new()
//!     .allow_unsigned()
//!     .on("rotate-keys", |request| {
//!         tracing::info!(issuer = request.issuer, "rotating keys");
//!         Ok::<_, String>("rotated")
//!     })
//!     .on_task("resize", |request| match request.arguments["width"].as_u64() {
//!         Some(width) => Ok(width * 2),
//!         None => Err("`width` is missing"),
//!     });
//! guard.serve(commands)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Patterns
//! | pattern | who does it | how often |
//! |---|---|---|
//! | request/reply | one instance, by its address `service/NAME@INSTANCE` | at most once |
//! | broadcast | each instance that runs | at most once each |
//! | worker pool | one instance of the service | at least once; an answer says where it may have been twice |
//!
//! `tallybus ctl send` and [`ask`](crate::ask) send them.
//!
//! # Guarantees
//! - Counting is never disturbed: commands have threads of their own, and wait for nothing that counting needs. Commands are done
//!   one after the other, and so are tasks; the two do not wait for each other.
//! - A handler that panics is answered as failed; the next command is done all the same.
//! - A command that has expired is not begun, nor is one that was taken before.
//! - A task is committed to the consumer group after its handler has ended and its answer is on the bus. An instance that ends,
//!   or hangs, before that leaves it to another one, whose answer has [`again`](Request::again) set. An instance that has to give
//!   its partitions up waits for the task in hand for a minute; a task that takes longer may be done twice.
//! - `ctl drain service/NAME@INSTANCE` takes an instance out of the pool while it keeps running and answering commands;
//!   `ctl resume` brings it back. It is answered when the task in hand has ended and the partitions are released. A restart begins
//!   inside the pool.

mod answerer;
mod attached;
mod clock;
mod counts;
mod executor;
mod handlers;
mod listener;
mod outbox;
mod pool;
mod presence;
mod reading;
mod settings;
mod topics;

pub use serde_json::Value;
pub use tallybus_control::{Key, KeyError, Signed};

pub(crate) use self::attached::Attached;
pub(crate) use self::clock::{millis_now, random_id};
pub use self::counts::CommandCounts;
pub use self::handlers::Request;
pub use self::settings::{Commands, CommandsError};
pub(crate) use self::topics::{Topics, headers_of, signed_of};

/// Where answers may be posted, and how.
#[cfg(feature = "callbacks")]
pub mod callbacks {
    pub use tallybus_control::callback::{AllowError, AllowList, CallbackCounts, CallbackSettings, Schedule};
}
