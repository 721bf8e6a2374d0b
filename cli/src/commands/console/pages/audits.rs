//! Reports of audits.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::reports::{Found, Listed, Report};
use super::super::routes::Page;
use super::moment;
use super::shell::whole;
use crate::charts::{Line, Lines, Unit, figure as chart};
use crate::page::{Html, Table};
use crate::text::grouped;

/// How the page says that there is nothing to show.
pub(super) const NO_DIRECTORY: &str = "The console was started without --reports DIRECTORY. With it, this page lists the reports in that \
                                       directory, the newest first.";

/// The most sinks that have a line of their own in a chart: more cannot be told apart.
const MOST_LINES: usize = 6;
/// The most differing series that are listed.
const MOST_DIFFERENCES: usize = 200;

/// The reports of audits; `None` without a directory.
pub(in super::super) fn audits(listed: Option<&Listed>) -> String {
    let mut html = Html::new();
    html.leaf("h1", &[], "Audits");
    let Some(listed) = listed else {
        html.leaf("p", &[], NO_DIRECTORY);
        how_to_write(&mut html);
        return whole(&Page::Audits, "Audits", html);
    };
    let audits: Vec<(&Found, &Value)> = listed
        .found
        .iter()
        .filter_map(|found| match &found.report {
            Report::Audit(report) => Some((found, report)),
            Report::Comparison(_) => None,
        })
        .collect();
    match audits.first() {
        None => {
            html.leaf("p", &[], "The directory holds no report of an audit.");
            how_to_write(&mut html);
        }
        Some((newest, report)) => {
            verdict(&mut html, report, &format!(" The newest is of {}.", second(&newest.time)));
            html.add(table(&audits)).add(history(&audits));
        }
    }
    others(&mut html, listed);
    whole(&Page::Audits, "Audits", html)
}

fn how_to_write(html: &mut Html) {
    html.open("p", &[]).text("To write one: ");
    html.leaf("code", &[], "tallybus audit --json > DIRECTORY/audit-$(date +%Y%m%dT%H%M%S).json").close("p");
}

/// Files of the directory that are shown nowhere.
pub(super) fn others(html: &mut Html, listed: &Listed) {
    if listed.left_out > 0 {
        let left_out = grouped(listed.left_out as u64);
        html.leaf("p", &[("class", &"soft")], &format!("{left_out} older files are not looked at."));
    }
    if listed.unreadable.is_empty() {
        return;
    }
    html.open("details", &[]).leaf("summary", &[], "Files that could not be read").open("ul", &[("class", &"plain")]);
    for (name, reason) in &listed.unreadable {
        html.leaf("li", &[], &format!("{name}: {reason}"));
    }
    html.close("ul").close("details");
}

fn verdict(html: &mut Html, report: &Value, rest: &str) {
    let (class, word) = match (report["equal"].as_bool(), report["complete"].as_bool()) {
        (Some(true), Some(true)) => ("verdict", "Equal and complete."),
        (Some(true), _) => ("verdict", "Equal, as far as is settled."),
        _ => ("verdict bad", "Not equal, or not known."),
    };
    html.open("p", &[("class", &class)]).leaf("b", &[], word).text(rest).close("p");
}

fn table(audits: &[(&Found, &Value)]) -> Html {
    let mut html = Html::new();
    html.open("div", &[("class", &"wide"), ("tabindex", &0), ("role", &"region"), ("aria-label", &"Audits")]);
    html.open("table", &[]).leaf("caption", &[], "Audits, the newest first").open("thead", &[]).open("tr", &[]);
    for title in ["time", "verdict", "sinks"] {
        html.leaf("th", &[("scope", &"col"), ("class", &"text")], title);
    }
    html.leaf("th", &[("scope", &"col")], "on the bus").leaf("th", &[("scope", &"col"), ("class", &"text")], "file");
    html.close("tr").close("thead").open("tbody", &[]);
    for (found, report) in audits {
        html.open("tr", &[]).open("th", &[("scope", &"row")]);
        html.leaf("a", &[("href", &Page::Audit(found.name.clone()).path())], &second(&found.time)).close("th");
        let (class, word) = match report["equal"].as_bool() {
            Some(true) => ("text state good", "equal"),
            _ => ("text state bad", "not equal"),
        };
        html.leaf("td", &[("class", &class)], word);
        let of = |sink: &Value| format!("{}: {}", word_of(&sink["name"]), word_of(&sink["verdict"]));
        let sinks: Vec<String> = report["sinks"].as_array().into_iter().flatten().map(of).collect();
        html.leaf("td", &[("class", &"text")], &sinks.join(", "));
        html.leaf("td", &[], &number(&report["bus"])).leaf("td", &[("class", &"text")], &found.name);
        html.close("tr");
    }
    html.close("tbody").close("table").close("div");
    html
}

