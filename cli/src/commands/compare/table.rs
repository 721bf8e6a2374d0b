//! A result as text, for a terminal of 80 columns.

use tallybus_verify::compare::{AnswerCheck, CompareResult, Known, Latency, Mode, Ranking, SinkResult, Summary, Unit};

use crate::charts;
use crate::text::{Table, count_of, grouped, wrap};

/// The lines of the whole report.
pub(super) fn lines(result: &CompareResult, width: usize) -> Vec<String> {
    let mut lines = heading(result, width);
    lines.push(String::new());
    lines.extend(holdings(result).lines_within(width));
    for ranking in result.rankings.iter().filter(|ranking| !ranking.groups.is_empty()) {
        lines.push(String::new());
        lines.extend(ranked(result, ranking, width));
    }
    lines.extend(latencies(result, width));
    lines.extend(questions(result, width));
    lines.extend(closing(result, width));
    lines
}

fn heading(result: &CompareResult, width: usize) -> Vec<String> {
    let workload = &result.workload;
    let how = match result.method.mode {
        Mode::Shadow => format!("{}, in destinations of its own", count_of(result.method.rounds, "round")),
        Mode::Live => "running workers, on the live stream".to_owned(),
    };
    let series = workload.series.get().map_or_else(String::new, |count| format!(" of {}", count_of(*count, "series")));
    let size = workload.bytes.get().map_or_else(String::new, |size| format!(" and {}", bytes(*size as f64)));
    let text = format!(
        "{}{series}, {}{size}, from {}; {how}; took {:.0} s",
        count_of(workload.events, "event"),
        count_of(workload.messages, "message"),
        workload.bus,
        result.seconds
    );
    wrap(&text, width)
}

/// What each sink holds against what it must.
fn holdings(result: &CompareResult) -> Table {
    let mut table = Table::new(&["sink", "kind and version", "holds what it must"]);
    for sink in &result.sinks {
        let verdict = match &sink.completeness {
            Known::Is(completeness) => match completeness.fault() {
                None => "yes: equal".to_owned(),
                Some(fault) => format!("NO: {fault}"),
            },
            Known::Unknown(reason) => format!("not known: {reason}"),
        };
        // Without the build that servers name in brackets; the result has it.
        let short = |version: &String| format!(" {}", version.split(" (").next().unwrap_or(version));
        let version = sink.version.get().map_or_else(String::new, short);
        table.row(vec![sink.name.clone(), format!("{}{version}", sink.kind), verdict]);
    }
    table
}

/// One aspect: rank, sink, median, interval. Sinks of one rank are those between which no difference was seen.
fn ranked(result: &CompareResult, ranking: &Ranking, width: usize) -> Vec<String> {
    let better = if ranking.more_is_better { "more is better" } else { "less is better" };
    let noise = result.noise.iter().find(|noise| noise.aspect == ranking.aspect);
    let noise =
        noise.map_or_else(|| "no noise floor".to_owned(), |noise| format!("noise {}", percent(noise.difference)));
    let mut lines = wrap(&format!("{} ({better}; {noise})", ranking.aspect.title()), width);
    let mut table = Table::new(&[">  rank", "sink", ">median", "95 % interval"]);
    let mut rank = 1;
    for group in &ranking.groups {
        for name in group {
            let summary = result.sink(name).and_then(|sink| sink.summary(ranking.aspect));
            let (median, interval) = summary.map_or_else(Default::default, |summary| shown(summary, ranking.unit));
            let same = if group.len() > 1 { "  no difference seen" } else { "" };
            table.row(vec![format!("  {rank}"), name.clone(), median, format!("{interval}{same}")]);
        }
        rank += group.len();
    }
    // What a sink does not hold is said once, above.
    let is_complete = |name: &str| result.sink(name).is_some_and(SinkResult::is_complete);
    for unranked in ranking.unranked.iter().filter(|unranked| is_complete(&unranked.sink)) {
        table.row(vec!["  -".to_owned(), unranked.sink.clone(), String::new(), unranked.why.clone()]);
    }
    lines.extend(table.lines_within(width));
    lines
}

