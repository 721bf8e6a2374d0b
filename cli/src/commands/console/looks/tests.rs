use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::*;

const SOON: Duration = Duration::from_secs(60);

/// Counts the looks, and how often it was begun to look; every look succeeds.
#[derive(Clone, Default)]
struct Counts {
    begun: Arc<AtomicU32>,
    looks: Arc<AtomicU32>,
}

impl Look for Counts {
    fn look(&mut self) -> Looked {
        let number = self.looks.fetch_add(1, Ordering::SeqCst);
        Looked { tick: seen(i64::from(number), 7), reports: None }
    }
}

fn seen(time_ms: i64, lag: u64) -> Tick {
    let sink = json!({ "name": "a", "kind": null, "group": "g", "state": "measuring", "why": "", "lag_messages": lag, "lag_seconds": null,
        "arriving_per_second": 1.0, "settled_per_second": null, "catch_up": "unknown", "sealed_batches": 0, "dead_letters": 0,
        "dead_letters_per_second": null, "workers": null, "retries": null, "partitions": [] });
    let picture = json!({ "version": 1, "time_ms": time_ms, "bus": "b", "sinks": [sink], "topics": [] });
    Tick::Seen(serde_json::from_value(picture).unwrap())
}

fn looks(counts: &Counts, idle_after: Duration) -> Looks {
    let counts = counts.clone();
    let begin: Begin = Box::new(move || {
        counts.begun.fetch_add(1, Ordering::SeqCst);
        Box::new(counts.clone())
    });
    Looks::start(begin, Duration::from_millis(10), idle_after).unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "{what} did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn every_browser_sees_the_same_look_and_many_ask_no_more_than_one() {
    let counts = Counts::default();
    let looks = looks(&counts, SOON);
    let mut followers: Vec<Follower> = (0..30).map(|_| looks.follow()).collect();
    for follower in &mut followers {
        follower.snapshots.wait_for(|snapshot| snapshot.tick().is_some_and(|tick| tick.time_ms() >= 5)).await.unwrap();
    }
    let last = looks.last(SOON).await.tick().unwrap();
    // One look for each tick, whatever the number of those who wait for it.
    let made = i64::from(counts.looks.load(Ordering::SeqCst));
    assert!(last.time_ms() < made && made - last.time_ms() < 100, "{made} looks, of which the last is {last:?}");
    assert_eq!(counts.begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nothing_is_asked_without_a_browser_and_again_when_one_comes_back() {
    let counts = Counts::default();
    let looks = looks(&counts, Duration::from_millis(100));
    assert_eq!(counts.begun.load(Ordering::SeqCst), 0, "nobody is there");
    let follower = looks.follow();
    eventually("the first looks", || counts.looks.load(Ordering::SeqCst) > 3);
    drop(follower);
    // The figures are dropped with the looks, so that nothing old is shown to the next browser.
    eventually("the end of the looks", || looks.snapshots.borrow().tick().is_none());
    let before = counts.looks.load(Ordering::SeqCst);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(counts.looks.load(Ordering::SeqCst), before);
    assert!(looks.last(SOON).await.tick().is_some_and(|tick| tick.time_ms() >= i64::from(before)));
    assert_eq!(counts.begun.load(Ordering::SeqCst), 2);
}

#[test]
fn figures_are_old_from_the_first_failure_on_and_current_again_after_the_next_answer() {
    let interval = Duration::from_secs(1);
    let mut snapshot = Snapshot::default();
    assert!(matches!(snapshot.figures(Instant::now(), interval), Figures::Awaited));
    let failed = |time_ms| Looked { tick: Tick::failed(time_ms, "away"), reports: None };
    snapshot.add(failed(1));
    snapshot.add(failed(2));
    assert!(matches!(snapshot.figures(Instant::now(), interval), Figures::Unanswered { since_ms: 1, error: "away" }));
    snapshot.add(Looked { tick: seen(3, 7), reports: None });
    assert!(matches!(snapshot.figures(Instant::now(), interval), Figures::Current(seen) if seen.picture.time_ms == 3));
    // A look that hangs is no answer either.
    let late = Instant::now() + LEAST_CURRENT + Duration::from_millis(1);
    assert!(matches!(snapshot.figures(late, interval), Figures::Old { since_ms: 3, .. }));
    assert!(matches!(snapshot.figures(late, Duration::from_secs(2)), Figures::Current(_)));
    snapshot.add(failed(4));
    snapshot.add(failed(5));
    assert!(matches!(snapshot.figures(Instant::now(), interval), Figures::Old { since_ms: 4, error: "away", .. }));
    assert_eq!(snapshot.tick(), Some(Tick::failed(5, "away")));
    snapshot.add(Looked { tick: seen(6, 8), reports: None });
    assert_eq!(snapshot.tick(), Some(seen(6, 8)));
    let lags: Vec<(i64, Option<f64>)> = snapshot.trail("a").map(|point| (point.time_ms, point.lag)).collect();
    assert_eq!(lags, [(3, Some(7.0)), (4, None), (5, None), (6, Some(8.0))], "a gap where nothing is known");
}

#[test]
fn the_points_of_charts_are_bounded_and_those_of_a_sink_that_is_gone_are_dropped() {
    let mut snapshot = Snapshot::default();
    for time_ms in (0..).take(MOST_POINTS + 20) {
        snapshot.add(Looked { tick: seen(time_ms, 1), reports: None });
    }
    assert_eq!(snapshot.trail("a").count(), MOST_POINTS);
    assert_eq!(snapshot.trail("a").next().map(|point| point.time_ms), Some(20));
    let Tick::Seen(picture) = seen(0, 0) else { panic!("not a picture") };
    snapshot.add(Looked { tick: Tick::Seen(Picture { sinks: Vec::new(), ..picture }), reports: None });
    assert_eq!(snapshot.trail("a").count(), 0);
}
