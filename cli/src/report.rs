//! The result of an audit, as JSON and as text.

use std::time::Duration;

use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::text::escape;
use tallybus_verify::audit;
use tallybus_verify::audit::{
    AuditReport, Begun, Demands, Difference, FaultKind, ForeignFindings, OffsetSpan, ProducerFault, Severity,
    SinkFindings, SinkReport, WrongDeadLetter,
};

use crate::csv::Csv;
use crate::failure::Verdict;
use crate::output::number;
use crate::text::{self, Table, grouped};
use crate::times;

pub(crate) fn verdict(report: &AuditReport, demands: &Demands) -> Verdict {
    match report.severity(demands) {
        Severity::Good => Verdict::Good,
        Severity::Bad => Verdict::Bad,
        Severity::Unknown => Verdict::CouldNotLook,
    }
}

/// The report as JSON.
pub(crate) fn as_json(report: &AuditReport, demands: &Demands) -> Value {
    let sinks: Vec<Value> = report.sinks.iter().map(|sink| sink_json(sink, demands, report.time)).collect();
    let complete = Demands { strict: true, max_lag: None };
    json!({
        "equal": report.equal(),
        "complete": report.severity(&complete) == Severity::Good,
        "time": times::show(report.time),
        "bus": number(report.bus_total),
        "bus_events": report.bus_events,
        "undecodable": report.undecodable,
        "filter": report.part,
        "sinks": sinks,
        "producers": {
            "count": report.producers.producers,
            "faults": report.producers.fault_count,
            "details": report.producers.faults.iter().map(fault_json).collect::<Vec<_>>(),
        },
    })
}

fn sink_json(sink: &SinkReport, demands: &Demands, now: i64) -> Value {
    let mut value = match &sink.outcome {
        Ok(findings) => findings_json(findings, now),
        Err(reason) => json!({ "total": null, "missing": null, "extra": null, "error": reason }),
    };
    let verdicts = sink.verdicts(demands);
    value["name"] = sink.name.as_str().into();
    value["verdict"] = audit::decisive(&verdicts, demands.strict).map(|verdict| verdict.word()).into();
    value["verdicts"] = verdicts.iter().map(|verdict| verdict.word()).collect();
    value
}

fn findings_json(findings: &SinkFindings, now: i64) -> Value {
    json!({
        "total": number(findings.total),
        "missing": number(findings.missing),
        "extra": number(findings.extra),
        "expected": number(findings.expected),
        "behind": findings.behind,
        "oldest_behind": findings.oldest_behind.map(|age| times::show(before(now, age))),
        "oldest_behind_seconds": findings.oldest_behind.map(|age| age.as_secs_f64()),
        "never_ran": findings.begun == Begun::Never,
        "offsets_gone": findings.begun == Begun::Forgotten,
        "claimed_by": findings.claimed_by,
        "gone_unwritten": findings.gone_unwritten.iter().map(span_json).collect::<Vec<_>>(),
        "series": findings.series,
        "windows": findings.windows,
        "window_seconds": findings.window as f64 / 1e9,
        "dead_letters": findings.dead_letters,
        "dead_total": number(findings.dead_total),
        "dead_total_in_backend": number(findings.taken_after_all),
        "replayed": findings.replayed,
        "wrong_dead_letters": {
            "count": findings.wrong_dead_letter_count,
            "details": findings.wrong_dead_letters.iter().map(wrong_json).collect::<Vec<_>>(),
        },
        "foreign": foreign_json(&findings.foreign),
        "differing_series": findings.differing_series,
        "differing_windows": findings.differing_windows,
        "differences": findings.differences.iter().take(MOST_LISTED).map(difference_json).collect::<Vec<_>>(),
        "notes": findings.notes,
    })
}

fn span_json(span: &OffsetSpan) -> Value {
    json!({ "topic": span.topic, "partition": span.partition, "first": span.first, "end": span.end })
}

fn wrong_json(wrong: &WrongDeadLetter) -> Value {
    json!({
        "topic": wrong.topic, "partition": wrong.partition, "offset": wrong.offset, "index": wrong.index,
        "reason": wrong.reason,
    })
}

