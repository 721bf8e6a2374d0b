//! A result as a page: which sink to take for what, and the figures that say so.

use std::collections::BTreeSet;
use std::path::Path;

use tallybus_verify::compare::{
    AnswerCheck, CompareResult, Cost, Known, Mode, Money, Ranking, Sample, SinkResult, UnitCost,
};

use super::money;
use super::verdicts::{advice, chart_unit, figure as shown, list, sinks};
use crate::charts::{Bar, Bars, Chart, Curve, Distribution, Line, Lines, NOT_KNOWN, Unit, figure};
use crate::failure::Failure;
use crate::page::{Html, Table, page};
use crate::text::{count_of, grouped};

/// Writes the page to a file.
pub(super) fn write(file: &Path, result: &CompareResult, costs: &[Cost]) -> Result<(), Failure> {
    std::fs::write(file, html(result, costs))
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))
}

fn html(result: &CompareResult, costs: &[Cost]) -> String {
    page("Tallybus: backends compared", content(result, costs))
}

/// What the page shows; without a price list there are no costs.
pub(in crate::commands) fn content(result: &CompareResult, costs: &[Cost]) -> Html {
    let mut html = Html::new();
    html.leaf("h1", &[], "Backends compared");
    html.leaf("p", &[("class", &"lead")], &lead(result));
    verdict(&mut html, result);
    html.leaf("h2", &[], "Which one to take").open("dl", &[]);
    for advice in advice(result, costs) {
        html.leaf("dt", &[], advice.usage);
        for words in advice.words {
            html.leaf("dd", &[], &words);
        }
    }
    html.close("dl");
    html.leaf("p", &[("class", &"soft")], HOW_TO_READ);
    html.leaf("h2", &[], "Right before fast").add(holdings(result).html());
    below_the_line(&mut html, result);
    html.leaf("h2", &[], "Figures").open("div", &[("class", &"charts")]);
    for (number, chart) in charts(result).iter().enumerate() {
        html.add(figure(&format!("chart-{number}"), chart.as_ref()));
    }
    html.close("div");
    unranked(&mut html, result);
    if !costs.is_empty() {
        html.leaf("h2", &[], "Money").add(money_table(costs).html());
    }
    if result.sinks.iter().any(|sink| !sink.questions.is_empty()) {
        html.leaf("h2", &[], "Questions, and their answers against the bus").add(questions(result).html());
    }
    html.leaf("h2", &[], "How it was measured").add(method(result).html());
    let notes: Vec<String> = notes(result);
    if !notes.is_empty() {
        html.open("ul", &[("class", &"plain")]);
        for note in notes {
            html.leaf("li", &[], &note);
        }
        html.close("ul");
    }
    html
}

const HOW_TO_READ: &str = "Each line names the best in one aspect, with its median, and those that come next. \"No difference \
                           seen\" means that the 95 % intervals overlap, or that the medians differ by no more than the sink \
                           that was run twice differs from itself.";

fn lead(result: &CompareResult) -> String {
    let (workload, method) = (&result.workload, &result.method);
    let names = list(&sinks(result).map(|sink| sink.name.clone()).collect::<Vec<_>>());
    let events = count_of(workload.events, "event");
    let series = workload.series.get().map_or(String::new(), |count| format!(" of {}", count_of(*count, "series")));
    match method.mode {
        Mode::Shadow => format!(
            "{names} wrote the same {events}{series}, each in destinations of the comparison's own, in {} after a \
             warm-up that is left out.",
            count_of(method.rounds, "round")
        ),
        Mode::Live => format!("{names} wrote {events}{series} of the live stream, while their workers ran."),
    }
}

fn verdict(html: &mut Html, result: &CompareResult) {
    let (class, word, text) = match result.all_equal() {
        true => {
            ("verdict", "All equal.", " Every sink holds exactly what the bus has: nothing missing, nothing twice.")
        }
        false => {
            ("verdict bad", "Not all equal.", " Only sinks that hold exactly what the bus has are ranked; see below.")
        }
    };
    html.open("p", &[("class", &class)]).leaf("b", &[], word).text(text).close("p");
}

