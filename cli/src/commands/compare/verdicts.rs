//! What a result says about each use of a backend, in words that follow from its figures alone.

use tallybus_verify::compare::{Aspect, CompareResult, Cost, Money, OLD_DAYS, SinkResult, Unit};

use super::money;
use crate::charts;

/// A use, and which sink to take for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) usage: &'static str,
    pub(super) words: Vec<String>,
}

/// The advice for every use, in the order in which they matter.
pub(super) fn advice(result: &CompareResult, costs: &[Cost]) -> Vec<Advice> {
    vec![
        Advice { usage: "Billing: exact to the last count", words: vec![exactness(result)] },
        Advice {
            usage: "Freshness: from emit to queryable",
            words: vec![best(result, Aspect::FreshnessP99), best(result, Aspect::FreshnessMedian)],
        },
        Advice { usage: "Catching up after a pause", words: vec![best(result, Aspect::CatchUpRate)] },
        Advice {
            usage: "Cost: what it takes",
            words: std::iter::once(cheapest(result, costs))
                .chain(
                    [Aspect::StoragePerEvent, Aspect::BytesPerEvent, Aspect::Requests]
                        .map(|aspect| best(result, aspect)),
                )
                .collect(),
        },
        Advice {
            usage: "Reading: the standard questions",
            words: [Aspect::TotalByTag, Aspect::TopSeries, Aspect::SeriesByMinute, Aspect::SeriesCount]
                .map(|aspect| best(result, aspect))
                .to_vec(),
        },
    ]
}

/// The sinks that count: the control is the same sink once more.
pub(super) fn sinks(result: &CompareResult) -> impl Iterator<Item = &SinkResult> {
    result.sinks.iter().filter(|sink| sink.control_of.is_none())
}

/// Which sinks are fit for billing, and why the others are not.
fn exactness(result: &CompareResult) -> String {
    let names = |wanted: &dyn Fn(&SinkResult) -> bool| -> Vec<String> {
        sinks(result).filter(|sink| wanted(sink)).map(|sink| sink.name.clone()).collect()
    };
    let is_exact = |sink: &SinkResult| {
        sink.delivery_guarantee.get().is_some_and(|guarantee| guarantee.starts_with("exactly once"))
    };
    // The control wrote with the same settings: what it lacks, the sink may lack next time.
    let is_complete = |sink: &SinkResult| {
        let mut runs =
            result.sinks.iter().filter(|run| run.name == sink.name || run.control_of.as_ref() == Some(&sink.name));
        runs.all(SinkResult::is_complete)
    };
    let fit = names(&|sink| is_complete(sink) && is_exact(sink));
    let lucky = names(&|sink| is_complete(sink) && !is_exact(sink));
    let unfit = names(&|sink| !is_complete(sink));
    let mut text = match fit.as_slice() {
        [] => "None of them.".to_owned(),
        [one] => format!("{one}: every audit found exactly what was emitted, and its settings guarantee that."),
        several => format!(
            "{}: every audit of each found exactly what was emitted, and their settings guarantee that.",
            list(several)
        ),
    };
    if !lucky.is_empty() {
        text.push_str(&format!(
            " {} held everything too, but the settings do not guarantee \"exactly once\": a failure may count twice.",
            list(&lucky)
        ));
    }
    if !unfit.is_empty() {
        text.push_str(&format!(" Not {}: see below what is wrong.", list(&unfit)));
    }
    text
}

/// The best sinks in one aspect.
fn best(result: &CompareResult, aspect: Aspect) -> String {
    let title = aspect.title();
    let Some(ranking) = result.rankings.iter().find(|ranking| ranking.aspect == aspect) else {
        return format!("{title}: not measured.");
    };
    let with_figure = |name: &String| {
        let summary = result.sink(name).and_then(|sink| sink.summary(aspect));
        let figure = summary.map_or(charts::NOT_KNOWN.to_owned(), |summary| figure(summary.median, ranking.unit));
        format!("{name} ({figure})")
    };
    let listed = |group: &Vec<String>| list(&group.iter().map(with_figure).collect::<Vec<_>>());
    let (first, next) = match ranking.groups.as_slice() {
        [] => {
            let why = ranking.unranked.first().map(|unranked| unranked.why.clone());
            return format!("{title}: not known ({}).", why.unwrap_or_else(|| "no sink can be ranked".to_owned()));
        }
        [first, rest @ ..] => (first, rest.first()),
    };
    let best = match first.len() {
        1 => listed(first),
        _ => format!("no difference seen between {}", listed(first)),
    };
    match next {
        Some(next) => format!("{title}: {best}, before {}.", listed(next)),
        None if first.len() == 1 => format!("{title}: {best}; no other sink can be ranked."),
        None => format!("{title}: {best}."),
    }
}

/// What costs least, where a price list says what each unit costs.
fn cheapest(result: &CompareResult, costs: &[Cost]) -> String {
    if costs.is_empty() {
        return "Money: not known without prices: tallybus compare show FILE --prices LIST.".to_owned();
    }
    let of = |sink: &SinkResult| costs.iter().find(|cost| cost.sink == sink.name);
    let complete = || sinks(result).filter(|sink| sink.is_complete()).filter_map(of);
    let mut known: Vec<(&Cost, &Money)> = complete().filter_map(|cost| Some((cost, cost.total.get()?))).collect();
    known.sort_by(|(_, one), (_, other)| one.currency.cmp(&other.currency).then(one.amount.total_cmp(&other.amount)));
    let listed: Vec<String> =
        known.iter().map(|(cost, _)| format!("{} ({})", cost.sink, money::shown(&cost.total))).collect();
    let unknown: Vec<String> =
        complete().filter_map(|cost| Some(format!("{} ({})", cost.sink, cost.total.reason()?))).collect();
    let mut text = match listed.as_slice() {
        [] => "Money: not known of any sink that can be ranked.".to_owned(),
        listed => format!("Money for a million events, the cheapest first: {}.", list(listed)),
    };
    if known.windows(2).any(|pair| pair[0].1.currency != pair[1].1.currency) {
        text.push_str(" Amounts in different currencies are not compared.");
    }
    if !unknown.is_empty() {
        text.push_str(&format!(" Not known: {}.", list(&unknown)));
    }
    if complete().flat_map(|cost| &cost.units).any(|unit| unit.old_days.is_some()) {
        text.push_str(&format!(" Some prices are older than {OLD_DAYS} days."));
    }
    text
}

/// A figure with its unit.
pub(super) fn figure(figure: f64, unit: Unit) -> String {
    let text = chart_unit(unit).short(figure);
    match unit {
        Unit::Seconds => text,
        Unit::EventsPerSecond | Unit::PerMillionEvents | Unit::BytesPerEvent => format!("{text} {unit}"),
    }
}

/// The unit of a chart's axis.
pub(super) fn chart_unit(unit: Unit) -> charts::Unit {
    match unit {
        Unit::Seconds => charts::Unit::Seconds,
        Unit::EventsPerSecond => charts::Unit::Count("events/s"),
        Unit::PerMillionEvents => charts::Unit::Count("per million events"),
        Unit::BytesPerEvent => charts::Unit::Count("bytes/event"),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
