use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Bus, TopicOptions, read_topic};

use super::*;

fn schedule(rate: f64, count: u64) -> Schedule {
    Schedule { began: Instant::now(), wall: 1_700_000_000_000_000_000, rate, count }
}

#[test]
fn a_stall_counts_for_every_probe_that_was_due_in_it() {
    // Ten probes a second for ten seconds; the backend answers within 50 ms, but shows nothing from second 4 to second 7.
    let schedule = schedule(10.0, 100);
    let mut seen = Seen::new(100);
    for tick in 0..2_000_u64 {
        let answered = schedule.began + Duration::from_millis(tick * 10);
        let due = answered.saturating_duration_since(schedule.began).saturating_sub(Duration::from_millis(50));
        let is_stalled = (4_000..7_000).contains(&(tick * 10));
        if !is_stalled {
            let visible = u64::try_from(due.as_millis() / 100).unwrap() + u64::from(tick >= 5);
            seen.take(visible, answered, &schedule);
        }
        seen.intervals.push(0.01);
    }
    let Known::Is(latency) = seen.latency(100) else { panic!("known") };
    assert_eq!((latency.n, latency.never_seen), (100, 0));
    assert!(latency.p50 < 0.07 && latency.p99 > 2.8 && latency.max > 2.9, "{latency:?}");
    // A third of the probes were due in the stall: their mean wait is half of it.
    let slow = latency.distribution.iter().find(|share| share.value > 1.5).unwrap();
    assert!((0.8..0.9).contains(&slow.cumulative), "{slow:?}");
    let Known::Is(p99) = seen.summary(0.99, 100, 1) else { panic!("known") };
    assert!(p99.high > 2.0 && p99.median < 3.0, "{p99:?}");
}

#[test]
fn the_first_probe_is_found_where_its_time_is_rounded_down() {
    let wall = 1_700_000_003_000_400_700;
    // By InfluxDB's sink without windows, and by windows of a second and of a minute.
    for (window, held) in [
        (0, 1_700_000_003_000_000_000),
        (1_000_000_000, 1_700_000_003_000_000_000),
        (60_000_000_000, 1_699_999_980_000_000_000),
    ] {
        let range = TimeRange { from: Some(earliest(wall, window)), to: None };
        assert!(range.contains(held) && range.contains(wall), "{window}");
    }
}

#[test]
fn probes_that_were_never_seen_are_counted_and_not_ranked() {
    let schedule = schedule(10.0, 10);
    let mut seen = Seen::new(10);
    seen.take(7, schedule.began + Duration::from_secs(1), &schedule);
    let Known::Is(latency) = seen.latency(10) else { panic!("known") };
    assert_eq!((latency.n, latency.never_seen), (7, 3));
    assert_eq!(seen.summary(0.5, 10, 1).reason(), Some("3 of 10 probes were never seen"));
    let none = Seen { failure: Some("refused".to_owned()), ..Seen::new(10) };
    assert_eq!(none.latency(10).reason(), Some("no probe was seen: refused"));
}

#[test]
fn an_answer_that_goes_back_or_beyond_the_last_probe_changes_nothing() {
    let schedule = schedule(10.0, 10);
    let mut seen = Seen::new(10);
    seen.take(5, schedule.began, &schedule);
    seen.take(3, schedule.began, &schedule);
    seen.take(1_000, schedule.began, &schedule);
    assert_eq!((seen.visible, seen.whole.unwrap().count()), (10, 10));
}

#[test]
fn probes_are_sent_on_time_each_once_with_the_time_at_which_they_were_due() {
    let dir = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(&dir.path().join("bus.db")).unwrap();
    bus.create_topic("t", &TopicOptions::new(2)).unwrap();
    let background = Background {
        topic: "t".to_owned(),
        partition: 1,
        key: None,
        headers: Vec::new(),
        payload: b"x".to_vec(),
        events: 10,
    };
    let schedule = schedule(50.0, 25);
    let mut publisher = bus.publisher().unwrap();
    let stop = AtomicBool::new(false);
    let slips = send(publisher.as_mut(), "t", &schedule, &[background], 1_000.0, &stop).unwrap();
    assert_eq!(slips.sent, 25);
    assert!(slips.took >= Duration::from_millis(480), "{slips:?}");
    assert!((400..=520).contains(&slips.background_events), "{slips:?}");
    let (mut probes, mut others) = (Vec::new(), 0);
    let observer = bus.observer().unwrap();
    read_topic(&bus, observer.as_ref(), "t", Duration::from_secs(5), &mut |record| match record.partition {
        0 => probes.push(String::from_utf8(record.payload.to_vec()).unwrap()),
        _ => others += 1,
    })
    .unwrap();
    assert_eq!(others * 10, slips.background_events);
    assert_eq!(probes.len(), 25);
    assert_eq!(probes[5], r#"{"name":"tallybus.probe","value":1,"ts":1700000000100000000}"#);
}
