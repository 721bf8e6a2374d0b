//! The one reader of the bus behind all browsers: what is asked of the bus does not grow with their number, and nothing is asked
//! while there are none.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tallybus_verify::live::{FailedLook, Picture, SinkPicture, Tick, WorkerReport};
use tokio::sync::watch;

use super::super::top::watch::{Looked, Watcher};

/// The bus is asked nothing more once no browser has been there for so long.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(60);
/// An answer of the bus is no longer current after three intervals, but not before this time.
const LEAST_CURRENT: Duration = Duration::from_secs(5);
/// The most looks that are kept of each sink, for its charts.
const MOST_POINTS: usize = 150;
/// The most of them of all sinks together.
const MOST_POINTS_IN_ALL: usize = 20_000;

/// What looks at the bus.
pub(super) trait Look {
    /// Looks once, and waits until the bus has answered or its client gives up.
    fn look(&mut self) -> Looked;
}

impl Look for Watcher {
    fn look(&mut self) -> Looked {
        Self::look(self)
    }
}

/// Begins to look.
pub(super) type Begin = Box<dyn Fn() -> Box<dyn Look> + Send>;

/// An answer of the bus.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) picture: Picture,
    /// What the workers said; `None` where it is not known.
    pub(super) reports: Option<Vec<WorkerReport>>,
    at: Instant,
}

/// A figure of a sink's chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// When the bus was looked at: milliseconds since the Unix epoch.
    pub(super) time_ms: i64,
    pub(super) lag: Option<f64>,
    pub(super) arriving: Option<f64>,
    pub(super) settled: Option<f64>,
}

/// The points of each sink's charts, oldest first.
pub(super) type Trails = BTreeMap<String, VecDeque<Point>>;

/// What is known of the bus. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    seen: Option<Arc<Seen>>,
    /// Since when the bus has not answered, in milliseconds since the Unix epoch, and what became of the last look.
    failing: Option<Arc<(i64, FailedLook)>>,
    trails: Arc<Trails>,
}

/// What may be shown.
#[derive(Debug)]
pub(super) enum Figures<'s> {
    /// The bus has not been asked, or has not answered yet.
    Awaited,
    /// It has never answered, since this time: milliseconds since the Unix epoch.
    Unanswered { since_ms: i64, error: &'s str },
    /// Its last answer.
    Current(&'s Seen),
    /// Its last answer, which is old: nothing has come since this time.
    Old { seen: &'s Seen, since_ms: i64, error: &'s str },
}

impl<'s> Figures<'s> {
    /// The last answer, current or old.
    pub(super) fn seen(&self) -> Option<&'s Seen> {
        match self {
            Self::Current(seen) | Self::Old { seen, .. } => Some(seen),
            Self::Awaited | Self::Unanswered { .. } => None,
        }
    }
}

impl Snapshot {
    /// What may be shown at `now`, where the bus is looked at every `interval`.
    pub(super) fn figures(&self, now: Instant, interval: Duration) -> Figures<'_> {
        match (self.seen.as_deref(), self.failing.as_deref()) {
            (None, None) => Figures::Awaited,
            (None, Some((since_ms, failed))) => Figures::Unanswered { since_ms: *since_ms, error: &failed.error },
            (Some(seen), Some((since_ms, failed))) => Figures::Old { seen, since_ms: *since_ms, error: &failed.error },
            (Some(seen), None) if now.saturating_duration_since(seen.at) > LEAST_CURRENT.max(interval * 3) => {
                Figures::Old { seen, since_ms: seen.picture.time_ms, error: "the last look at it has not ended yet" }
            }
            (Some(seen), None) => Figures::Current(seen),
        }
    }

    /// The last look, as `top --json` has it; `None` before the first one has ended.
    pub(super) fn tick(&self) -> Option<Tick> {
        match (&self.failing, &self.seen) {
            (Some(failing), _) => Some(Tick::Failed(failing.1.clone())),
            (None, Some(seen)) => Some(Tick::Seen(seen.picture.clone())),
            (None, None) => None,
        }
    }

    /// The points of a sink's charts.
    pub(super) fn trail(&self, sink: &str) -> impl Iterator<Item = &Point> {
        self.trails.get(sink).into_iter().flatten()
    }

    fn add(&mut self, looked: Looked) {
        let failed = match looked.tick {
            Tick::Seen(picture) => {
                self.follow(picture.time_ms, &picture.sinks);
                self.failing = None;
                self.seen = Some(Arc::new(Seen { picture, reports: looked.reports, at: Instant::now() }));
                return;
            }
            Tick::Failed(failed) => failed,
        };
        // What is not known is a gap in the charts.
        for trail in Arc::make_mut(&mut self.trails).values_mut() {
            trail.push_back(Point { time_ms: failed.time_ms, lag: None, arriving: None, settled: None });
            keep_last(trail, MOST_POINTS);
        }
        let since_ms = self.failing.as_ref().map_or(failed.time_ms, |failing| failing.0);
        self.failing = Some(Arc::new((since_ms, failed)));
    }

    fn follow(&mut self, time_ms: i64, sinks: &[SinkPicture]) {
        let most = (MOST_POINTS_IN_ALL / sinks.len().max(1)).min(MOST_POINTS);
        let trails = Arc::make_mut(&mut self.trails);
        trails.retain(|name, _| sinks.iter().any(|sink| sink.name == *name));
        for sink in sinks {
            let trail = trails.entry(sink.name.clone()).or_default();
            trail.push_back(Point {
                time_ms,
                lag: sink.lag_messages.map(|lag| lag as f64),
                arriving: sink.arriving_per_second,
                settled: sink.settled_per_second,
            });
            keep_last(trail, most);
        }
    }
}

