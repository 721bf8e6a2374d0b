//! The result of an audit, as JSON and as text.

use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_verify::audit::{AuditReport, Difference, FaultKind, ProducerFault, SinkFindings};

use crate::failure::Verdict;
use crate::output::number;
use crate::text::{self, Table, grouped};
use crate::times;

pub(crate) fn verdict(report: &AuditReport) -> Verdict {
    if report.sinks.iter().any(|sink| sink.outcome.is_err()) {
        Verdict::CouldNotLook
    } else if report.equal() {
        Verdict::Good
    } else {
        Verdict::Bad
    }
}

/// The report as JSON.
pub(crate) fn as_json(report: &AuditReport) -> Value {
    let sinks: Vec<Value> = report
        .sinks
        .iter()
        .map(|sink| match &sink.outcome {
            Ok(findings) => findings_json(&sink.name, findings),
            Err(reason) => json!({
                "name": sink.name, "total": null, "missing": null, "extra": null, "error": reason,
            }),
        })
        .collect();
    json!({
        "equal": report.equal(),
        "bus": number(report.bus_total),
        "bus_events": report.bus_events,
        "undecodable": report.undecodable,
        "sinks": sinks,
        "producers": {
            "count": report.producers.producers,
            "faults": report.producers.fault_count,
            "details": report.producers.faults.iter().map(fault_json).collect::<Vec<_>>(),
        },
    })
}

fn findings_json(name: &str, findings: &SinkFindings) -> Value {
    json!({
        "name": name,
        "total": number(findings.total),
        "missing": number(findings.missing),
        "extra": number(findings.extra),
        "expected": number(findings.expected),
        "behind": findings.behind,
        "series": findings.series,
        "dead_letters": findings.dead_letters,
        "dead_total": number(findings.dead_total),
        "replayed": findings.replayed,
        "differing_series": findings.differing_series,
        "differences": findings.differences.iter().take(MOST_LISTED).map(difference_json).collect::<Vec<_>>(),
        "notes": findings.notes,
    })
}

/// The maximum number of differing series that are listed one by one.
const MOST_LISTED: usize = 1_000;

fn difference_json(difference: &Difference) -> Value {
    let place = difference.place.as_ref().map(|place| {
        json!({
            "window_start": place.window_start,
            "window": place.window,
            "expected": number(place.expected),
            "total": number(place.total),
            "offsets": place.offsets.iter().map(|span| json!({
                "topic": span.topic, "partition": span.partition, "first": span.first, "end": span.end,
            })).collect::<Vec<_>>(),
        })
    });
    json!({
        "name": difference.series.name(),
        "tags": tags_json(&difference.series),
        "expected": number(difference.expected),
        "total": number(difference.total),
        "missing": number(difference.missing),
        "extra": number(difference.extra),
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

/// The report as text, line by line.
pub(crate) fn lines(report: &AuditReport) -> Vec<String> {
    let mut lines =
        vec![format!("the bus holds {} in {}", grouped(report.bus_total), text::count_of(report.bus_events, "event"))];
    if report.undecodable > 0 {
        lines.push(format!("{} could not be decoded", text::count_of(report.undecodable, "record")));
    }
    lines.push(String::new());
    lines.extend(table(report).lines());
    for sink in &report.sinks {
        match &sink.outcome {
            Err(reason) => lines.push(format!("\n{}: unavailable: {reason}", sink.name)),
            Ok(findings) => explain(&sink.name, findings, &mut lines),
        }
    }
    explain_producers(report, &mut lines);
    lines
}

fn table(report: &AuditReport) -> Table {
    let mut table = Table::new(&["sink", ">total", ">missing", ">extra", ">behind", ">dead letters", "verdict"]);
    for sink in &report.sinks {
        let cells = match &sink.outcome {
            Err(_) => {
                let mut cells = vec![sink.name.clone()];
                cells.extend(std::iter::repeat_n("-".to_owned(), 5));
                cells.push("UNAVAILABLE".to_owned());
                cells
            }
            Ok(findings) => vec![
                sink.name.clone(),
                grouped(findings.total),
                grouped(findings.missing),
                grouped(findings.extra),
                grouped(findings.behind),
                grouped(findings.dead_letters),
                if findings.equal() { "equal".to_owned() } else { "NOT EQUAL".to_owned() },
            ],
        };
        table.row(cells);
    }
    table
}

fn explain(name: &str, findings: &SinkFindings, lines: &mut Vec<String>) {
    if !findings.equal() {
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
    if findings.behind > 0 && findings.equal() {
        let behind = text::count_of(findings.behind, "message");
        lines.push(format!("\n{name}: {behind} not settled yet; equal up to the settled offset"));
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

/// The bus may have fewer series than differ: those that only the backend has are extra.
fn differing(differing: u64, on_the_bus: u64) -> String {
    let verb = if differing == 1 { "differs" } else { "differ" };
    format!("{} {verb}; the bus has {}", text::count_of(differing, "series"), text::count_of(on_the_bus, "series"))
}

fn difference_line(difference: &Difference) -> String {
    let (what, by) = if difference.missing > 0 { ("missing", difference.missing) } else { ("extra", difference.extra) };
    format!(
        "  {}: {what} {} (bus {}, sink {})",
        text::series(&difference.series),
        grouped(by),
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