/// What was missing and extra in each sink, over all audits.
fn history(audits: &[(&Found, &Value)]) -> Html {
    let mut html = Html::new();
    let seconds =
        |found: &Found| found.time.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond() as f64 / 1e3);
    // Oldest first, and only those that say when they were made.
    let dated: Vec<(f64, &Value)> =
        audits.iter().rev().filter_map(|(found, report)| Some((seconds(found)?, *report))).collect();
    let Some((last, _)) = dated.last().filter(|_| dated.len() > 1) else { return html };
    let mut sinks: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
    for (number, (_, report)) in dated.iter().enumerate() {
        for sink in report["sinks"].as_array().into_iter().flatten() {
            let Some(name) = sink["name"].as_str() else { continue };
            let values = sinks.entry(name).or_insert_with(|| vec![None; dated.len()]);
            let off = |of: &str| sink[of].as_f64();
            values[number] = off("missing").zip(off("extra")).map(|(missing, extra)| missing + extra);
        }
    }
    let line = |(name, values): (&str, Vec<Option<f64>>)| Line { name: name.to_owned(), values };
    let lines = Lines {
        title: "Missing or extra".to_owned(),
        about: "By sink, over all these audits; the newest is at the right. What is not known is a gap.".to_owned(),
        x: (Unit::Seconds, dated.iter().map(|(at, _)| at - last).collect()),
        y: Unit::Count("increments"),
        lines: sinks.into_iter().take(MOST_LINES).map(line).collect(),
        outages: Vec::new(),
    };
    html.leaf("h2", &[], "History").add(chart("history", &lines));
    html
}

/// The report of one audit.
pub(in super::super) fn audit(found: &Found, report: &Value) -> String {
    let mut html = Html::new();
    html.leaf("h1", &[], &format!("Audit of {}", second(&found.time)));
    verdict(&mut html, report, "");
    let on_bus = format!("The bus held {} in {} events.", number(&report["bus"]), number(&report["bus_events"]));
    html.leaf("p", &[("class", &"soft")], &format!("{on_bus} File {}.", found.name));
    let titles = ["sink", "verdict", "total", "missing", "extra", "behind", "dead letters"];
    let mut sinks = Table::new("What each sink held", titles.map(str::to_owned)).with_text(&[1]);
    for sink in report["sinks"].as_array().into_iter().flatten() {
        let verdicts: Vec<String> = sink["verdicts"].as_array().into_iter().flatten().map(word_of).collect();
        let figures = ["total", "missing", "extra", "behind", "dead_letters"].map(|of| number(&sink[of]));
        sinks.row([vec![word_of(&sink["name"]), verdicts.join(", ")], figures.to_vec()].concat());
    }
    html.add(sinks.html());
    for sink in report["sinks"].as_array().into_iter().flatten() {
        of_sink(&mut html, sink);
    }
    let faults = report["producers"]["faults"].as_u64().unwrap_or_default();
    if faults > 0 {
        let text = format!("Producers: {} faults in the sequence of their messages.", grouped(faults));
        html.leaf("p", &[("class", &"notice bad")], &text);
    }
    whole(&Page::Audit(found.name.clone()), "Audit", html)
}

fn of_sink(html: &mut Html, sink: &Value) {
    let notes: Vec<&str> = sink["notes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let differences = sink["differences"].as_array().map_or(&[][..], Vec::as_slice);
    let error = sink["error"].as_str();
    if notes.is_empty() && differences.is_empty() && error.is_none() {
        return;
    }
    html.leaf("h2", &[], &word_of(&sink["name"]));
    if let Some(error) = error {
        html.leaf("p", &[("class", &"notice bad")], &format!("Unavailable: {error}"));
    }
    if !differences.is_empty() {
        let titles = ["series", "first difference", "expected", "total", "missing", "extra"];
        let mut table = Table::new("Series that differ", titles.map(str::to_owned)).with_text(&[1]);
        for difference in differences.iter().take(MOST_DIFFERENCES) {
            let tags = difference["tags"].as_object().into_iter().flatten();
            let tags: String = tags.map(|(key, value)| format!(" {key}={}", word_of(value))).collect();
            let figures = ["expected", "total", "missing", "extra"].map(|of| number(&difference[of]));
            let first = word_of(&difference["first_difference"]["window_start"]);
            table.row([vec![format!("{}{tags}", word_of(&difference["name"])), first], figures.to_vec()].concat());
        }
        html.add(table.html());
        if differences.len() > MOST_DIFFERENCES {
            html.leaf("p", &[("class", &"soft")], "The file lists more of them.");
        }
    }
    if !notes.is_empty() {
        html.open("ul", &[("class", &"plain")]);
        for note in notes {
            html.leaf("li", &[], note);
        }
        html.close("ul");
    }
}

/// A time of a report without its fraction of a second.
pub(super) fn second(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(|_| time.to_owned(), |time| moment(time.as_millisecond()))
}

/// A figure of a report, to its last digit.
fn number(value: &Value) -> String {
    match value {
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        // Beyond 64 bits, JSON has the digits as text.
        Value::String(digits) => digits.parse::<u128>().map_or_else(|_| digits.clone(), grouped),
        _ => "-".to_owned(),
    }
}

/// A text of a report; `-` where there is none.
fn word_of(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}
