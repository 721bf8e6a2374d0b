use std::collections::BTreeMap;

use tallybus_verify::compare::{
    Aspect, Completeness, Environment, Latency, Method, RESULT_KIND, SCHEMA_VERSION, Share, Summary, Total, Workload,
    noise_floor, rankings,
};

use super::*;

const HOSTILE: &str = "<script>alert(1)</script>";

fn summary(median: f64) -> Known<Summary> {
    Known::Is(Summary { median, low: median * 0.95, high: median * 1.05, n: 5 })
}

fn sink(name: &str, control_of: Option<&str>, missing: u128, rate: f64, seconds: f64) -> SinkResult {
    let completeness = Completeness {
        is_complete: missing == 0,
        verdicts: vec![if missing == 0 { "equal" } else { "missing" }.to_owned()],
        expected: Total(1_000_000),
        held: Total(1_000_000 - missing),
        missing: Total(missing),
        extra: Total(0),
        behind: 0,
        dead_letters: 0,
        dead_total: Total(0),
        foreign_points: 0,
        differing_series: 0,
        differing_windows: 0,
        round: Some(2),
    };
    let latency = Latency {
        n: 300,
        never_seen: 0,
        p50: seconds / 2.0,
        p90: seconds,
        p99: seconds,
        p999: seconds,
        max: seconds,
        resolution: 0.02,
        distribution: vec![Share { value: seconds / 2.0, cumulative: 0.5 }, Share { value: seconds, cumulative: 1.0 }],
    };
    SinkResult {
        name: name.to_owned(),
        control_of: control_of.map(str::to_owned),
        kind: "sqlite".to_owned(),
        destination: Known::Is("d".to_owned()),
        version: Known::Is("3.50".to_owned()),
        delivery_guarantee: Known::Is("exactly once".to_owned()),
        window_nanos: Known::Is(1_000_000_000),
        fingerprint: "f".to_owned(),
        completeness: Known::Is(completeness),
        rounds: Vec::new(),
        summaries: BTreeMap::from([
            (Aspect::CatchUpRate, summary(rate)),
            (Aspect::FreshnessP99, summary(seconds)),
            (Aspect::StoragePerEvent, Known::unknown("the backend does not say")),
        ]),
        latency: Known::Is(latency),
        rate_steps: Known::unknown("not asked for"),
        settled_rate: Known::unknown("not watched"),
        questions: Vec::new(),
        storage: Known::unknown("the backend does not say"),
        notes: Vec::new(),
    }
}

fn result(sinks: Vec<SinkResult>) -> CompareResult {
    let noise = noise_floor(&sinks);
    let rankings = rankings(&sinks, &noise);
    let at = |seconds, lag| {
        let name = sinks.first().map_or(String::new(), |sink| sink.name.clone());
        Sample { seconds, sink: name, settled: Known::Is(1), lag, visible: Known::Is(1) }
    };
    let timeline =
        vec![at(1.0, Known::Is(4)), at(2.0, Known::unknown("the bus did not answer")), at(3.0, Known::Is(0))];
    CompareResult {
        kind: RESULT_KIND.to_owned(),
        schema_version: SCHEMA_VERSION,
        started: "2026-01-01T00:00:00Z".to_owned(),
        seconds: 61.5,
        environment: Environment {
            tallybus: "1.2.3".to_owned(),
            host: Known::Is("h".to_owned()),
            system: Known::Is("Linux".to_owned()),
            cpu: Known::unknown("no /proc/cpuinfo"),
            cpus: Known::Is(2),
            memory: Known::Is(1 << 34),
        },
        method: Method {
            mode: Mode::Shadow,
            seed: 7,
            fingerprint: "f".to_owned(),
            rounds: 5,
            warm_up_rounds: 1,
            order: Vec::new(),
            asked: 5,
            probes: Known::unknown("--probe-time 0s"),
        },
        workload: Workload {
            bus: "embedded".to_owned(),
            spans: Vec::new(),
            messages: 1_000,
            bytes: Known::Is(1_000_000),
            events: 1_000_000,
            total: Total(1_000_000),
            series: Known::Is(1_000),
            undecodable: 0,
            oldest: Known::unknown("no events"),
            newest: Known::unknown("no events"),
        },
        sinks,
        noise,
        rankings,
        timeline,
        notes: vec![HOSTILE.to_owned()],
    }
}

fn words(result: &CompareResult, usage: &str) -> String {
    words_with(result, &[], usage)
}

fn words_with(result: &CompareResult, costs: &[Cost], usage: &str) -> String {
    let all = advice(result, costs);
    all.iter().find(|advice| advice.usage.starts_with(usage)).unwrap().words.join(" ")
}

