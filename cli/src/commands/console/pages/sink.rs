//! One sink: how far it is, why it is no further, and what it has refused.

use tallybus_verify::live::{PartitionPicture, SinkPicture, TopicRole, WorkerReport};

use super::super::dead_letters::{DeadLetters, MOST, Shown};
use super::super::looks::{Figures, Seen, Snapshot};
use super::flow::presence;
use super::{Row, figure, moment, shell, state_class, table, texts};
use crate::charts::{Line, Lines, Unit, figure as chart};
use crate::commands::top::columns::{Column, PARTITIONS, SINKS, place};
use crate::page::Html;
use crate::text::{self, count_of};

/// What the page shows of the sink of this name.
pub(in super::super) fn sink(name: &str, snapshot: &Snapshot, figures: &Figures<'_>, dead: &DeadLetters) -> Html {
    let Some(seen) = figures.seen() else {
        return shell::view(name, name, figures, Html::new());
    };
    let mut html = Html::new();
    let Some(sink) = seen.picture.sinks.iter().find(|sink| sink.name == name) else {
        html.leaf(
            "p",
            &[("class", &"notice bad")],
            "There is no such sink, neither in the settings nor as a group on the bus.",
        );
        return shell::view(name, name, figures, html);
    };
    let reports: Vec<&WorkerReport> = seen.reports.iter().flatten().filter(|report| report.sink == sink.name).collect();
    let class = if sink.state.is_bad() { "verdict bad" } else { "verdict" };
    html.open("p", &[("class", &class)]).leaf("b", &[("class", &state_class(sink.state))], sink.state.name());
    html.text(": ").text(&sink.why).close("p");
    halts(&mut html, &reports);
    key_figures(&mut html, sink);
    charts(&mut html, name, snapshot);
    html.leaf("h2", &[], "Workers").add(workers(seen, &reports));
    html.leaf("h2", &[], "Partitions").add(partitions(sink));
    html.leaf("h2", &[], "Last dead letters");
    dead_letters(&mut html, seen, sink, dead);
    let title = if sink.state.is_bad() { format!("(!) {name}") } else { name.to_owned() };
    shell::view(&title, name, figures, html)
}

/// Every reason of every worker, whole: it says what is safe and what to do.
fn halts(html: &mut Html, reports: &[&WorkerReport]) {
    let mut reasons: Vec<&String> = reports.iter().flat_map(|report| &report.halts).collect();
    reasons.sort_unstable();
    reasons.dedup();
    if reasons.is_empty() {
        return;
    }
    html.leaf("h2", &[], "Halted: an operator must act").open("ul", &[("class", &"plain halts")]);
    for reason in reasons {
        html.leaf("li", &[], reason);
    }
    html.close("ul");
}

fn key_figures(html: &mut Html, sink: &SinkPicture) {
    html.open("dl", &[("class", &"keys")]);
    for column in SINKS.iter().filter(|column| !matches!(column.title, "SINK" | "STATE" | "WHY" | "KIND")) {
        html.open("div", &[]).leaf("dt", &[], &column.title.to_lowercase());
        html.open("dd", &[("data-column", &column.title)]);
        figure(html, &(column.text)(sink), &(column.by)(sink));
        html.close("dd").close("div");
    }
    html.close("dl");
    let kind = sink.kind.as_ref().map_or(String::new(), |kind| format!("Kind {kind}, "));
    html.leaf("p", &[("class", &"soft")], &format!("{kind}consumer group {}.", sink.group));
}

fn charts(html: &mut Html, name: &str, snapshot: &Snapshot) {
    let points: Vec<_> = snapshot.trail(name).collect();
    let Some(last) = points.last().filter(|_| points.len() > 1) else { return };
    let x = || points.iter().map(|point| (point.time_ms - last.time_ms) as f64 / 1e3).collect::<Vec<f64>>();
    let lag = Lines {
        title: "Lag".to_owned(),
        about: "Messages that are not settled, since the console has looked; now is at the right.".to_owned(),
        x: (Unit::Seconds, x()),
        y: Unit::Count("messages"),
        lines: vec![Line { name: "lag".to_owned(), values: points.iter().map(|point| point.lag).collect() }],
        outages: Vec::new(),
    };
    let rates = Lines {
        title: "Rates".to_owned(),
        about: "Messages a second, over the ten seconds before.".to_owned(),
        x: (Unit::Seconds, x()),
        y: Unit::Count("messages/s"),
        lines: vec![
            Line { name: "arriving".to_owned(), values: points.iter().map(|point| point.arriving).collect() },
            Line { name: "settled".to_owned(), values: points.iter().map(|point| point.settled).collect() },
        ],
        outages: Vec::new(),
    };
    html.open("div", &[("class", &"charts")]).add(chart("lag", &lag)).add(chart("rates", &rates)).close("div");
}