fn foreign_json(foreign: &ForeignFindings) -> Value {
    let kinds = foreign.counts.iter().map(|(kind, points)| (kind.to_string(), Value::from(*points)));
    let named =
        foreign.named.iter().map(|one| json!({ "kind": one.kind.to_string(), "points": one.points, "what": one.what }));
    json!({
        "points": foreign.left_out(),
        "off_window": foreign.off_window(),
        "kinds": kinds.collect::<serde_json::Map<_, _>>(),
        "details": named.collect::<Vec<_>>(),
    })
}

/// The maximum number of differing series that are listed one by one.
const MOST_LISTED: usize = 1_000;

fn difference_json(difference: &Difference) -> Value {
    let place = difference.place.as_ref().map(|place| {
        json!({
            "window_start": times::show(place.window_start),
            "window_end": times::show(place.window_start.saturating_add(place.window)),
            "expected": number(place.expected),
            "total": number(place.total),
            "offsets": place.offsets.iter().map(span_json).collect::<Vec<_>>(),
        })
    });
    json!({
        "name": difference.series.name(),
        "tags": tags_json(&difference.series),
        "expected": number(difference.expected),
        "total": number(difference.total),
        "missing": number(difference.missing),
        "extra": number(difference.extra),
        "windows": difference.windows,
        "first_difference": place,
    })
}

fn tags_json(series: &Series) -> Value {
    series.tags().iter().map(|(key, value)| (key.to_string(), Value::from(value.to_string()))).collect()
}

fn fault_json(fault: &ProducerFault) -> Value {
    let (kind, first, last) = match fault.kind {
        FaultKind::Gap { first, last } => ("gap", first, last),
        FaultKind::Duplicate { sequence } => ("duplicate", sequence, sequence),
        FaultKind::Total { sequence } => ("total", sequence, sequence),
    };
    json!({
        "kind": kind, "producer": fault.producer, "topic": fault.topic, "partition": fault.partition,
        "offset": fault.offset, "first_sequence": first, "last_sequence": last, "value": fault.value,
    })
}

/// The differing series of each sink, all of them.
pub(crate) fn csv(report: &AuditReport) -> Csv {
    let columns = ["name", "tags", "expected", "total", "missing", "extra", "windows", "first_difference"];
    let mut table = Csv::new(std::iter::once("sink").chain(columns));
    for sink in &report.sinks {
        for difference in sink.outcome.iter().flat_map(|findings| &findings.differences) {
            let difference = difference_json(difference);
            let first = difference["first_difference"]["window_start"].clone();
            let cells = columns.iter().map(|column| match *column {
                "first_difference" => first.clone(),
                column => difference[column].clone(),
            });
            table.row(std::iter::once(sink.name.as_str().into()).chain(cells));
        }
    }
    table
}

/// The report as text, line by line; its table is no wider than `width`, where there is one.
pub(crate) fn lines(report: &AuditReport, demands: &Demands, width: Option<usize>) -> Vec<String> {
    let mut lines =
        vec![format!("the bus holds {} in {}", grouped(report.bus_total), text::count_of(report.bus_events, "event"))];
    if let Some(part) = &report.part {
        lines.push(format!("compared are only the series that meet {part}; nothing is said of the others"));
    }
    if report.undecodable > 0 {
        lines.push(format!("{} could not be decoded", text::count_of(report.undecodable, "record")));
    }
    lines.push(String::new());
    let table = table(report, demands);
    lines.extend(width.map_or_else(|| table.lines(), |width| table.lines_within(width)));
    for sink in &report.sinks {
        match &sink.outcome {
            Err(reason) => lines.push(format!("\n{}: unavailable: {reason}", sink.name)),
            Ok(findings) => {
                if report.part.is_some() && findings.compared == 0 {
                    lines.push(format!("\n{}: no series of it meets the conditions: nothing was compared", sink.name));
                }
                explain(&sink.name, findings, (demands, report.time), &mut lines);
            }
        }
    }
    explain_producers(report, &mut lines);
    lines
}

