//! The way of the counts: services, topics, sinks.

use std::collections::BTreeMap;

use tallybus_verify::live::{Picture, SinkPicture, TopicPicture, TopicRole, WorkerReport};

use super::super::looks::{Figures, Seen};
use super::super::routes::Page;
use super::{MOST_ROWS, Row, shell, state_class, table, texts};
use crate::commands::top::columns::{Column, SINKS, TOPICS, count, rate, seconds};
use crate::page::Html;
use crate::text::{self, count_of};

/// What the page shows.
pub(in super::super) fn flow(figures: &Figures<'_>) -> Html {
    let Some(seen) = figures.seen() else {
        return shell::view("Flow", "Flow", figures, Html::new());
    };
    let picture = &seen.picture;
    let bad = picture.sinks.iter().filter(|sink| sink.state.is_bad()).count() as u64;
    let mut html = Html::new();
    let all = count_of(picture.sinks.len() as u64, "sink");
    match (picture.sinks.is_empty(), bad) {
        (true, _) => verdict(&mut html, "verdict", "No sinks.", NO_SINKS),
        (_, 0) => verdict(&mut html, "verdict", "No sink needs attention.", &format!(" {all} in all.")),
        (_, 1) => verdict(&mut html, "verdict bad", "1 sink needs attention.", &format!(" {all} in all.")),
        _ => verdict(&mut html, "verdict bad", &format!("{bad} sinks need attention."), &format!(" {all} in all.")),
    }
    if let Some(error) = &picture.heartbeats_error {
        html.leaf(
            "p",
            &[("class", &"notice bad")],
            &format!("{error}. Reasons, workers and lags in seconds are not known."),
        );
    }
    html.add(drawing(picture));
    if !picture.sinks.is_empty() {
        html.leaf("h2", &[], "Sinks").add(sinks(picture));
    }
    html.leaf("h2", &[], "Topics").add(topics(picture));
    html.leaf("h2", &[], "Workers").add(workers(seen)).add(meanings());
    let title = if bad > 0 { format!("({bad}!) Flow") } else { "Flow".to_owned() };
    shell::view(&title, "Flow", figures, html)
}

const NO_SINKS: &str = " The settings have none, and no consumer group on the bus belongs to one: start the console with the settings of \
                        the workers (--config), or start a worker.";

fn verdict(html: &mut Html, class: &str, word: &str, rest: &str) {
    html.open("p", &[("class", &class)]).leaf("b", &[], word).text(rest).close("p");
}

/// Services, topics and sinks beside each other, from left to right.
fn drawing(picture: &Picture) -> Html {
    let mut html = Html::new();
    let counters: Vec<&TopicPicture> =
        picture.topics.iter().filter(|topic| topic.role == TopicRole::Counters).collect();
    let arriving: Option<f64> = counters.iter().map(|topic| topic.arriving_per_second).sum();
    html.open("div", &[("class", &"flow")]);
    html.open("section", &[("aria-label", &"Services")]).leaf("h2", &[], "Services");
    html.open("div", &[("class", &"card")]).open("p", &[("class", &"large")]);
    html.text(&rate(arriving)).close("p");
    html.leaf("p", &[("class", &"soft")], "messages a second arrive from all services together");
    html.close("div").close("section");

    html.open("section", &[("aria-label", &"Bus")]).leaf("h2", &[], "Bus");
    for topic in counters {
        html.open("div", &[("class", &"card"), ("data-key", &topic.name)]).leaf("h3", &[], &topic.name);
        match topic.partitions {
            None => html.leaf("p", &[("class", &"state bad")], "does not exist yet"),
            Some(partitions) => html.leaf(
                "p",
                &[("class", &"soft")],
                &format!(
                    "{} messages in {}, {} a second",
                    count(topic.messages),
                    count_of(u64::from(partitions), "partition"),
                    rate(topic.arriving_per_second)
                ),
            ),
        };
        html.close("div");
    }
    html.close("section");

    html.open("section", &[("class", &"sinks"), ("aria-label", &"Sinks, worst first")]).leaf("h2", &[], "Sinks");
    html.open("div", &[("class", &"cards")]);
    picture.sinks.iter().take(MOST_ROWS).for_each(|sink| card(&mut html, sink));
    html.close("div").close("section").close("div");
    html
}