/// The median and its interval.
fn shown(summary: &Summary, unit: Unit) -> (String, String) {
    let one = |figure| figure_in(figure, unit);
    (one(summary.median), format!("{} to {}", one(summary.low), one(summary.high)))
}

pub(super) fn figure_in(figure: f64, unit: Unit) -> String {
    match unit {
        Unit::EventsPerSecond => format!("{}/s", amount(figure)),
        Unit::Seconds => seconds(figure),
        Unit::PerMillionEvents => format!("{}/M", amount(figure)),
        Unit::BytesPerEvent => format!("{figure:.1} B"),
    }
}

/// Without a fraction, with commas; figures below 10 keep one digit.
pub(super) fn amount(figure: f64) -> String {
    if figure < 10.0 {
        return format!("{figure:.1}");
    }
    let whole = format!("{figure:.0}");
    whole.parse::<u128>().map_or(whole, grouped)
}

/// As in the page's charts and tables.
pub(super) fn seconds(figure: f64) -> String {
    charts::Unit::Seconds.short(figure)
}

/// As in the page's charts and tables.
fn bytes(figure: f64) -> String {
    charts::Unit::Bytes.short(figure)
}

fn percent(share: f64) -> String {
    if share > 10.0 { "more than 1000 %".to_owned() } else { format!("{:.1} %", share * 100.0) }
}

fn latencies(result: &CompareResult, width: usize) -> Vec<String> {
    let Some(method) = result.method.probes.get() else { return Vec::new() };
    let mut lines = vec![String::new()];
    let late = match method.late {
        0 => "all on time".to_owned(),
        late => format!("{late} of them late, the latest by {}", seconds(method.latest)),
    };
    let text = format!(
        "emit to queryable: {} at {}/s, {late}; beside them {} events/s of {} asked for",
        count_of(method.sent, "probe"),
        amount(method.rate),
        method.background_reached.get().map_or_else(|| "an unknown number of".to_owned(), |rate| amount(*rate)),
        amount(method.background_rate)
    );
    lines.extend(wrap(&text, width));
    // The result has every percentile; a narrow terminal is shown fewer of them.
    let tables = [&["p50", "p90", "p99", "p99.9"][..], &["p50", "p90", "p99"], &["p50", "p99"]];
    let tables = tables.map(|chosen| latency_table(result, chosen));
    let [.., narrowest] = &tables;
    lines.extend(tables.iter().find(|table| table.fits(width)).unwrap_or(narrowest).lines_within(width));
    lines
}

/// With these percentiles.
fn latency_table(result: &CompareResult, chosen: &[&str]) -> Table {
    let titles: Vec<String> = chosen.iter().map(|name| format!(">{name}")).collect();
    let titles = ["  sink"].into_iter().chain(titles.iter().map(String::as_str)).chain([">max", ">±", "not seen"]);
    let mut table = Table::new(&titles.collect::<Vec<_>>());
    for sink in &result.sinks {
        let mut row = vec![format!("  {}", sink.name)];
        match &sink.latency {
            Known::Is(latency) => {
                let Latency { p50, p90, p99, p999, max, resolution, never_seen, .. } = latency;
                let all = [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999)];
                let percentiles = all.iter().filter(|(name, _)| chosen.contains(name)).map(|(_, figure)| *figure);
                row.extend(percentiles.chain([max, resolution]).map(|figure| seconds(*figure)));
                row.push(never_seen.to_string());
            }
            Known::Unknown(reason) => {
                row.extend(vec![String::new(); chosen.len() + 2]);
                row.push(reason.clone());
            }
        }
        table.row(row);
    }
    table
}