fn table(report: &AuditReport, demands: &Demands) -> Table {
    let mut table = Table::new(&["sink", ">total", ">missing", ">extra", ">behind", ">dead letters", "verdict"]);
    for sink in &report.sinks {
        let cells = match &sink.outcome {
            Err(_) => {
                let mut cells = vec![sink.name.clone()];
                cells.extend(std::iter::repeat_n("-".to_owned(), 5));
                cells.push(words(sink, demands));
                cells
            }
            Ok(findings) => vec![
                sink.name.clone(),
                grouped(findings.total),
                grouped(findings.missing),
                grouped(findings.extra),
                grouped(findings.behind),
                grouped(findings.dead_letters),
                words(sink, demands),
            ],
        };
        table.row(cells);
    }
    table
}

/// The verdicts about a sink, those that fail in capitals.
fn words(sink: &SinkReport, demands: &Demands) -> String {
    let word = |verdict: &audit::Verdict| match verdict.severity(demands.strict) {
        Severity::Good => verdict.word().to_owned(),
        Severity::Bad | Severity::Unknown => verdict.word().to_uppercase(),
    };
    sink.verdicts(demands).iter().map(word).collect::<Vec<_>>().join(", ")
}

fn explain(name: &str, findings: &SinkFindings, (demands, now): (&Demands, i64), lines: &mut Vec<String>) {
    for span in &findings.gone_unwritten {
        lines.push(format!(
            "\n{name}: offsets {}-{} of {}/{} are gone unwritten: the bus deleted them before this sink had written them",
            span.first, span.end, span.topic, span.partition
        ));
    }
    if let Some(other) = &findings.claimed_by {
        lines.push(format!(
            "\n{name}: its destination is claimed by another sink: {}. What it holds may be that sink's; `tallybus doctor` and \
             `tallybus sink claims {name}` say more",
            escape(other, false)
        ));
    }
    match findings.begun {
        Begun::Yes => {}
        Begun::Never => lines.push(format!(
            "\n{name}: never ran: its group holds no offset, and its destination no claim of the group. `tallybus run --sink \
             {name}` starts it"
        )),
        Begun::Forgotten => lines.push(format!(
            "\n{name}: its group holds no offset, but its destination has claims of the group, so it has run: the group was \
             deleted, the bus forgot it, or the topic was recreated. A worker does not count anything again; it halts. \
             `tallybus doctor --sink {name}` says which it was, and `tallybus group reset {name} --to oldest` how far the \
             destination was written: it changes nothing without --yes"
        )),
    }
    if !findings.differences.is_empty() {
        lines.push(format!("\n{name}: {}", differing(findings.differing_series as u64, findings.series as u64)));
        let looked_at = findings.differences.iter().take_while(|difference| difference.place.is_some()).count().max(1);
        for difference in findings.differences.iter().take(looked_at) {
            lines.push(difference_line(difference));
            lines.extend(place_line(difference));
        }
        let left = findings.differences.len() - looked_at.min(findings.differences.len());
        if left > 0 {
            lines.push(format!("  … and {} more; use --details N to locate more", grouped(left as u64)));
        }
    }
    explain_foreign(name, findings, lines);
    explain_lag(name, findings, (demands, now), lines);
    for wrong in findings.wrong_dead_letters.iter().take(MOST_SHOWN) {
        let index = wrong.index.map(|index| format!("/{index}")).unwrap_or_default();
        let at = format!("{}/{}/{}{index}", wrong.topic, wrong.partition, wrong.offset);
        let at = escape(&at, false);
        lines.push(format!("\n{name}: the dead letter {at} is wrong and explains nothing: {}", wrong.reason));
    }
    if findings.wrong_dead_letter_count > MOST_SHOWN as u64 {
        let more = findings.wrong_dead_letter_count - MOST_SHOWN as u64;
        lines.push(format!("\n{name}: {} more wrong", text::count_of(more, "dead letter")));
    }
    if findings.dead_total > 0 {
        lines.push(format!(
            "\n{name}: a value of {} is in its dead letters, not in the backend",
            grouped(findings.dead_total)
        ));
    }
    if findings.replayed > 0 {
        lines.push(format!("\n{name}: {} replayed", text::count_of(findings.replayed, "dead letter")));
    }
    lines.extend(findings.notes.iter().map(|note| format!("\n{name}: {note}")));
}

/// How many foreign points of each sink, and wrong dead letters, are shown as text.
const MOST_SHOWN: usize = 10;

