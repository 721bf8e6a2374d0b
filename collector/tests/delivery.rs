//! Every count arrives exactly once, whatever the bus does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use support::{FakeBus, Fate, turn};
use tallybus::{Builder, Guard, InitError, count, counter};
use tallybus_schemas::Series;
use tallybus_tests::Rng;

const SOON: Duration = Duration::from_secs(60);

fn builder() -> Builder {
    tallybus::builder().service("test").instance("one").flush_interval(Duration::from_millis(10))
}

fn start(bus: &FakeBus) -> Guard {
    builder().start(bus.connection()).unwrap()
}

/// Shuts down and expects everything to have been delivered.
fn finish(guard: Guard) -> tallybus::Report {
    let report = guard.shutdown(SOON);
    assert!(report.is_complete(), "{report}");
    assert_eq!((report.undelivered, report.unknown), (0, 0));
    report
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < until, "waited too long");
        thread::sleep(Duration::from_millis(2));
    }
}

fn tags(series: &Series) -> Vec<(&str, &str)> {
    series.tags().iter().map(|(key, value)| (&**key, &**value)).collect()
}

#[test]
fn every_form_of_the_macro_counts_what_it_says() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(3);
    let guard = builder().service("").instance("").start(bus.connection()).unwrap();
    let (route, name, small, big) = (String::from("/v1"), String::from("form.dynamic"), 3u8, 1u64 << 40);
    // Names that the macro's own items might shadow.
    const KEYS: u64 = 5;
    const SITE: &str = "site";
    count!("form.plain");
    count!("form.plain", 2);
    count!("form.plain", 0x10u32,);
    count!("form.plain", KEYS);
    count!("form.plain", small);
    count!("form.plain", small + 1);
    count!("form.plain", u64::from(small) * 2);
    count!("form.plain", 0);
    count!("form.never", 0);
    count!("form.static", type = "x", "http.status" = 200, ok = true, c = 'é', n = -1);
    count!("form.static", 2, n = -1, c = 'é', ok = true, "http.status" = 200, type = "x",);
    count!("form.tags", route = route);
    count!("form.tags", big, route = &route);
    count!("form.tags", small, route = route.as_str());
    count!("form.tags", route = SITE, status = small);
    count!("form.tags", 7, status = u16::from(small), route = format!("/{}", 1));
    count!("form.tags", route = "", status = None::<u8>);
    count!(name);
    count!(&name, 3);
    count!(name.as_str(), KEYS, route = route);
    count!(format!("form.{}", 1), route = 1);
    let handle = counter!("form.handle", route = route);
    handle.add(4);
    thread::spawn(move || handle.increment()).join().unwrap();
    counter!("form.handle", route = "/v1").increment();
    counter!(name, route = "/v1").increment();
    assert_eq!(counter!("form.handle"), counter!("form.handle"));
    assert!(guard.flush(SOON));
    finish(guard);

    let expected = [
        ("form.1", vec![("route", "1")], 1),
        ("form.dynamic", vec![], 4),
        ("form.dynamic", vec![("route", "/v1")], 6),
        ("form.handle", vec![("route", "/v1")], 6),
        ("form.plain", vec![], 1 + 2 + 16 + 5 + 3 + 4 + 6),
        ("form.static", vec![("c", "é"), ("http.status", "200"), ("n", "-1"), ("ok", "true"), ("type", "x")], 3),
        ("form.tags", vec![], 1),
        ("form.tags", vec![("route", "/1"), ("status", "3")], 7),
        ("form.tags", vec![("route", "/v1")], 1 + (1 << 40) + 3),
        ("form.tags", vec![("route", "site"), ("status", "3")], 1),
    ];
    let totals = bus.totals();
    let found: Vec<_> = totals
        .iter()
        .filter(|(series, _)| series.name().starts_with("form."))
        .map(|(series, total)| (series.name(), tags(series), *total))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn service_and_instance_are_added_and_a_calls_own_tag_wins() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(2);
    let guard = builder().tag("zone", "a").start(bus.connection()).unwrap();
    count!("common", service = "mine");
    count!("common", zone = "b", a = 1);
    finish(guard);
    let totals = bus.totals();
    let found: Vec<_> = totals.keys().filter(|series| series.name() == "common").map(tags).collect();
    assert_eq!(
        found,
        [
            vec![("a", "1"), ("instance", "one"), ("service", "test"), ("zone", "b")],
            vec![("instance", "one"), ("service", "mine"), ("zone", "a")],
        ]
    );
}