/// A known figure as text, or why it is not known.
fn known<T>(figure: &Known<T>, show: impl FnOnce(&T) -> String) -> String {
    match figure {
        Known::Is(figure) => show(figure),
        Known::Unknown(reason) => format!("not known: {reason}"),
    }
}

fn holdings(result: &CompareResult) -> Table {
    let titles =
        ["sink", "kind", "verdict", "must hold", "holds", "missing", "extra", "behind", "guarantee", "version"];
    let mut table = Table::new("What each sink holds", titles.map(str::to_owned)).with_text(&[1, 2, 8, 9]);
    for sink in &result.sinks {
        let mut cells = vec![sink.name.clone(), sink.kind.clone()];
        match &sink.completeness {
            Known::Is(found) => cells.extend([
                if found.is_complete { "equal".to_owned() } else { "not equal".to_owned() },
                grouped(found.expected.0),
                grouped(found.held.0),
                grouped(found.missing.0),
                grouped(found.extra.0),
                grouped(found.behind),
            ]),
            Known::Unknown(reason) => {
                cells.push(format!("not known: {reason}"));
                cells.extend(std::iter::repeat_n(NOT_KNOWN.to_owned(), 5));
            }
        }
        let guarantee = sink.delivery_guarantee.get().map_or(NOT_KNOWN.to_owned(), String::clone);
        cells.extend([guarantee, known(&sink.version, String::clone)]);
        table.row(cells);
    }
    table
}

/// The sinks that are not ranked, with what is wrong.
fn below_the_line(html: &mut Html, result: &CompareResult) {
    let unequal: Vec<&SinkResult> = result.sinks.iter().filter(|sink| !sink.is_complete()).collect();
    if unequal.is_empty() {
        return;
    }
    html.leaf("p", &[], "Not ranked, because they do not hold exactly what they must:").open("ul", &[]);
    for sink in unequal {
        let fault = known(&sink.completeness, |found| found.fault().unwrap_or_default());
        html.open("li", &[]).leaf("b", &[], &sink.name).text(&format!(": {fault}")).close("li");
    }
    html.close("ul");
}

/// A chart for each aspect that sinks are ranked in, the distribution of times, and the lag while probes were sent.
fn charts(result: &CompareResult) -> Vec<Box<dyn Chart>> {
    let mut charts: Vec<Box<dyn Chart>> = Vec::new();
    let rankings = result.rankings.iter().filter(|ranking| !ranking.groups.is_empty());
    charts.extend(rankings.map(|ranking| Box::new(bars(result, ranking)) as Box<dyn Chart>));
    if result.sinks.iter().any(|sink| sink.latency.get().is_some()) {
        charts.push(Box::new(distribution(result)));
    }
    if !result.timeline.is_empty() {
        charts.push(Box::new(timeline(result)));
    }
    charts
}

/// The ranked sinks, best first, and the control of one of them.
fn bars(result: &CompareResult, ranking: &Ranking) -> Bars {
    let is_shown = |sink: &&SinkResult| sink.is_complete() && sink.summary(ranking.aspect).is_some();
    let control = result.sinks.iter().filter(|sink| sink.control_of.is_some()).filter(is_shown);
    let names = ranking.groups.iter().flatten().chain(control.map(|sink| &sink.name));
    let bar = |name: &String| {
        let summary = result.sink(name).and_then(|sink| sink.summary(ranking.aspect));
        Bar {
            name: name.clone(),
            series: result.sinks.iter().position(|sink| sink.name == *name).unwrap_or_default(),
            value: summary.map(|summary| summary.median),
            interval: summary.filter(|summary| summary.n > 1).map(|summary| (summary.low, summary.high)),
        }
    };
    let better = if ranking.more_is_better { "More is better" } else { "Less is better" };
    let noise = result.noise.iter().find(|noise| noise.aspect == ranking.aspect);
    let noise = noise.map_or("no noise floor".to_owned(), |noise| {
        // From nothing to something is the largest number.
        if noise.difference > 10.0 {
            "noise floor over 1,000 %".to_owned()
        } else {
            format!("noise floor {:.1} %", noise.difference * 100.0)
        }
    });
    let groups: Vec<String> = ranking.groups.iter().map(|group| list(group)).collect();
    let order = match groups.as_slice() {
        [_] if ranking.groups[0].len() > 1 => "no difference seen".to_owned(),
        [_] => "no other sink can be ranked".to_owned(),
        groups => format!("in order: {}", groups.join("; ")),
    };
    Bars {
        title: ranking.aspect.title().to_owned(),
        about: format!("{better}; {noise}; {order}. Medians with 95 % intervals."),
        unit: chart_unit(ranking.unit),
        bars: names.map(bar).collect(),
    }
}