fn questions(result: &CompareResult, width: usize) -> Vec<String> {
    if result.sinks.iter().all(|sink| sink.questions.is_empty()) {
        return Vec::new();
    }
    let mut lines = vec![String::new(), "questions, and their answers against the bus".to_owned()];
    let mut table = Table::new(&["  sink", "question", ">first", ">later", "answer"]);
    let times = |known: &Known<f64>| known.get().map_or_else(|| "-".to_owned(), |figure| seconds(*figure));
    for SinkResult { name, questions, .. } in &result.sinks {
        let mut not_offered: Vec<(&str, &str)> = Vec::new();
        for question in questions {
            let answer = match &question.answer {
                AnswerCheck::Right => "right".to_owned(),
                AnswerCheck::Wrong { why } => format!("WRONG: {why}"),
                AnswerCheck::Failed { why } => format!("failed: {why}"),
                AnswerCheck::NotOffered { why } => {
                    not_offered.push((&question.name, why));
                    continue;
                }
            };
            let later = question.later.clone().map(|summary| summary.median);
            let row = [question.name.clone(), times(&question.first), times(&later), answer];
            table.row([vec![format!("  {name}")], row.to_vec()].concat());
        }
        let others = if not_offered.len() == questions.len() { "all" } else { "the others" };
        for line in one_line_for_each_reason(&not_offered, others) {
            let none = || "-".to_owned();
            table.row(vec![format!("  {name}"), line.0, none(), none(), format!("not offered: {}", line.1)]);
        }
    }
    lines.extend(table.lines_within(width));
    lines
}

/// The questions that are not offered: where all are for one reason, in one line.
fn one_line_for_each_reason(not_offered: &[(&str, &str)], all: &str) -> Vec<(String, String)> {
    let is_one = not_offered.len() > 1 && not_offered.windows(2).all(|two| two[0].1 == two[1].1);
    match (not_offered, is_one) {
        ([(_, why), ..], true) => vec![(all.to_owned(), (*why).to_owned())],
        _ => not_offered.iter().map(|(name, why)| ((*name).to_owned(), (*why).to_owned())).collect(),
    }
}

fn closing(result: &CompareResult, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let apart = result.noise.iter().filter(|noise| !noise.intervals_overlap);
    let apart: Vec<&str> = apart.map(|noise| noise.aspect.title()).collect();
    let control = result.sinks.iter().find(|sink| sink.control_of.is_some());
    let text = match (control, apart.is_empty()) {
        (None, _) if result.method.mode == Mode::Live => String::new(),
        (None, _) => "No sink was run twice, so there is no noise floor.".to_owned(),
        (Some(_), true) => "The sink that was run twice shows no difference to itself.".to_owned(),
        (Some(_), false) => format!(
            "The sink that was run twice differs from itself beyond its intervals in: {}. Differences up to the noise floor \
             are not ranked.",
            apart.join(", ")
        ),
    };
    if !text.is_empty() {
        lines.extend(wrap(&text, width));
    }
    for note in &result.notes {
        lines.extend(wrap(&format!("note: {note}"), width));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_unit_that_people_read_them_in() {
        for (figure, unit, expected) in [
            (1_234_567.8, Unit::EventsPerSecond, "1,234,568/s"),
            (3.25, Unit::EventsPerSecond, "3.2/s"),
            (0.000_35, Unit::Seconds, "350 µs"),
            (0.0123, Unit::Seconds, "12.3 ms"),
            (4.561, Unit::Seconds, "4.56 s"),
            (200.0, Unit::PerMillionEvents, "200/M"),
            (12.34, Unit::BytesPerEvent, "12.3 B"),
        ] {
            assert_eq!(figure_in(figure, unit), expected);
        }
        assert_eq!((bytes(12.0), bytes(1536.0)), ("12 B".to_owned(), "1.54 kB".to_owned()));
        assert_eq!((percent(0.034), percent(f64::MAX)), ("3.4 %".to_owned(), "more than 1000 %".to_owned()));
    }
}