fn keep_last(trail: &mut VecDeque<Point>, most: usize) {
    while trail.len() > most {
        trail.pop_front();
    }
}

/// Who wants looks.
#[derive(Debug, Default)]
struct Demand {
    state: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    /// Browsers that follow.
    followers: usize,
    /// When one last asked, or left.
    asked: Option<Instant>,
    is_over: bool,
}

impl Demand {
    fn state(&self) -> MutexGuard<'_, Wanted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        let mut state = self.state();
        change(&mut state);
        state.asked = Some(Instant::now());
        drop(state);
        self.changed.notify_all();
    }

    fn is_wanted(&self, idle_after: Duration) -> bool {
        self.state().wants(idle_after)
    }

    /// Waits for the first browser; returns `false` when none will come any more.
    fn wait(&self, idle_after: Duration) -> bool {
        let mut state = self.state();
        while !state.wants(idle_after) {
            if state.is_over {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}

impl Wanted {
    fn wants(&self, idle_after: Duration) -> bool {
        !self.is_over && (self.followers > 0 || self.asked.is_some_and(|asked| asked.elapsed() < idle_after))
    }
}

/// See the module. Dropping it ends the looks.
#[derive(Debug)]
pub(super) struct Looks {
    demand: Arc<Demand>,
    snapshots: watch::Receiver<Snapshot>,
    thread: JoinHandle<()>,
    interval: Duration,
}

/// A browser that follows, until dropped.
#[derive(Debug)]
pub(super) struct Follower {
    demand: Arc<Demand>,
    pub(super) snapshots: watch::Receiver<Snapshot>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.demand.change(|wanted| wanted.followers = wanted.followers.saturating_sub(1));
    }
}

impl Looks {
    /// Looks at every interval from the first browser on, until none has been there for `idle_after`.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn start(begin: Begin, interval: Duration, idle_after: Duration) -> std::io::Result<Self> {
        let demand = Arc::new(Demand::default());
        let (sender, snapshots) = watch::channel(Snapshot::default());
        let wanted = Arc::clone(&demand);
        let run = move || {
            while wanted.wait(idle_after) {
                let mut looking = begin();
                let mut snapshot = Snapshot::default();
                while wanted.is_wanted(idle_after) {
                    let due = Instant::now() + interval;
                    snapshot.add(looking.look());
                    sender.send_replace(snapshot.clone());
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                // What was seen is old for whoever comes next.
                sender.send_replace(Snapshot::default());
            }
        };
        let thread = thread::Builder::new().name("console-looks".to_owned()).spawn(run)?;
        Ok(Self { demand, snapshots, thread, interval })
    }

    /// How often the bus is looked at.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Whether its thread still runs.
    pub(super) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// A browser follows.
    pub(super) fn follow(&self) -> Follower {
        self.demand.change(|wanted| wanted.followers += 1);
        Follower { demand: Arc::clone(&self.demand), snapshots: self.snapshots.clone() }
    }

    /// The last look. Where there is none yet, waits for the first one, for this time at most.
    pub(super) async fn last(&self, at_most: Duration) -> Snapshot {
        self.demand.change(|_| {});
        let mut snapshots = self.snapshots.clone();
        let first = snapshots.wait_for(|snapshot| snapshot.tick().is_some());
        // Neither the time nor the end of the thread makes figures: what there is says that there are none.
        let _none_yet = tokio::time::timeout(at_most, first).await;
        self.snapshots.borrow().clone()
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.demand.change(|wanted| wanted.is_over = true);
    }
}

#[cfg(test)]
mod tests;