fn workers(seen: &Seen, reports: &[&WorkerReport]) -> Html {
    let mut html = Html::new();
    if seen.reports.is_none() {
        html.leaf("p", &[("class", &"soft")], "Not known: no heartbeat has been read yet.");
        return html;
    }
    if reports.is_empty() {
        html.leaf("p", &[("class", &"soft")], "No worker of this sink says that it runs.");
        return html;
    }
    let rows = reports.iter().map(|report| {
        vec![
            report.worker.clone(),
            presence(report),
            text::grouped(report.partitions.len() as u64),
            text::grouped(report.retries),
            report.last_error.clone().unwrap_or_else(|| "none".to_owned()),
        ]
    });
    html.add(texts("Workers of this sink", &["worker", "heartbeat", "partitions", "retries", "last error"], rows));
    html
}

/// The columns of `tallybus top`, with the topic in the first one.
fn partitions(sink: &SinkPicture) -> Html {
    let mut html = Html::new();
    if sink.partitions.is_empty() {
        html.leaf("p", &[("class", &"soft")], "None is known.");
        return html;
    }
    let columns: Vec<&Column<PartitionPicture>> = PARTITIONS.iter().collect();
    let rows = sink.partitions.iter().map(|partition| Row {
        of: partition,
        key: place(partition),
        class: if partition.halted.is_some() { "state halted" } else { "" },
        leads_to: None,
    });
    let mut topics: Vec<&str> = sink.partitions.iter().map(|partition| partition.topic.as_str()).collect();
    topics.sort_unstable();
    topics.dedup();
    // Partitions of several topics are told apart by a table for each of them.
    for topic in topics {
        let of_topic: Vec<Row<'_, PartitionPicture>> = rows.clone().filter(|row| row.of.topic == topic).collect();
        html.add(table(&format!("Partitions of {topic}, worst first"), &columns, of_topic.into_iter()));
    }
    html
}

fn dead_letters(html: &mut Html, seen: &Seen, sink: &SinkPicture, dead: &DeadLetters) {
    let is_theirs = |role: &TopicRole| matches!(role, TopicRole::DeadLetters { sink: of } if *of == sink.name);
    let Some(topic) = seen.picture.topics.iter().find(|topic| is_theirs(&topic.role)) else { return };
    let Some(held) = topic.messages.filter(|held| *held > 0) else {
        html.leaf("p", &[("class", &"soft")], "None: the sink has refused nothing.");
        return;
    };
    match dead.of(&topic.name, held) {
        Shown::Reading => {
            html.leaf("p", &[("class", &"soft")], "They are being read.");
        }
        Shown::Failed(error) => {
            html.leaf("p", &[("class", &"notice bad")], &format!("They could not be read, and will be again: {error}"));
        }
        Shown::Read { dead_letters, is_complete } => {
            let rows = dead_letters.iter().map(|one| {
                let events = if one.events > 0 { text::grouped(one.events) } else { "not decoded".to_owned() };
                vec![moment(one.time_ms), one.coordinate.clone(), events, one.reason.clone()]
            });
            let caption = format!("The newest of {}, {MOST} at most", count_of(held, "message"));
            html.add(texts(&caption, &["refused at", "coordinate", "events", "reason"], rows));
            if !is_complete {
                html.leaf("p", &[("class", &"soft")], "The bus did not answer in time: there may be newer ones.");
            }
        }
    }
    html.open("p", &[("class", &"soft")]).text("Which of them were sent back: ");
    html.leaf("code", &[], &format!("tallybus replay list --sink {}", sink.name)).close("p");
}