fn explain_foreign(name: &str, findings: &SinkFindings, lines: &mut Vec<String>) {
    let foreign = &findings.foreign;
    if foreign.counts.is_empty() {
        return;
    }
    let kinds = foreign.counts.iter().map(|(kind, points)| format!("{} ({kind})", grouped(*points)));
    let kinds: Vec<String> = kinds.collect();
    let points = text::count_of(foreign.left_out() + foreign.off_window(), "point");
    lines.push(format!("\n{name}: {points} that no sink of this name writes: {}", kinds.join(", ")));
    for one in foreign.named.iter().take(MOST_SHOWN) {
        lines.push(format!("  {}: {}", one.kind, escape(&one.what, false)));
    }
    if foreign.left_out() > 0 {
        lines.push("  left out of the comparison; remove them, or give the sink a destination of its own".to_owned());
    }
}

fn explain_lag(name: &str, findings: &SinkFindings, (demands, now): (&Demands, i64), lines: &mut Vec<String>) {
    if findings.behind == 0 {
        return;
    }
    let behind = text::count_of(findings.behind, "message");
    let age = match findings.oldest_behind {
        Some(age) => format!("the oldest from {}", times::show(before(now, age))),
        None => "their age is not known".to_owned(),
    };
    let most = demands.max_lag.map(|most| format!(" (--max-lag {})", text::duration(most))).unwrap_or_default();
    let equal = if findings.equal() { "; equal up to the settled offset" } else { "" };
    lines.push(format!("\n{name}: {behind} not settled yet, {age}{most}{equal}"));
}

/// The time that lies so long before another.
fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// The bus may have fewer series than differ: those that only the backend has are extra.
fn differing(differing: u64, on_the_bus: u64) -> String {
    let verb = if differing == 1 { "differs" } else { "differ" };
    format!("{} {verb}; the bus has {}", text::count_of(differing, "series"), text::count_of(on_the_bus, "series"))
}

fn difference_line(difference: &Difference) -> String {
    let by = match (difference.missing, difference.extra) {
        (missing, 0) => format!("missing {}", grouped(missing)),
        (0, extra) => format!("extra {}", grouped(extra)),
        (missing, extra) => format!("missing {} and extra {}", grouped(missing), grouped(extra)),
    };
    format!(
        "  {}: {by} in {} (bus {}, sink {})",
        text::series(&difference.series),
        text::count_of(difference.windows, "window"),
        grouped(difference.expected),
        grouped(difference.total)
    )
}

fn place_line(difference: &Difference) -> Option<String> {
    let place = difference.place.as_ref()?;
    let spans =
        place.offsets.iter().map(|span| format!("{}/{}/{}-{}", span.topic, span.partition, span.first, span.end));
    let spans: Vec<String> = spans.collect();
    let offsets = if spans.is_empty() {
        "the bus has no messages there".to_owned()
    } else {
        format!("offsets {}", spans.join(", "))
    };
    Some(format!(
        "    first in the window from {}: bus {}, sink {}; {offsets}",
        times::show(place.window_start),
        grouped(place.expected),
        grouped(place.total)
    ))
}

fn explain_producers(report: &AuditReport, lines: &mut Vec<String>) {
    let producers = &report.producers;
    if producers.fault_count == 0 {
        if producers.producers > 0 {
            let who = text::count_of(producers.producers as u64, "producer");
            lines.push(format!("\n{who}: no gaps and no duplicates on the bus"));
        }
        return;
    }
    lines.push(format!(
        "\nproducers: {} in the sequence of messages",
        text::count_of(producers.fault_count as u64, "fault")
    ));
    for fault in producers.faults.iter().take(20) {
        let place = format!("{}/{}/{}", fault.topic, fault.partition, fault.offset);
        let what = match fault.kind {
            FaultKind::Gap { first, last } => format!("messages {first} to {last} are missing"),
            FaultKind::Duplicate { sequence } => format!("message {sequence} is duplicated"),
            FaultKind::Total { sequence } => format!("the running total of message {sequence} does not match"),
        };
        lines.push(format!("  {}: {what}, worth {} (seen at {place})", fault.producer, grouped(fault.value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_that_only_the_backend_has_are_not_counted_out_of_those_of_the_bus() {
        assert_eq!(differing(5, 0), "5 series differ; the bus has 0 series");
        assert_eq!(differing(1, 2), "1 series differs; the bus has 2 series");
    }
}