#[test]
fn counts_from_before_the_start_are_delivered() {
    let _turn = turn();
    count!("before.start", 5);
    thread::spawn(|| count!("before.start", 6, k = "v")).join().unwrap();
    let bus = FakeBus::with_partitions(2);
    finish(start(&bus));
    assert_eq!(bus.total("before.start"), 11);
}

#[test]
fn a_thousand_threads_come_and_go() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(4);
    let guard = start(&bus);
    for wave in 0..20u64 {
        let threads: Vec<_> = (0..50u64)
            .map(|thread| {
                thread::spawn(move || {
                    for number in 0..200u64 {
                        count!("threads.static");
                        count!("threads.tagged", 2, n = (number + thread) % 17, wave = wave);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    let report = finish(guard);
    assert_eq!(bus.total("threads.static"), 1_000 * 200);
    assert_eq!(bus.total("threads.tagged"), 1_000 * 200 * 2);
    assert!(report.messages > 1);
}

#[test]
fn counting_from_the_destructor_of_a_thread_local() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            count!("late.static");
            count!("late.tagged", 3, k = String::from("v"));
        }
    }
    thread_local! { static LATE: Late = const { Late }; }
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    let guard = start(&bus);
    for first in [true, false] {
        for _ in 0..10 {
            thread::spawn(move || {
                if first {
                    LATE.with(|_| ());
                }
                count!("late.static");
                count!("late.tagged", k = String::from("v"));
                LATE.with(|_| ());
            })
            .join()
            .unwrap();
        }
    }
    finish(guard);
    assert_eq!(bus.total("late.static"), 40);
    assert_eq!(bus.total("late.tagged"), 80);
}

#[test]
fn a_bus_that_is_away_and_comes_back() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(3);
    let guard = start(&bus);
    count!("away");
    assert!(guard.flush(SOON));
    bus.broker().away = true;
    for number in 0..30_000u64 {
        count!("away", n = number % 500);
        if number % 1_000 == 0 {
            thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(!guard.flush(Duration::from_millis(50)));
    // One message for each partition waits in the client, everything else in the counters.
    assert!(bus.broker().most_in_flight <= 3);
    let stats = guard.stats();
    assert!(stats.waiting > 20_000 && stats.in_flight > 0, "{stats:?}");
    bus.broker().away = false;
    assert!(guard.flush(SOON));
    finish(guard);
    assert_eq!(bus.total("away"), 30_001);
}

#[test]
fn a_topic_that_comes_later() {
    let _turn = turn();
    let bus = FakeBus::default();
    let guard = builder().use_existing_topic().start(bus.connection()).unwrap();
    count!("topic.later", 7);
    assert!(!guard.flush(Duration::from_millis(60)));
    assert_eq!(guard.stats().in_flight, 0);
    bus.broker().partitions = Some(2);
    assert!(guard.flush(SOON));
    count!("topic.later", 1);
    finish(guard);
    assert_eq!(bus.total("topic.later"), 8);
    assert!(bus.broker().created.is_empty());
}

#[test]
fn a_topic_that_does_not_exist_is_created_unless_told_otherwise() {
    let _turn = turn();
    let bus = FakeBus::default();
    let guard = start(&bus);
    count!("topic.default", 7);
    finish(guard);
    assert_eq!(bus.broker().created, [("tallybus.counters".to_owned(), 4)]);
    assert_eq!(bus.total("topic.default"), 7);
}

#[test]
fn a_topic_is_created_when_asked_for() {
    let _turn = turn();
    let bus = FakeBus::default();
    bus.broker().away = true;
    let guard = builder().topic("t").create_topic(5).start(bus.connection()).unwrap();
    count!("topic.created");
    assert!(!guard.flush(Duration::from_millis(30)));
    bus.broker().away = false;
    assert!(guard.flush(SOON));
    finish(guard);
    assert_eq!(bus.broker().created, [("t".to_owned(), 5)]);
    // Another number of partitions than asked for is no reason to lose counts.
    let guard = builder().topic("t").create_topic(7).start(bus.connection()).unwrap();
    count!("topic.created");
    finish(guard);
    assert_eq!(bus.total("topic.created"), 2);
}

#[test]
fn partitions_that_are_added_later() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    let guard = start(&bus);
    let all = |value: u64| (0..100u64).for_each(|n| count!("partitions.added", value, n = n));
    all(1);
    finish(guard);
    bus.broker().partitions = Some(4);
    let guard = start(&bus);
    all(2);
    finish(guard);
    assert_eq!(bus.total("partitions.added"), 300);
    assert!((1..4).all(|partition| bus.broker().log.iter().any(|message| message.0 == partition)));
}

#[test]
fn refused_messages_give_their_counts_back() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(2);
    bus.broker().fates = [Fate::Refused, Fate::Taken, Fate::QueueFull, Fate::Refused, Fate::Taken].repeat(2).into();
    let guard = start(&bus);
    for number in 0..2_000u64 {
        count!("refused", n = number % 50);
        if number % 100 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    wait_until(|| {
        guard.flush(SOON) && bus.broker().fates.is_empty() || {
            count!("refused.more");
            false
        }
    });
    let stats = guard.stats();
    finish(guard);
    assert_eq!(stats.give_backs, 4);
    assert_eq!(stats.flush_errors, 6);
    assert_eq!(bus.total("refused"), 2_000);
}

#[test]
fn messages_too_large_are_halved() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    bus.broker().max_bytes = Some(8_000);
    let guard = start(&bus);
    for number in 0..3_000u64 {
        count!("large", n = number, text = "a value of some length, and more of it");
    }
    let report = finish(guard);
    assert_eq!(bus.total("large"), 3_000);
    assert!(report.messages > 5);
    assert!(bus.broker().log.iter().all(|(_, payload)| payload.len() <= 8_000));
}

#[test]
fn a_lost_answer_is_reported_and_nothing_is_sent_twice() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    finish(start(&bus));
    bus.broker().fates = [Fate::Unknown].into();
    let guard = start(&bus);
    count!("lost.answer", 7);
    guard.flush(SOON);
    count!("lost.answer", 2);
    let report = guard.shutdown(SOON);
    assert_eq!((report.emitted, report.delivered, report.unknown, report.undelivered), (9, 2, 7, 0));
    assert!(!report.is_complete());
    assert_eq!(bus.total("lost.answer"), 9);
}