fn card(html: &mut Html, sink: &SinkPicture) {
    html.open("div", &[("class", &"card"), ("data-key", &sink.name)]).open("h3", &[]);
    html.leaf("a", &[("href", &Page::Sink(sink.name.clone()).path())], &sink.name).close("h3");
    html.open("p", &[]).leaf("b", &[("class", &state_class(sink.state))], sink.state.name());
    html.leaf("span", &[("class", &"why")], &format!(": {}", sink.why)).close("p");
    let lag = match sink.lag_messages {
        None => "lag not known".to_owned(),
        Some(0) => "no lag".to_owned(),
        Some(lag) => {
            let age = sink.lag_seconds.map_or(String::new(), |age| format!(", the oldest {} old", seconds(Some(age))));
            format!("{} behind{age}", count_of(lag, "message"))
        }
    };
    html.leaf("p", &[("class", &"soft")], &format!("{lag}; {} settled a second", rate(sink.settled_per_second)));
    html.close("div");
}

/// Every column but the reason, which the cards have.
fn sinks(picture: &Picture) -> Html {
    let columns: Vec<&Column<SinkPicture>> = SINKS.iter().filter(|column| column.title != "WHY").collect();
    let rows = picture.sinks.iter().map(|sink| Row {
        of: sink,
        key: sink.name.clone(),
        class: state_class(sink.state),
        leads_to: Some(Page::Sink(sink.name.clone())),
    });
    table("Sinks, worst first", &columns, rows)
}

fn topics(picture: &Picture) -> Html {
    let columns: Vec<&Column<TopicPicture>> = TOPICS.iter().collect();
    let row = |topic| Row::<TopicPicture> { of: topic, key: topic.name.clone(), class: "", leads_to: None };
    table("Topics and what they hold", &columns, picture.topics.iter().map(row))
}

/// The worker processes, from what each says of its sinks.
fn workers(seen: &Seen) -> Html {
    let mut html = Html::new();
    let Some(reports) = &seen.reports else {
        html.leaf("p", &[("class", &"soft")], "Not known: no heartbeat has been read yet.");
        return html;
    };
    let mut processes: BTreeMap<&str, Vec<&WorkerReport>> = BTreeMap::new();
    for report in reports {
        processes.entry(&report.worker).or_default().push(report);
    }
    if processes.is_empty() {
        html.leaf("p", &[("class", &"soft")], "No worker says that it runs.");
        return html;
    }
    let left_out = processes.len().saturating_sub(MOST_ROWS);
    let rows = processes.iter().take(MOST_ROWS).map(|(worker, reports)| {
        let sinks: Vec<&str> = reports.iter().map(|report| report.sink.as_str()).collect();
        let partitions: usize = reports.iter().map(|report| report.partitions.len()).sum();
        vec![
            (*worker).to_owned(),
            presence(reports[0]),
            sinks.join(", "),
            text::grouped(partitions as u64),
            text::grouped(reports.iter().fold(0, |sum: u64, report| sum.saturating_add(report.retries))),
        ]
    });
    html.add(texts("Worker processes", &["worker", "heartbeat", "sinks", "partitions", "retries"], rows));
    if left_out > 0 {
        html.leaf("p", &[("class", &"soft")], &format!("{left_out} more are not listed here."));
    }
    html
}

/// Whether a worker lives.
pub(super) fn presence(report: &WorkerReport) -> String {
    if report.is_fresh() {
        return "fresh".to_owned();
    }
    format!("silent for {}: killed, hanging, or cut off from the bus", text::duration(report.age))
}

/// What the words of the tables mean.
fn meanings() -> Html {
    let mut html = Html::new();
    html.open("details", &[]).leaf("summary", &[], "What the figures mean").open("dl", &[]);
    for (word, meaning) in [
        ("lag", "messages on the bus that the sink has not settled"),
        ("oldest", "age of the oldest of them"),
        ("in/s, out/s", "messages that arrive, and that the sink settles, in a second"),
        ("catch up", "when the lag will be gone at these rates"),
        ("dead", "dead letters on the sink's topic, those that were sent back among them"),
        ("sealed", "batches that are sealed and not settled"),
        ("retries", "requests to the backend that workers have repeated since they started"),
        ("-", "not known; never 0"),
    ] {
        html.leaf("dt", &[], word).leaf("dd", &[], meaning);
    }
    html.close("dl").close("details");
    html
}