fn distribution(result: &CompareResult) -> Distribution {
    let curve = |sink: &SinkResult| {
        let points = sink.latency.get().map(|latency| latency.distribution.iter());
        let points = points.into_iter().flatten().map(|share| (share.value, share.cumulative));
        Curve { name: sink.name.clone(), points: points.collect() }
    };
    let resolutions = result.sinks.iter().filter_map(|sink| {
        let latency = sink.latency.get()?;
        Some(format!("{} {}", sink.name, Unit::Seconds.short(latency.resolution)))
    });
    Distribution {
        title: "From emit to queryable".to_owned(),
        about: format!(
            "The share of probes that a query saw within a time, from when each was due. A time may be too high by: {}.",
            resolutions.collect::<Vec<_>>().join(", ")
        ),
        unit: Unit::Seconds,
        of: "probes",
        curves: result.sinks.iter().map(curve).collect(),
    }
}

/// Samples of different sinks come a little after each other: they are drawn at tenths of a second, each line with its last figure.
fn timeline(result: &CompareResult) -> Lines {
    let tenths = |sample: &Sample| (sample.seconds * 10.0).round() / 10.0;
    let mut times: Vec<f64> = result.timeline.iter().map(tenths).collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    let named: BTreeSet<&str> = result.timeline.iter().map(|sample| sample.sink.as_str()).collect();
    let line = |sink: &SinkResult| {
        let of_sink = |sample: &&Sample| sample.sink == sink.name;
        let mut samples = result.timeline.iter().filter(of_sink).peekable();
        let mut lag = None;
        let values = times.iter().map(|time| {
            while let Some(sample) = samples.next_if(|sample| tenths(sample) <= *time) {
                lag = sample.lag.get().map(|lag| *lag as f64);
            }
            lag
        });
        Line { name: sink.name.clone(), values: values.collect() }
    };
    Lines {
        title: "Behind the bus while probes were sent".to_owned(),
        about: "Messages that were on the bus and not settled.".to_owned(),
        lines: result.sinks.iter().filter(|sink| named.contains(sink.name.as_str())).map(line).collect(),
        x: (Unit::Seconds, times),
        y: Unit::Count("messages"),
        outages: Vec::new(),
    }
}

/// Why a complete sink is not in a ranking: what it does not offer, or what is not known.
fn unranked(html: &mut Html, result: &CompareResult) {
    let mut reasons: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for ranking in &result.rankings {
        for unranked in &ranking.unranked {
            if !result.sink(&unranked.sink).is_some_and(SinkResult::is_complete) {
                continue;
            }
            let title = ranking.aspect.title().to_owned();
            match reasons.iter_mut().find(|(sink, why, _)| *sink == unranked.sink && *why == unranked.why) {
                Some((_, _, titles)) => titles.push(title),
                None => reasons.push((&unranked.sink, &unranked.why, vec![title])),
            }
        }
    }
    let lines: Vec<String> =
        reasons.into_iter().map(|(sink, why, titles)| format!("{sink}: {}: {why}", titles.join(", "))).collect();
    if lines.is_empty() {
        return;
    }
    html.leaf("p", &[], "Not measured, or not offered:").open("ul", &[("class", &"plain")]);
    for line in lines {
        html.leaf("li", &[], &line);
    }
    html.close("ul");
}

