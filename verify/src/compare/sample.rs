//! A result with everything that one can have, for tests.

use std::collections::BTreeMap;

use super::{
    AnswerCheck, Aspect, CompareResult, Completeness, Environment, Known, Latency, Method, Mode, ProbeMethod,
    QuestionResult, RESULT_KIND, RateStep, Round, SCHEMA_VERSION, Sample, Share, SinkResult, Span, Spread,
    StorageTaken, Summary, Total, UsageFigure, Workload, noise_floor, rankings,
};

/// A figure that was measured five times, with an interval of 10 % on both sides.
pub(super) fn about(median: f64) -> Known<Summary> {
    Known::Is(Summary { median, low: median * 0.9, high: median * 1.1, n: 5 })
}

pub(super) fn result() -> CompareResult {
    let sinks = vec![sink("a", 1_000.0), control("a", 1_050.0), incomplete("b")];
    let noise = noise_floor(&sinks);
    CompareResult {
        kind: RESULT_KIND.to_owned(),
        schema_version: SCHEMA_VERSION,
        started: "2026-01-31T12:00:00Z".to_owned(),
        seconds: 62.5,
        environment: Environment {
            tallybus: "1.2.3".to_owned(),
            host: Known::Is("host".to_owned()),
            system: Known::Is("Linux 6.1".to_owned()),
            cpu: Known::unknown("no /proc/cpuinfo"),
            cpus: Known::Is(2),
            memory: Known::Is(8 << 30),
        },
        method: Method {
            mode: Mode::Shadow,
            seed: 7,
            fingerprint: "0123456789abcdef".to_owned(),
            rounds: 5,
            warm_up_rounds: 1,
            order: vec![vec!["a".to_owned(), "b".to_owned()]],
            asked: 5,
            probes: Known::Is(ProbeMethod {
                series: "tallybus.compare.probe".to_owned(),
                rate: 10.0,
                seconds: 30.0,
                sent: 300,
                late: 1,
                latest: 0.2,
                background_rate: 1_000.0,
                background_reached: Known::Is(999.5),
            }),
        },
        workload: Workload {
            bus: "kafka".to_owned(),
            spans: vec![Span { topic: "tallybus.counters".to_owned(), partition: 0, first: 5, end: 1_005 }],
            messages: 1_000,
            bytes: Known::Is(250_000),
            events: 100_000,
            total: Total(u128::MAX),
            series: Known::Is(40),
            undecodable: 0,
            oldest: Known::Is("2026-01-31T11:00:00Z".to_owned()),
            newest: Known::unknown("no events"),
        },
        rankings: rankings(&sinks, &noise),
        sinks,
        noise,
        timeline: vec![Sample {
            seconds: 1.0,
            sink: "a".to_owned(),
            settled: Known::Is(50),
            lag: Known::Is(3),
            visible: Known::unknown("not asked"),
        }],
        notes: vec![
            "sink c took no part: sinks of kind http cannot be given a destination of the comparison's own".to_owned(),
        ],
    }
}

pub(super) fn completeness(missing: u128) -> Completeness {
    Completeness {
        is_complete: missing == 0,
        verdicts: vec![if missing == 0 { "equal" } else { "differs" }.to_owned()],
        expected: Total(1_000),
        held: Total(1_000 - missing),
        missing: Total(missing),
        extra: Total(0),
        behind: 0,
        dead_letters: 0,
        dead_total: Total(0),
        foreign_points: 0,
        differing_series: u64::from(missing > 0),
        differing_windows: u64::from(missing > 0),
        round: Some(2),
    }
}

fn round(number: u64) -> Round {
    Round {
        number,
        seconds: Known::Is(2.5),
        events: 100_000,
        events_per_second: Known::Is(40_000.0),
        batches: 20,
        writes: 21,
        points: 4_000,
        write_seconds: Known::Is(Spread { p50: 0.01, p99: 0.02, max: 0.03 }),
        write_points: Known::Is(Spread { p50: 200.0, p99: 250.0, max: 300.0 }),
        retries: 1,
        splits: 0,
        rejections: 0,
        halts: 0,
        requests: Known::Is(21.0),
        bytes: Known::unknown("the sink does not count them"),
        usage: vec![
            UsageFigure { what: "requests".to_owned(), amount: 20.0 + number as f64 },
            UsageFigure { what: "write units".to_owned(), amount: 400.0 },
        ],
        storage: Known::Is(1 << 20),
    }
}

fn question(name: &str, answer: AnswerCheck) -> QuestionResult {
    let is_right = answer == AnswerCheck::Right;
    QuestionResult {
        name: name.to_owned(),
        asked: format!("{name} of requests"),
        answer,
        first: if is_right { Known::Is(0.2) } else { Known::unknown("not answered") },
        later_runs: if is_right { vec![0.1, 0.1, 0.1, 0.1] } else { Vec::new() },
        later: if is_right { about(0.1) } else { Known::unknown("not answered") },
    }
}

/// With every aspect, larger by `scale`.
fn sink(name: &str, scale: f64) -> SinkResult {
    let why = || "because".to_owned();
    SinkResult {
        name: name.to_owned(),
        control_of: None,
        kind: "dynamodb".to_owned(),
        destination: Known::Is(format!("DynamoDB table {name}")),
        version: Known::unknown("a service has none"),
        delivery_guarantee: Known::Is("exactly once".to_owned()),
        window_nanos: Known::Is(1_000_000_000),
        fingerprint: "fedcba9876543210".to_owned(),
        completeness: Known::Is(completeness(0)),
        rounds: (1..=5).map(round).collect(),
        summaries: Aspect::ALL.into_iter().map(|aspect| (aspect, about(scale))).collect(),
        latency: Known::Is(Latency {
            n: 299,
            never_seen: 1,
            p50: 1.0,
            p90: 1.1,
            p99: 1.2,
            p999: 1.3,
            max: 1.4,
            resolution: 0.05,
            distribution: vec![Share { value: 1.0, cumulative: 0.5 }, Share { value: 1.4, cumulative: 1.0 }],
        }),
        rate_steps: Known::Is(vec![RateStep { intended: 100.0, reached: 99.0, lag_growth: -0.1, grows: false }]),
        settled_rate: Known::Is(1_000.0),
        questions: vec![
            question("total_by_tag", AnswerCheck::Right),
            question("top_series", AnswerCheck::NotOffered { why: why() }),
            question("series_by_minute", AnswerCheck::Wrong { why: why() }),
            question("series_count", AnswerCheck::Failed { why: why() }),
        ],
        storage: Known::Is(StorageTaken { bytes: 1 << 20, what: "the table".to_owned() }),
        notes: vec!["a note".to_owned()],
    }
}

fn control(of: &str, scale: f64) -> SinkResult {
    SinkResult { control_of: Some(of.to_owned()), ..sink(&format!("{of} (control)"), scale) }
}

fn incomplete(name: &str) -> SinkResult {
    let summaries = BTreeMap::from([(Aspect::CatchUpRate, Known::unknown("too few rounds"))]);
    SinkResult {
        completeness: Known::Is(completeness(3)),
        summaries,
        storage: Known::unknown("not offered"),
        ..sink(name, 1.0)
    }
}
