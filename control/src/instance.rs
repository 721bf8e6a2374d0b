//! The instances of services: what each says of itself on `tallybus.control`, and which of them live.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{Identity, MAX_RECORD, VERSION};

/// How often an instance publishes its status.
pub const INSTANCE_HEARTBEAT: Duration = Duration::from_secs(2);
/// An instance whose last heartbeat is older than this is silent: it has missed five.
pub const INSTANCE_SILENT_AFTER: Duration = Duration::from_secs(10);

/// Before the service, in the key of an instance's status.
const PREFIX: &str = "service/";
/// The most instances that are kept; of more, those that were silent longest are left out.
const MAX_INSTANCES: usize = 10_000;

/// The status of an instance of a service, keyed by [`instance_key`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The service's name.
    pub service: String,
    /// The instance's id.
    pub instance: String,
    /// The host that it runs on; empty where it is unknown.
    #[serde(default)]
    pub host: String,
    /// Its process id on that host.
    #[serde(default)]
    pub pid: u32,
    /// The version of Tallybus that it was built with.
    #[serde(default)]
    pub build: String,
    /// Whether it runs.
    pub state: InstanceState,
    /// Whether it takes tasks.
    pub pool: PoolState,
    /// The names of the commands that it has registered.
    #[serde(default)]
    pub commands: Vec<String>,
    /// The names of the tasks that it has registered.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// When it started: milliseconds since the Unix epoch, by its own clock.
    pub started_ms: i64,
    /// When this was written, by the same clock.
    pub time_ms: i64,
}

/// Whether an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// It reads commands.
    Running,
    /// It has stopped reading commands: its last status.
    Left,
}

/// Whether an instance takes tasks of its service's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// It has registered no task.
    None,
    /// It takes tasks, or will as soon as the bus gives it partitions.
    In,
    /// It ends the task in hand, and takes no other.
    Draining,
    /// It takes none, and has given its partitions to others.
    Out,
}

/// The key of an instance's status. No worker process has such an id.
pub fn instance_key(service: &str, instance: &str) -> String {
    format!("{PREFIX}{service}/{instance}")
}

/// Whether a record of the control topic is the status of a service's instance, by its key.
pub fn is_instance(key: &[u8]) -> bool {
    key.starts_with(PREFIX.as_bytes())
}

impl InstanceStatus {
    /// Who it is.
    pub fn identity(&self) -> Identity {
        Identity::Service { service: self.service.clone(), instance: self.instance.clone() }
    }
}

/// The last status of each instance. What is no status of a known version is refused, and what is kept is bounded.
#[derive(Debug, Default)]
pub struct Instances(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    status: InstanceStatus,
    /// When it was new, by this host's monotonic clock.
    since: Instant,
}

impl Instances {
    /// Takes a record for which [`is_instance`] holds. `payload` is `None` for a tombstone; `since`: when the record was new.
    /// Returns whether it was a status of a known version.
    pub fn take(&mut self, key: &[u8], payload: Option<&[u8]>, since: Instant) -> bool {
        let Ok(key) = std::str::from_utf8(key) else { return false };
        let Some(payload) = payload else {
            self.0.remove(key);
            return true;
        };
        let Some(status) = parse(payload).filter(|status| instance_key(&status.service, &status.instance) == key)
        else {
            return false;
        };
        self.0.insert(key.to_owned(), Seen { status, since });
        if self.0.len() > MAX_INSTANCES {
            let oldest = self.0.iter().min_by_key(|(_, seen)| seen.since).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        true
    }

    /// Every instance that is kept, with the age of its last status; texts are as they came.
    pub fn all(&self, now: Instant) -> impl Iterator<Item = (&InstanceStatus, Duration)> {
        self.0.values().map(move |seen| (&seen.status, now.saturating_duration_since(seen.since)))
    }

    /// Those that run, by a heartbeat that is recent.
    pub fn live(&self, now: Instant) -> impl Iterator<Item = &InstanceStatus> {
        let is_live = |(status, age): &(&InstanceStatus, Duration)| {
            status.state == InstanceState::Running && *age < INSTANCE_SILENT_AFTER
        };
        self.all(now).filter(is_live).map(|(status, _)| status)
    }
}

fn parse(payload: &[u8]) -> Option<InstanceStatus> {
    if payload.len() > MAX_RECORD {
        return None;
    }
    serde_json::from_slice(payload).ok().filter(|status: &InstanceStatus| status.version == VERSION)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(instance: &str) -> serde_json::Value {
        json!({ "version": 1, "service": "orders", "instance": instance, "state": "running", "pool": "in",
            "started_ms": 1, "time_ms": 2, "of a later version": true })
    }

    fn take(instances: &mut Instances, instance: &str, status: &serde_json::Value, since: Instant) -> bool {
        instances.take(instance_key("orders", instance).as_bytes(), Some(status.to_string().as_bytes()), since)
    }

    #[test]
    fn an_instance_lives_while_its_heartbeat_is_recent_and_it_has_not_left() {
        let (mut instances, now) = (Instances::default(), Instant::now());
        for instance in ["a", "b", "c"] {
            assert!(take(&mut instances, instance, &status(instance), now));
        }
        let mut left = status("b");
        left["state"] = json!("left");
        assert!(take(&mut instances, "b", &left, now));
        assert!(instances.take(b"service/orders/c", None, now));
        let live = |after| -> Vec<String> {
            instances.live(now + Duration::from_secs(after)).map(|status| status.identity().to_string()).collect()
        };
        assert_eq!(live(9), ["service/orders@a"]);
        assert_eq!(live(10), [""; 0]);
        assert_eq!(instances.all(now).count(), 2);
    }

    #[test]
    fn what_is_no_status_of_a_known_version_under_its_own_key_is_refused() {
        let (mut instances, now) = (Instances::default(), Instant::now());
        assert!(!take(&mut instances, "b", &status("a"), now));
        let mut newer = status("a");
        newer["version"] = json!(2);
        assert!(!take(&mut instances, "a", &newer, now));
        for payload in [&b""[..], b"{}", b"\xff", &[b'['; 100_000]] {
            assert!(!instances.take(b"service/orders/a", Some(payload), now));
        }
        assert!(!instances.take(b"service/\xff", Some(b"{}"), now));
        assert_eq!(instances.all(now).count(), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_longest_silent_go_first() {
        let (mut instances, now) = (Instances::default(), Instant::now());
        for number in 0..MAX_INSTANCES + 2 {
            let instance = format!("{number:05}");
            assert!(take(&mut instances, &instance, &status(&instance), now + Duration::from_millis(number as u64)));
        }
        assert_eq!(instances.all(now).count(), MAX_INSTANCES);
        assert_eq!(instances.all(now).next().map(|(status, _)| status.instance.as_str()), Some("00002"));
    }
}
