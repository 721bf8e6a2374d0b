//! The two exposition formats: Prometheus' text format 0.0.4, and OpenMetrics 1.0.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::table::{METRICS, Metric, MetricKind};
use crate::counters::Distribution;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that a request accepts; the text format unless it asks for OpenMetrics.
    pub fn accepted(header: Option<&str>) -> Self {
        let is_wanted = |part: &str| {
            let mut parameters = part.split(';').map(str::trim);
            let kind = parameters.next().unwrap_or_default();
            let is_refused = parameters.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            kind.eq_ignore_ascii_case("application/openmetrics-text") && !is_refused
        };
        if header.is_some_and(|header| header.split(',').any(is_wanted)) { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Samples, by metric.
#[derive(Debug, Default)]
pub(super) struct Page {
    samples: BTreeMap<&'static str, String>,
}

impl Page {
    /// Adds a sample, with a value for each label of the metric.
    pub(super) fn add(&mut self, metric: &'static Metric, values: &[&str], value: impl Display) {
        self.sample(metric, "", values, None, value);
    }

    /// The same where the value is known.
    pub(super) fn add_known(&mut self, metric: &'static Metric, values: &[&str], value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(metric, values, value);
        }
    }

    /// Adds the samples of a distribution.
    pub(super) fn add_distribution(&mut self, metric: &'static Metric, values: &[&str], distribution: &Distribution) {
        let mut cumulated = 0;
        for (class, count) in distribution.classes.iter().enumerate() {
            cumulated += count;
            // OpenMetrics wants `1.0`; the text format takes it too, so that a series has the same labels in both.
            let bound = distribution.bounds.get(class).map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
            self.sample(metric, "_bucket", values, Some(&bound), cumulated);
        }
        self.sample(metric, "_sum", values, None, distribution.sum);
        self.sample(metric, "_count", values, None, distribution.count());
    }

    fn sample(
        &mut self,
        metric: &'static Metric,
        suffix: &str,
        values: &[&str],
        le: Option<&str>,
        value: impl Display,
    ) {
        debug_assert_eq!(values.len(), metric.labels.len(), "{}", metric.name);
        let labels = metric.labels.iter().copied().zip(values.iter().copied()).chain(le.map(|bound| ("le", bound)));
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let lines = self.samples.entry(metric.name).or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{}{suffix}{labels} {value}", metric.name);
    }

    /// The page. A metric without a sample is left out.
    pub(super) fn render(&self, format: Format) -> String {
        let mut page = String::new();
        for metric in METRICS {
            let Some(samples) = self.samples.get(metric.name) else { continue };
            let family = match format {
                Format::OpenMetrics if metric.kind == MetricKind::Counter => metric.name.trim_end_matches("_total"),
                _ => metric.name,
            };
            let _ = writeln!(page, "# HELP {family} {}", metric.help);
            let _ = writeln!(page, "# TYPE {family} {}", metric.kind.name());
            if format == Format::OpenMetrics && !metric.unit.is_empty() {
                let _ = writeln!(page, "# UNIT {family} {}", metric.unit);
            }
            page.push_str(samples);
        }
        if format == Format::OpenMetrics {
            page.push_str("# EOF\n");
        }
        page
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.samples.keys().copied().collect()
    }
}

/// A label's value as both formats have it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::table::{BATCH_EVENTS, LAG_SECONDS, SETTLED_EVENTS};
    use super::*;

    fn page() -> Page {
        let mut page = Page::default();
        page.add(&SETTLED_EVENTS, &["a\"b\\c\n"], 7);
        page.add_known(&LAG_SECONDS, &["a"], Some(1.5));
        page.add_known(&LAG_SECONDS, &["b"], None::<f64>);
        let distribution = Distribution { bounds: &[1.0, 10.0], classes: vec![1, 0, 2], sum: 41.0 };
        page.add_distribution(&BATCH_EVENTS, &["a"], &distribution);
        page
    }

    #[test]
    fn the_text_format_has_help_type_and_samples_by_metric_and_no_unknown_value() {
        let expected = "\
# HELP tallybus_sink_lag_seconds Age of the oldest message of this worker's partitions that is not settled; 0 when all are. Absent while it is unknown.
# TYPE tallybus_sink_lag_seconds gauge
tallybus_sink_lag_seconds{sink=\"a\"} 1.5
# HELP tallybus_sink_settled_events_total Events in settled batches, whether the sink selects them or not.
# TYPE tallybus_sink_settled_events_total counter
tallybus_sink_settled_events_total{sink=\"a\\\"b\\\\c\\n\"} 7
# HELP tallybus_sink_batch_events Events in each settled batch.
# TYPE tallybus_sink_batch_events histogram
tallybus_sink_batch_events_bucket{sink=\"a\",le=\"1.0\"} 1
tallybus_sink_batch_events_bucket{sink=\"a\",le=\"10.0\"} 1
tallybus_sink_batch_events_bucket{sink=\"a\",le=\"+Inf\"} 3
tallybus_sink_batch_events_sum{sink=\"a\"} 41
tallybus_sink_batch_events_count{sink=\"a\"} 3
";
        assert_eq!(page().render(Format::Text), expected);
    }

    #[test]
    fn open_metrics_names_the_family_of_a_counter_and_units_and_ends() {
        let text = page().render(Format::OpenMetrics);
        for line in [
            "# TYPE tallybus_sink_settled_events counter",
            "# UNIT tallybus_sink_lag_seconds seconds",
            "tallybus_sink_settled_events_total{sink=\"a\\\"b\\\\c\\n\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }

    #[test]
    fn open_metrics_is_sent_to_those_that_accept_it() {
        let of_prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (header, format) in [
            (Some(of_prometheus), Format::OpenMetrics),
            (Some("text/plain, application/OpenMetrics-Text"), Format::OpenMetrics),
            (Some("application/openmetrics-text;q=0, text/plain"), Format::Text),
            (Some("*/*"), Format::Text),
            (None, Format::Text),
        ] {
            assert_eq!(Format::accepted(header), format, "{header:?}");
        }
    }
}