#[test]
fn a_client_that_failed_for_good_is_replaced() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(3);
    bus.broker().fates = [Fate::Taken, Fate::Fatal].into();
    let guard = start(&bus);
    for n in 0..50u64 {
        count!("fatal", n = n);
    }
    let report = finish(guard);
    assert!(report.messages >= 3);
    assert_eq!(bus.total("fatal"), 50);
    assert_eq!(bus.broker().publishers, 2);
}

#[test]
fn what_a_shutdown_could_not_deliver_waits_for_the_next_collector() {
    let _turn = turn();
    let bus = FakeBus::default();
    finish(start(&FakeBus::with_partitions(1)));
    let guard = builder().use_existing_topic().start(bus.connection()).unwrap();
    count!("leftover", 10);
    let begun = Instant::now();
    let report = guard.shutdown(Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!((report.emitted, report.delivered, report.undelivered, report.unknown), (10, 0, 10, 0));
    assert_eq!(
        report.to_string(),
        "emitted 10, delivered 0 in 0 messages, undelivered 10; last error: topic \"tallybus.counters\" does not exist"
    );
    count!("leftover", 1);
    bus.broker().partitions = Some(2);
    let report = finish(start(&bus));
    assert_eq!((report.emitted, report.before_start), (11, 11));
    assert_eq!(bus.total("leftover"), 11);
}

#[test]
fn a_message_under_way_at_the_deadline_is_unknown() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    finish(start(&bus));
    bus.broker().away = true;
    let guard = start(&bus);
    count!("under.way", 4);
    wait_until(|| guard.stats().in_flight == 4);
    count!("under.way", 5);
    let report = guard.shutdown(Duration::from_millis(50));
    assert_eq!((report.emitted, report.delivered, report.undelivered, report.unknown), (9, 0, 5, 4));
    bus.broker().away = false;
    assert_eq!(finish(start(&bus)).emitted, 5);
}

#[test]
fn a_bus_that_blocks_does_not_hold_up_a_shutdown() {
    let _turn = turn();
    let bus = FakeBus::default();
    bus.broker().blocks = Duration::from_millis(1_500);
    let guard = builder().create_topic(1).start(bus.connection()).unwrap();
    count!("blocked", 3);
    wait_until(|| bus.broker().is_blocked);
    let begun = Instant::now();
    let report = guard.shutdown(Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_millis(1_000), "{:?}", begun.elapsed());
    assert!(report.undelivered >= 3);
    // The thread that is held up still has the counters; a second one would send them twice.
    assert!(matches!(builder().start(bus.connection()), Err(InitError::Running)));
    wait_until(|| match builder().start(bus.connection()) {
        Ok(guard) => {
            finish(guard);
            true
        }
        Err(_) => false,
    });
    assert_eq!(bus.total("blocked"), 3);
}