fn questions(result: &CompareResult) -> Table {
    let titles = ["question", "sink", "first run", "later runs", "answer"].map(str::to_owned);
    let caption = "Times until the answer; later runs are medians";
    let mut table = Table::new(caption, titles).with_text(&[1, 4]);
    for sink in &result.sinks {
        // What a complete sink does not offer is listed above, once.
        let is_listed = |answer: &AnswerCheck| matches!(answer, AnswerCheck::NotOffered { .. }) && sink.is_complete();
        for question in sink.questions.iter().filter(|question| !is_listed(&question.answer)) {
            let later = known(&question.later, |summary| Unit::Seconds.short(summary.median));
            let (first, later, answer) = match &question.answer {
                AnswerCheck::NotOffered { why } => ("-".to_owned(), "-".to_owned(), format!("not offered: {why}")),
                answer => (known(&question.first, |first| Unit::Seconds.short(*first)), later, answered(answer)),
            };
            table.row(vec![question.asked.clone(), sink.name.clone(), first, later, answer]);
        }
    }
    table
}

fn money_table(costs: &[Cost]) -> Table {
    let titles = ["sink", "unit", "units", "cost", "price"].map(str::to_owned);
    let caption = "A million events written, and their storage kept for a month, by the price list";
    let mut table = Table::new(caption, titles).with_text(&[1, 4]);
    for Cost { sink, units, total } in costs {
        for UnitCost { unit, amount, cost, price, old_days } in units {
            let price = price.as_ref().map_or(NOT_KNOWN.to_owned(), |price| money::terms(price, *old_days));
            let amount = Unit::Count("units").exact(amount.get().copied());
            table.row(vec![sink.clone(), unit.clone(), amount, known_money(cost), price]);
        }
        let why = total.reason().map_or(String::new(), |reason| format!("{NOT_KNOWN}: {reason}"));
        table.row(vec![sink.clone(), "total".to_owned(), String::new(), known_money(total), why]);
    }
    table
}

fn known_money(cost: &Known<Money>) -> String {
    if cost.get().is_some() { money::shown(cost) } else { NOT_KNOWN.to_owned() }
}

fn answered(answer: &AnswerCheck) -> String {
    match answer {
        AnswerCheck::Right => "right".to_owned(),
        AnswerCheck::Wrong { why } => format!("WRONG: {why}"),
        AnswerCheck::NotOffered { why } => format!("not offered: {why}"),
        AnswerCheck::Failed { why } => format!("failed: {why}"),
    }
}

fn method(result: &CompareResult) -> Table {
    let (environment, method, workload) = (&result.environment, &result.method, &result.workload);
    let bytes = |bytes: u64| Unit::Bytes.exact(Some(bytes as f64));
    let mut table = Table::new("Machine, stream and method", ["", ""].map(str::to_owned)).with_text(&[1]);
    let mut row = |what: &str, value: String| table.row(vec![what.to_owned(), value]);
    row("began", result.started.clone());
    row("took", Unit::Seconds.short(result.seconds.round()));
    row("Tallybus", environment.tallybus.clone());
    row("system", known(&environment.system, String::clone));
    row("processor", known(&environment.cpu, String::clone));
    row("processors used", known(&environment.cpus, |count| grouped(*count)));
    row("memory", known(&environment.memory, |memory| bytes(*memory)));
    row("bus", workload.bus.clone());
    row(
        "messages",
        format!("{}; bytes: {}", grouped(workload.messages), known(&workload.bytes, |count| bytes(*count))),
    );
    row("events", format!("{}, their sum {}", grouped(workload.events), grouped(workload.total.0)));
    row("times of the events", {
        let end = |time: &Known<String>| known(time, String::clone);
        format!("{} to {}", end(&workload.oldest), end(&workload.newest))
    });
    row("rounds", format!("{}, after {} to warm up", method.rounds, method.warm_up_rounds));
    row("each question asked", count_of(method.asked, "time"));
    row("probes", {
        known(&method.probes, |probes| {
            let rate = shown(probes.rate, tallybus_verify::compare::Unit::EventsPerSecond);
            let late = match probes.late {
                0 => "all on time".to_owned(),
                late => format!("{late} late, by up to {}", Unit::Seconds.short(probes.latest)),
            };
            format!("{} at {rate}, {late}", grouped(probes.sent))
        })
    });
    row("settings", format!("fingerprint {}, seed {}", method.fingerprint, method.seed));
    table
}

fn notes(result: &CompareResult) -> Vec<String> {
    let of_sinks = result.sinks.iter().flat_map(|sink| sink.notes.iter().map(|note| format!("{}: {note}", sink.name)));
    result.notes.iter().cloned().chain(of_sinks).collect()
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
