//! The demo's report: one HTML file that needs nothing else.

use tallybus_verify::audit::{AuditReport, Demands};

use super::act::{Kill, Takeover};
use super::figures::Figures;
use super::hints::{Hint, lines};
use super::samples::{Sample, rates, resolution};
use crate::charts::{Bar, Bars, Chart, Curve, Distribution, Line, Lines, Outage, Unit, figure};
use crate::page::{Html, Table, page};
use crate::report;
use crate::text::{count_of, grouped};

/// Rates are over at least this many seconds: a batch of Parquet takes one to fill.
const RATE_OVER: f64 = 2.0;

/// What the demo came to.
pub(super) struct Played<'a> {
    pub(super) report: &'a AuditReport,
    pub(super) samples: &'a [Sample],
    pub(super) figures: &'a [Figures],
    pub(super) takeover: Option<Takeover>,
    /// The sink whose worker was killed.
    pub(super) killed: &'a str,
    pub(super) emitted: u64,
    pub(super) is_exact: bool,
    pub(super) seconds: f64,
    pub(super) hints: &'a [Hint],
}

impl Played<'_> {
    pub(super) fn html(&self) -> String {
        let mut html = Html::new();
        let killed = if self.takeover.is_some() { ", one worker killed" } else { "" };
        html.leaf("h1", &[], &format!("Tallybus demo: one stream, three backends{killed}"));
        self.verdict(&mut html);
        html.leaf("h2", &[], "What was proved");
        for paragraph in self.proof() {
            html.leaf("p", &[], &paragraph);
        }
        html.leaf("h2", &[], "Side by side").add(self.table().html());
        html.leaf("p", &[("class", &"soft")], SIDE_BY_SIDE);
        html.open("div", &[("class", &"charts")]);
        for (id, chart) in [
            ("behind", &self.behind() as &dyn Chart),
            ("delays", &self.delays()),
            ("rate", &self.rate()),
            ("totals", &self.totals()),
            ("size", &self.size()),
        ] {
            html.add(figure(id, chart));
        }
        html.close("div");
        html.leaf("h2", &[], "What to try next");
        html.leaf("p", &[], "In a terminal, in the directory in which the demo was started:");
        html.lines("pre", lines(self.hints).iter().map(String::as_str));
        html.leaf("h2", &[], "The audit, to the letter");
        let audit = report::lines(self.report, &Demands::default(), None).join("\n");
        html.lines("pre", audit.lines());
        html.leaf("h2", &[], "Words").open("dl", &[]);
        for (word, meaning) in WORDS {
            html.leaf("dt", &[], word).leaf("dd", &[], meaning);
        }
        html.close("dl");
        page("Tallybus demo", html)
    }

    fn verdict(&self, html: &mut Html) {
        let emitted = count_of(self.emitted, "increment");
        if self.is_exact {
            let text = format!(
                " {emitted} counted, and each of the {} backends holds exactly {}: none is missing, none counts twice.",
                self.figures.len(),
                grouped(self.emitted)
            );
            html.open("p", &[("class", &"verdict")]).leaf("b", &[], "Equal.").text(&text).close("p");
        } else {
            let text = format!(
                " {emitted} counted, and what the bus or a backend holds is something else. The audit below says what; \
                 the logs of the workers are beside this file.",
            );
            html.open("p", &[("class", &"verdict bad")]).leaf("b", &[], "Not equal.").text(&text).close("p");
        }
    }

    fn proof(&self) -> Vec<String> {
        let messages = self.samples.last().map_or(0, Sample::messages);
        let mut paragraphs = vec![format!(
            "Four threads counted {} through the collector, the library that a service links. It published them to the \
             bus, here one file, as {}. Three workers, each a process with a consumer group of its own, wrote them \
             into three backends at the same time: {}.",
            count_of(self.emitted, "increment"),
            count_of(messages, "message"),
            self.figures.iter().map(|sink| format!("{} ({})", sink.name, sink.what)).collect::<Vec<_>>().join("; ")
        )];
        match &self.takeover {
            Some(Takeover {
                killed: Kill { pid, seconds, batches, messages },
                pid: successor,
                seconds: taken_over,
            }) => {
                paragraphs.push(format!(
                    "After {seconds:.1} s the worker of {} (process {pid}) was killed with SIGKILL in the middle of {}: \
                     {} whose batches were sealed, so that the bus knew where each ends, but not settled, so that \
                     nobody could know whether the database had them. After {taken_over:.1} s another process \
                     ({successor}) had taken over: it wrote the same batches again under the same names, and the \
                     database counted each once. The other sinks noticed nothing; each has its own group, worker and \
                     backend.",
                    self.killed,
                    count_of(*batches, "batch"),
                    count_of(*messages, "message"),
                ));
            }
            None => paragraphs.push(
                "No worker was killed: none was found in the middle of a batch. With more increments there is more to \
                 be in the middle of: leave --events out."
                    .to_owned(),
            ),
        }
        paragraphs.push(
            "Then the audit read the bus and every backend, and compared each window of each series to the last count. \
             The command tallybus audit does the same with your services, while everything runs."
                .to_owned(),
        );
        paragraphs
    }

    /// A column for each sink: so it fits on a phone.
    fn table(&self) -> Table {
        let names = self.figures.iter().map(|sink| sink.name.clone());
        let caption = format!("The three sinks, after {:.1} s", self.seconds);
        let mut table = Table::new(&caption, std::iter::once(String::new()).chain(names));
        let mut row = |title: &str, cell: &dyn Fn(usize, &Figures) -> String| {
            let cells = self.figures.iter().enumerate().map(|(number, sink)| cell(number, sink));
            table.row(std::iter::once(title.to_owned()).chain(cells).collect());
        };
        let audited = |number: usize, text: &dyn Fn(&tallybus_verify::audit::SinkFindings) -> String| {
            let outcome = self.report.sinks.get(number).map(|sink| &sink.outcome);
            match outcome {
                Some(Ok(findings)) => text(findings),
                _ => Unit::Count("").exact(None),
            }
        };
        row("verdict", &|number, _| {
            audited(number, &|findings| if findings.equal() { "equal".to_owned() } else { "not equal".to_owned() })
        });
        row("total", &|number, _| audited(number, &|findings| grouped(findings.total)));
        row("missing", &|number, _| audited(number, &|findings| grouped(findings.missing)));
        row("extra", &|number, _| audited(number, &|findings| grouped(findings.extra)));
        row("series", &|number, _| audited(number, &|findings| grouped(findings.series as u64)));
        row("windows of series", &|_, sink| Unit::Count("").exact(sink.windows.map(|windows| windows as f64)));
        row("on disk", &|_, sink| Unit::Bytes.exact(Some(sink.bytes as f64)));
        row("bytes per window", &|_, sink| {
            let windows = sink.windows.filter(|windows| *windows > 0);
            Unit::Bytes.exact(windows.map(|windows| (sink.bytes as f64 / windows as f64).round()))
        });
        row("increments/s, on average", &|_, sink| {
            let rate = sink.settled_after.map(|seconds| (self.emitted as f64 / seconds.max(f64::MIN_POSITIVE)).round());
            Unit::Count("").exact(rate)
        });
        row("half of the messages within", &|_, sink| Unit::Seconds.exact(sink.within(0.5)));
        row("all messages within", &|_, sink| Unit::Seconds.exact(sink.within(1.0)));
        row("most messages behind", &|_, sink| grouped(sink.most_behind));
        table
    }

    fn seconds(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.seconds).collect()
    }

    /// A line for each sink.
    fn lines(&self, value: impl Fn(usize) -> Vec<Option<f64>>) -> Vec<Line> {
        let line = |(number, sink): (usize, &Figures)| Line { name: sink.name.clone(), values: value(number) };
        self.figures.iter().enumerate().map(line).collect()
    }

    fn outages(&self) -> Vec<Outage> {
        let outage = |takeover: &Takeover| Outage {
            name: format!("no worker of {}", self.killed),
            from: takeover.killed.seconds,
            to: Some(takeover.seconds),
        };
        self.takeover.iter().map(outage).collect()
    }

    fn behind(&self) -> Lines {
        Lines {
            title: "Messages behind the bus".to_owned(),
            about: "While one sink has no worker, its messages wait on the bus; the others go on.".to_owned(),
            x: (Unit::Seconds, self.seconds()),
            y: Unit::Count("messages"),
            lines: self.lines(|sink| self.samples.iter().map(|sample| Some(sample.behind(sink) as f64)).collect()),
            outages: self.outages(),
        }
    }

    fn rate(&self) -> Lines {
        Lines {
            title: "Messages settled per second".to_owned(),
            about: "Over the two seconds before. The new worker catches up as fast as it can.".to_owned(),
            x: (Unit::Seconds, self.seconds()),
            y: Unit::Count("messages/s"),
            lines: self.lines(|sink| rates(self.samples, RATE_OVER, |sample| sample.settled(sink))),
            outages: self.outages(),
        }
    }

    fn totals(&self) -> Lines {
        let line = |name: &str, value: fn(&Sample) -> u64| Line {
            name: name.to_owned(),
            values: self.samples.iter().map(|sample| Some(value(sample) as f64)).collect(),
        };
        Lines {
            title: "Increments counted and on the bus".to_owned(),
            about: "The collector sums increments in memory and publishes the sums every 0.2 s.".to_owned(),
            x: (Unit::Seconds, self.seconds()),
            y: Unit::Count("increments"),
            lines: vec![line("counted", |sample| sample.emitted), line("on the bus", |sample| sample.delivered)],
            outages: Vec::new(),
        }
    }

    fn delays(&self) -> Distribution {
        let curve = |sink: &Figures| Curve { name: sink.name.clone(), points: sink.delays.clone() };
        Distribution {
            title: "From the bus to settled".to_owned(),
            about: format!(
                "The share of messages that were settled within a time, which may be shorter by {} at most: the \
                 demo looked no more often.",
                Unit::Seconds.short(resolution(self.samples))
            ),
            unit: Unit::Seconds,
            of: "messages",
            curves: self.figures.iter().map(curve).collect(),
        }
    }

    fn size(&self) -> Bars {
        let bar = |(series, sink): (usize, &Figures)| Bar {
            name: sink.what.clone(),
            series,
            value: Some(sink.bytes as f64),
            interval: None,
        };
        Bars {
            title: "On disk".to_owned(),
            about: "The files of each backend, with what they need to be written exactly once.".to_owned(),
            unit: Unit::Bytes,
            bars: self.figures.iter().enumerate().map(bar).collect(),
        }
    }
}

/// What the table does not say by itself.
const SIDE_BY_SIDE: &str = "All three follow one stream, so that these are no limits: how fast each could go is what \
                            tallybus compare measures. Parquet waits up to a second for a batch, which makes fewer and larger files; \
                            the windows of a minute make fewer sums; a shorter wait makes what was counted visible \
                            sooner. Those are settings, and this is what they cost.";

const WORDS: [(&str, &str); 8] = [
    ("increment", "One call of count! or of a counter's handle: something happened once, or n times."),
    ("series", "A counter's name with its tags."),
    ("window", "A stretch of time whose increments of one series are summed into one figure."),
    ("message", "One record on the bus. The collector puts the sums of many series into one."),
    ("sink, worker", "A sink is what writes to one backend; its worker is the process or thread that runs it."),
    ("batch", "Messages that are written together."),
    (
        "sealed",
        "Where a batch ends is fixed on the bus before its first byte is written, so that every worker writes the same one.",
    ),
    ("settled", "The backend has acknowledged the batch, and the group's offset has passed it."),
];
