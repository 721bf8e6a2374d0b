//! Callbacks: answers that go to a URL by POST, as Standard Webhooks has it (<https://www.standardwebhooks.com>).
//!
//! # Where a callback may go
//! Only to an origin of the [`AllowList`], which comes from the settings, never from a command. The name is resolved once for each
//! attempt, and the address that was judged is the one that is connected to. An address that is not public (private, loopback,
//! link-local, unique-local, carrier-grade NAT, multicast, IPv4-mapped) is connected to only where its network is listed too.
//! Redirects are not followed, and no proxy is used, whatever the environment says.
//!
//! # How it is delivered
//! Any status of 200 to 299 ends it well; 410 ends it badly at once; everything else is a failed attempt, which is repeated after
//! growing waits, or after what `Retry-After` asks for, until [`CallbackSettings::give_up_after`]. Then the caller gets it back. The
//! id is the same in each attempt, so that a receiver can tell a repeated callback. Nothing of a response is read but its status
//! and `Retry-After`; nothing of it is logged but its status.
//!
//! Callbacks that are under way are held in memory: at most 1,000 of them and 16 MB.

mod allow;
mod attempt;
mod body;
mod resolve;
mod schedule;
mod sender;

pub use allow::{AllowError, AllowList, UrlRefusal};
pub use attempt::FailedAttempt;
pub use resolve::{Resolve, SystemResolver};
pub use schedule::Schedule;
pub use sender::{CallbackCounts, CallbackSettings, Callbacks, OnUndelivered, Undelivered};

/// What is posted to a URL.
#[derive(Clone, PartialEq)]
pub struct Callback {
    /// Names it in the header `webhook-id`: the same in each attempt, another one for each callback. No dot.
    pub id: String,
    /// Where to. May hold a secret in its path or query: it is not shown.
    pub url: String,
    /// The `type` of the body: what happened, such as `tallybus.answer`.
    pub event: String,
    /// The `data` of the body.
    pub data: serde_json::Value,
}

impl std::fmt::Debug for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callback").field("id", &self.id).field("event", &self.event).finish_non_exhaustive()
    }
}