#[test]
fn a_bus_that_panics_ends_the_collector_and_nothing_else() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    bus.broker().panics = true;
    let guard = start(&bus);
    count!("panicked", 2);
    wait_until(|| !guard.flush(Duration::from_millis(20)));
    let report = guard.shutdown(SOON);
    // Whether the panicking call published anything is anybody's guess.
    assert_eq!((report.emitted, report.delivered, report.unknown), (2, 0, 2));
    count!("panicked", 1);
    bus.broker().panics = false;
    assert_eq!(finish(start(&bus)).delivered, 1);
}

#[test]
fn one_collector_at_a_time() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    let guard = start(&bus);
    assert!(matches!(builder().start(bus.connection()), Err(InitError::Running)));
    drop(guard);
    let bad = builder().flush_interval(Duration::ZERO).start(bus.connection());
    assert!(matches!(bad, Err(InitError::Setting { name: "flush_interval", .. })));
    finish(start(&bus));
}

#[test]
fn dropping_the_guard_delivers() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(2);
    bus.broker().ack_after = Duration::from_millis(50);
    let guard = builder().flush_interval(Duration::from_secs(600)).start(bus.connection()).unwrap();
    count!("dropped", 12);
    drop(guard);
    assert_eq!(bus.total("dropped"), 12);
}

#[test]
fn a_flush_does_not_wait_for_the_interval() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(2);
    let guard = builder().flush_interval(Duration::from_secs(600)).start(bus.connection()).unwrap();
    for round in 1..=20 {
        count!("flushed");
        assert!(guard.flush(SOON));
        assert_eq!(bus.total("flushed"), round);
    }
    finish(guard);
}

#[test]
fn self_metrics_are_published_when_asked_for() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    bus.broker().fates = [Fate::Refused].into();
    let guard = builder().self_metrics(true).start(bus.connection()).unwrap();
    count!("own");
    wait_until(|| bus.total("tallybus.collector.messages") >= 2);
    finish(guard);
    assert_eq!(bus.total("tallybus.collector.give_backs"), 1);
    assert_eq!(bus.total("own"), 1);
}

#[test]
fn text_that_no_series_can_have_is_changed_to_fit() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    let guard = builder().service("").instance("").start(bus.connection()).unwrap();
    let before = guard.stats().sanitised;
    let (empty, long) = (String::new(), "x".repeat(5_000));
    for _ in 0..10 {
        count!(empty.as_str());
        count!(format!("hostile\n{}", 1), k = "v");
        count!("hostile", k = "a\tb", "l" = long, e = empty);
        count!(long.as_str());
        counter!("hostile", k = "\0").increment();
    }
    let stats = guard.stats();
    assert!(stats.sanitised >= before + 5, "{stats:?}");
    finish(guard);
    assert_eq!(bus.total("unnamed"), 10);
    assert_eq!(bus.total("hostile_1"), 10);
    assert_eq!(bus.total(&"x".repeat(512)), 10);
    let totals = bus.totals();
    let hostile: Vec<_> = totals.iter().filter(|(series, _)| series.name() == "hostile").collect();
    assert_eq!(hostile.len(), 2);
    assert_eq!(tags(hostile[0].0), [("k", "_")]);
    assert_eq!(tags(hostile[1].0), [("k", "a_b"), ("l", "x".repeat(1_024).as_str())]);
}

/// What was logged so far.
fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static ONCE: Once = Once::new();
    struct Writer;
    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LOG.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    ONCE.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Writer).init());
    &LOG
}

#[test]
fn too_many_series_are_counted_together() {
    let _turn = turn();
    let log = log();
    let bus = FakeBus::with_partitions(2);
    let guard = start(&bus);
    let series = usize::try_from(guard.stats().series).unwrap();
    finish(guard);
    let cap = series + 200;
    let guard = builder().max_series(cap).start(bus.connection()).unwrap();
    thread::scope(|scope| {
        for thread in 0..2u64 {
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                for _ in 0..50_000 {
                    count!("overflow", user_id = rng.number(), region = rng.below(3));
                    count!("overflow.static");
                }
            });
        }
    });
    let late = counter!("overflow", user_id = "new");
    late.add(5);
    assert_eq!(late, counter!("overflow", user_id = "newer"));
    // New names still have a series each, for themselves.
    for name in 0..2_000 {
        count!(format!("overflow.name.{name}"));
    }
    let stats = guard.stats();
    assert!(stats.series <= cap as u64 + 1_001, "{stats:?}");
    assert!(stats.overflowed > 99_000, "{stats:?}");
    finish(guard);
    assert_eq!(bus.total("overflow"), 100_005);
    assert_eq!(bus.total("overflow.static"), 100_000);
    let totals = bus.totals();
    let limit = format!("max_series={cap}");
    let of = |name: &str| totals.iter().filter(|(series, _)| series.name() == name).collect::<Vec<_>>();
    assert!(of("overflow").len() <= 201);
    let together: Vec<_> =
        of("overflow").into_iter().filter(|(series, _)| series.tag("tallybus.overflow") == Some(&*limit)).collect();
    assert_eq!(together.len(), 1);
    assert!(*together[0].1 > 99_000);
    assert_eq!(of("overflow.name.0").len(), 1);
    let names: u64 =
        totals.iter().filter(|(s, _)| s.name().starts_with("overflow.name.")).map(|(_, total)| total).sum();
    assert_eq!(names + bus.total("tallybus.overflow"), 2_000);

    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("new series of `overflow` ")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("tag `user_id` of `overflow` has 1"), "{}", lines[0]);
}