#[test]
fn the_words_name_the_best_sink_for_each_use_and_those_that_come_next() {
    let result = result(vec![
        sink("pg", None, 0, 100_000.0, 0.2),
        sink("pg (control)", Some("pg"), 0, 101_000.0, 0.2),
        sink("files", None, 0, 300_000.0, 2.0),
    ]);
    assert!(words(&result, "Billing").starts_with("pg and files: every audit of each found exactly"));
    let fresh = words(&result, "Freshness");
    assert!(fresh.contains("pg (200 ms), before files (2 s)"), "{fresh}");
    let rate = words(&result, "Catching up");
    assert!(rate.contains("files (300 k events/s), before pg (100 k events/s)"), "{rate}");
    let cost = words(&result, "Cost");
    assert!(cost.contains("storage: not measured") && cost.contains("not known without prices"), "{cost}");
}

#[test]
fn within_the_noise_no_difference_is_claimed() {
    let result = result(vec![
        sink("a", None, 0, 100_000.0, 0.2),
        sink("a (control)", Some("a"), 0, 150_000.0, 0.2),
        sink("b", None, 0, 130_000.0, 0.2),
    ]);
    let rate = words(&result, "Catching up");
    assert!(rate.contains("no difference seen between b (130 k events/s) and a (100 k events/s)."), "{rate}");
}

#[test]
fn a_sink_that_lacks_something_is_below_the_line_and_best_at_nothing() {
    let result = result(vec![sink("good", None, 0, 1_000.0, 5.0), sink("losing", None, 1_000, 9e9, 0.001)]);
    assert!(words(&result, "Billing").ends_with("Not losing: see below what is wrong."));
    for usage in ["Freshness", "Catching up"] {
        let words = words(&result, usage);
        assert!(words.contains("good") && !words.contains("losing"), "{words}");
    }
    let html = html(&result, &[]);
    assert!(html.contains("<b>losing</b>: 1000 missing in round 2"), "{html}");
    assert!(html.contains("Not all equal.") && !html.contains("All equal."), "{html}");
}

#[test]
fn a_sink_whose_control_lacks_something_or_that_guarantees_less_is_not_for_billing() {
    let of_control = result(vec![sink("a", None, 0, 1.0, 1.0), sink("a (control)", Some("a"), 3, 1.0, 1.0)]);
    assert!(words(&of_control, "Billing").starts_with("None of them. Not a:"), "{}", words(&of_control, "Billing"));
    let mut lucky = sink("http", None, 0, 1.0, 1.0);
    lucky.delivery_guarantee = Known::Is("at least once".to_owned());
    let lucky = words(&result(vec![lucky]), "Billing");
    assert!(lucky.contains("http held everything too, but the settings do not guarantee"), "{lucky}");
}

#[test]
fn a_page_has_a_chart_for_each_aspect_and_no_markup_from_outside() {
    let html = html(&result(vec![sink(HOSTILE, None, 0, 100.0, 0.2), sink("b", None, 0, 200.0, 0.4)]), &[]);
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
    // Two aspects, the distribution, and the lag.
    assert_eq!(html.matches("<figure").count(), 4, "{html}");
    assert!(html.contains("not known: no /proc/cpuinfo") && html.contains("Linux"), "{html}");
}

#[test]
fn a_result_without_sinks_is_a_page_too() {
    let html = html(&result(Vec::new()), &[]);
    assert!(html.contains("None of them.") && html.contains("not measured"), "{html}");
}

#[test]
fn the_cheapest_is_named_by_the_price_list_and_what_has_no_price_is_not_known() {
    let result = result(vec![
        sink("pg", None, 0, 1.0, 1.0),
        sink("files", None, 0, 1.0, 1.0),
        sink("other", None, 0, 1.0, 1.0),
        sink("losing", None, 5, 1.0, 1.0),
    ]);
    let cost = |sink: &str, total: Known<f64>| Cost {
        sink: sink.to_owned(),
        units: Vec::new(),
        total: total.map(|amount| Money { amount, currency: "USD".to_owned() }),
    };
    let costs = [
        cost("pg", Known::Is(0.5)),
        cost("files", Known::Is(0.25)),
        cost("other", Known::unknown("no price of rows")),
        cost("losing", Known::Is(0.0)),
    ];
    let words = words_with(&result, &costs, "Cost");
    let expected = "Money for a million events, the cheapest first: files (0.25 USD) and pg (0.5 USD). Not known: other (no price \
                    of rows).";
    assert!(words.starts_with(expected) && !words.contains("losing"), "{words}");
    assert!(html(&result, &costs).contains("0.25 USD"));
}
