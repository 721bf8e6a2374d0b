//! The demo's report: one HTML file that needs nothing else.

use std::fmt::Write;

use tallybus_verify::audit::{AuditReport, Demands};

use crate::report;
use crate::text::{count_of, grouped};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#2da44e", "#bf3989", "#bc4c00"];

/// A sample of the progress.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) seconds: f64,
    pub(super) emitted: u64,
    pub(super) delivered: u64,
    pub(super) messages: u64,
    /// By sink.
    pub(super) settled: Vec<u64>,
}

pub(super) struct Page<'a> {
    pub(super) report: &'a AuditReport,
    pub(super) samples: &'a [Sample],
    pub(super) emitted: u64,
    pub(super) seconds: f64,
    pub(super) sinks: &'a [&'a str],
}

impl Page<'_> {
    pub(super) fn html(&self) -> String {
        let mut html = String::from(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Tallybus demo</title>\n<style>\n\
             body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1f2328}\n\
             table{border-collapse:collapse;width:100%}th,td{padding:.35rem .6rem;border-bottom:1px solid #d0d7de;text-align:right}\n\
             th:first-child,td:first-child{text-align:left}svg{width:100%;height:auto;background:#f6f8fa}\n\
             .good{color:#1a7f37}.bad{color:#cf222e}pre{background:#f6f8fa;padding:1rem;overflow:auto}\n\
             .key{display:inline-block;width:.8em;height:.8em;margin:0 .4em 0 1em}\n</style></head><body>\n<h1>Tallybus demo</h1>\n",
        );
        // Writing to a string cannot fail.
        let _ = writeln!(
            html,
            "<p>{} emitted, {} on the bus in {}, in {:.1} seconds.</p>",
            count_of(self.emitted, "increment"),
            grouped(self.report.bus_total),
            count_of(self.report.bus_events, "event"),
            self.seconds
        );
        self.table(&mut html);
        html.push_str("<h2>Emitted and on the bus</h2>\n");
        let emitted: Vec<u64> = self.samples.iter().map(|sample| sample.emitted).collect();
        let delivered: Vec<u64> = self.samples.iter().map(|sample| sample.delivered).collect();
        self.chart(&mut html, "increments", &[("emitted".to_owned(), emitted), ("on the bus".to_owned(), delivered)]);
        html.push_str("<h2>Messages on the bus and settled by each worker</h2>\n");
        let messages: Vec<u64> = self.samples.iter().map(|sample| sample.messages).collect();
        let mut lines = vec![("on the bus".to_owned(), messages)];
        for (place, sink) in self.sinks.iter().enumerate() {
            let settled = self.samples.iter().map(|sample| sample.settled.get(place).copied().unwrap_or_default());
            lines.push(((*sink).to_owned(), settled.collect()));
        }
        self.chart(&mut html, "messages", &lines);
        html.push_str("<h2>The audit</h2>\n<pre>");
        html.push_str(&escape(&report::lines(self.report, &Demands::default()).join("\n")));
        html.push_str("</pre>\n</body></html>\n");
        html
    }

    fn table(&self, html: &mut String) {
        html.push_str("<table><tr><th>sink</th><th>total</th><th>missing</th><th>extra</th><th>verdict</th></tr>\n");
        for sink in &self.report.sinks {
            let name = escape(&sink.name);
            let _ = match &sink.outcome {
                Ok(findings) => {
                    let (class, verdict) = if findings.equal() { ("good", "equal") } else { ("bad", "not equal") };
                    let (total, missing, extra) =
                        (grouped(findings.total), grouped(findings.missing), grouped(findings.extra));
                    writeln!(
                        html,
                        "<tr><td>{name}</td><td>{total}</td><td>{missing}</td><td>{extra}</td><td class=\"{class}\">{verdict}</td></tr>"
                    )
                }
                Err(reason) => {
                    writeln!(html, "<tr><td>{name}</td><td colspan=\"4\" class=\"bad\">{}</td></tr>", escape(reason))
                }
            };
        }
        html.push_str("</table>\n");
    }

    fn chart(&self, html: &mut String, unit: &str, lines: &[(String, Vec<u64>)]) {
        let last = self.samples.last().map_or(1.0, |sample| sample.seconds.max(0.001));
        let highest = lines.iter().flat_map(|(_, values)| values).copied().max().unwrap_or(1).max(1);
        for ((name, _), colour) in lines.iter().zip(COLOURS) {
            let _ = write!(html, "<span class=\"key\" style=\"background:{colour}\"></span>{}", escape(name));
        }
        let _ = writeln!(html, "\n<svg viewBox=\"-10 -20 {} {}\" role=\"img\">", WIDTH + 20.0, HEIGHT + 50.0);
        let _ = writeln!(html, "<text x=\"0\" y=\"-5\" font-size=\"13\">{} {unit}</text>", grouped(highest));
        let _ = writeln!(
            html,
            "<text x=\"{WIDTH}\" y=\"{}\" font-size=\"13\" text-anchor=\"end\">{last:.1} s</text>",
            HEIGHT + 18.0
        );
        for ((_, values), colour) in lines.iter().zip(COLOURS) {
            let points = self.samples.iter().zip(values).map(|(sample, &value)| {
                let x = sample.seconds / last * WIDTH;
                let y = HEIGHT - value as f64 / highest as f64 * HEIGHT;
                format!("{x:.1},{y:.1}")
            });
            let points = points.collect::<Vec<_>>().join(" ");
            let _ =
                writeln!(html, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>");
        }
        html.push_str("</svg>\n");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