/// Threads count at random while the bus does its worst; the tally they keep must be what arrives.
#[test]
fn random_counts_on_a_random_bus() {
    let _turn = turn();
    let seed = std::env::var("TALLYBUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    println!("TALLYBUS_SEED={seed}");
    let bus = FakeBus::with_partitions(5);
    let guard = start(&bus);
    let tallies: Vec<BTreeMap<(String, u64, u64), u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                scope.spawn(move || {
                    let mut rng = Rng::new(seed ^ (thread << 32));
                    let mut tally = BTreeMap::new();
                    for number in 0..50_000 {
                        let (name, a, b) = (rng.below(5), rng.below(20), rng.below(7));
                        let value = rng.below(1 << 20);
                        let name = format!("random.{name}");
                        match number % 3 {
                            0 => count!(name, value, a = a, b = b),
                            1 => count!(name.as_str(), value, b = b.to_string(), a = a.to_string().as_str()),
                            _ => counter!(&name, a = a, b = b).add(value),
                        }
                        *tally.entry((name, a, b)).or_insert(0) += value;
                    }
                    tally
                })
            })
            .collect();
        let mut rng = Rng::new(seed);
        for _ in 0..60 {
            let mut broker = bus.broker();
            broker.away = rng.below(4) == 0;
            broker.ack_after = Duration::from_millis(rng.below(8));
            let fate = [Fate::Taken, Fate::Refused, Fate::QueueFull][usize::try_from(rng.below(3)).unwrap()];
            broker.fates.push_back(fate);
            drop(broker);
            thread::sleep(Duration::from_millis(3));
        }
        bus.broker().away = false;
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    finish(guard);
    let mut expected = BTreeMap::new();
    for ((name, a, b), value) in tallies.into_iter().flatten().filter(|(_, value)| *value > 0) {
        *expected.entry((name, a.to_string(), b.to_string())).or_insert(0) += value;
    }
    let totals = bus.totals();
    let found: BTreeMap<_, _> = totals
        .iter()
        .filter(|(series, _)| series.name().starts_with("random."))
        .map(|(series, total)| {
            let tag = |key| series.tag(key).unwrap().to_owned();
            ((series.name().to_owned(), tag("a"), tag("b")), *total)
        })
        .collect();
    assert_eq!(found, expected);
}

#[cfg(feature = "metrics")]
#[test]
fn the_recorder_carries_counters_and_nothing_else() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(2);
    tallybus::recorder::install().unwrap();
    tallybus::recorder::install().unwrap_err();
    let guard = builder().service("").instance("").start(bus.connection()).unwrap();
    for _ in 0..3 {
        metrics::counter!("facade.plain").increment(2);
        metrics::counter!("facade.tags", "b" => "2", "a" => "1").increment(1);
        metrics::counter!("facade.tags", "a" => "1", "b" => "2").increment(1);
    }
    for value in [10, 7, 15] {
        metrics::counter!("facade.absolute", "x" => "y").absolute(value);
        metrics::counter!("facade.both", "a" => "1", "b" => "2").absolute(value);
        metrics::counter!("facade.both", "b" => "2", "a" => "1").absolute(value);
    }
    metrics::gauge!("facade.gauge").set(1.0);
    metrics::histogram!("facade.histogram").record(1.0);
    finish(guard);
    let totals = bus.totals();
    let found: Vec<_> = totals
        .iter()
        .filter(|(series, _)| series.name().starts_with("facade."))
        .map(|(series, total)| (series.name(), tags(series), *total))
        .collect();
    assert_eq!(
        found,
        [
            ("facade.absolute", vec![("x", "y")], 15),
            ("facade.both", vec![("a", "1"), ("b", "2")], 15),
            ("facade.plain", vec![], 6),
            ("facade.tags", vec![("a", "1"), ("b", "2")], 6),
        ]
    );
}
