//! New series: what the first increment costs, and what a series weighs.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use cadence::Counted;
use opentelemetry::KeyValue;
use tallybus::count;

use crate::bus::NullBus;
use crate::clock::{median, process_cpu, thread_cpu};
use crate::libraries::{self, ClientFamily, Labels, MOST_SERIES};
use crate::paths::nanoseconds;
use crate::results::Table;
use crate::{Effort, allocations};

/// As the parts name them.
pub const LIBRARIES: [&str; 5] = ["tallybus", "prometheus", "prometheus-client", "opentelemetry_sdk", "metrics"];

const ZONES: [&str; 4] = ["eu-west-1a", "eu-west-1b", "us-east-1a", "us-east-1b"];
/// New series of one measurement.
const BATCH: usize = 10_000;

/// The two texts that make series number so and so.
pub struct Texts(Vec<String>);

impl Texts {
    pub fn new(many: usize) -> Self {
        Self((0..many).map(|number| format!("/v1/sites/{number:07}")).collect())
    }

    pub fn get(&self, number: usize) -> (&str, &str) {
        (&self.0[number], ZONES[number % ZONES.len()])
    }

    /// Bytes of the texts of all series.
    fn len(&self) -> usize {
        (0..self.0.len()).map(|number| self.get(number)).map(|(route, zone)| route.len() + zone.len()).sum()
    }
}

/// Raises the series that two texts name.
type Raise = Box<dyn FnMut(&str, &str)>;

pub fn raise(route: &str, zone: &str) {
    count!("bench.new", route = route, method = zone);
}

fn raiser(library: &str) -> Result<Raise> {
    Ok(match library {
        "tallybus" => Box::new(raise),
        "prometheus" => {
            let counters = libraries::prometheus();
            Box::new(move |route, zone| counters.with_label_values(&[route, zone]).inc())
        }
        "prometheus-client" => {
            let family = ClientFamily::default();
            CLIENT.get_or_init(|| family.clone());
            Box::new(move |route, zone| {
                family.get_or_create(&Labels { route: route.to_owned(), method: zone.to_owned() }).inc();
            })
        }
        "opentelemetry_sdk" => {
            let counter = libraries::opentelemetry_counter();
            Box::new(move |route, zone| {
                counter.add(1, &[KeyValue::new("route", route.to_owned()), KeyValue::new("method", zone.to_owned())]);
            })
        }
        "metrics" => {
            libraries::metrics();
            Box::new(|route, zone| {
                metrics::counter!("bench_new", "route" => route.to_owned(), "method" => zone.to_owned()).increment(1);
            })
        }
        "cadence" => {
            let client = libraries::cadence();
            Box::new(move |route, zone| {
                client.count_with_tags("requests", 1).with_tag("route", route).with_tag("method", zone).send();
            })
        }
        other => bail!("no library {other:?}"),
    })
}

static CLIENT: std::sync::OnceLock<ClientFamily> = std::sync::OnceLock::new();

pub fn first_use(effort: Effort) -> Result<Table> {
    let guard = tallybus::builder()
        .max_series(MOST_SERIES)
        .flush_interval(HOUR)
        .start(tallybus::Connection::from_bus(Box::new(NullBus)))?;
    let texts = Texts::new(BATCH * effort.rounds);
    let mut raisers = Vec::new();
    for library in LIBRARIES {
        raisers.push((library, raiser(library)?, Vec::new(), Vec::new()));
    }
    for round in 0..effort.rounds {
        for (_, raise, costs, calls) in &mut raisers {
            let (begun, before) = (thread_cpu(), allocations::calls());
            for number in round * BATCH..(round + 1) * BATCH {
                let (route, zone) = texts.get(number);
                raise(black_box(route), black_box(zone));
            }
            costs.push((thread_cpu() - begun).as_secs_f64() * 1e9 / BATCH as f64);
            calls.push((allocations::calls() - before) as f64 / BATCH as f64);
        }
    }
    let rows = raisers.iter_mut().map(|(library, _, costs, calls)| {
        let worst = costs.iter().copied().fold(0.0, f64::max);
        vec![(*library).to_owned(), nanoseconds(median(costs)), nanoseconds(worst), format!("{:.2}", median(calls))]
    });
    let rows = rows.collect();
    drop(guard);
    Ok(Table {
        name: "hot_path-first-use".to_owned(),
        title: "First increment of a new series with two run-time tags, nanoseconds of CPU.".to_owned(),
        columns: ["", "median", "worst round", "allocations"].map(str::to_owned).to_vec(),
        rows,
        note: format!(
            "{} rounds of {BATCH} new series each, growing tables included: median and worst of the rounds' means.",
            effort.rounds
        ),
    })
}

pub const HOUR: Duration = Duration::from_secs(3_600);

/// A process weighs one library only.
pub fn weight(library: &str, effort: Effort) -> Result<Table> {
    let many = 100_000;
    let texts = Texts::new(many);
    let mut raise = raiser(library)?;
    allocations::weigh();
    let before = allocations::bytes();
    let guard = match library {
        "tallybus" => Some(
            tallybus::builder()
                .max_series(MOST_SERIES)
                .flush_interval(HOUR)
                .start(tallybus::Connection::from_bus(Box::new(NullBus)))?,
        ),
        _ => None,
    };
    for number in 0..many {
        let (route, zone) = texts.get(number);
        raise(route, zone);
    }
    let export = || -> Result<()> {
        match library {
            "tallybus" => {
                let done = guard.as_ref().is_some_and(|guard| guard.flush(HOUR));
                ensure!(done, "a flush to a bus that takes everything");
            }
            "prometheus" => {
                let text = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather())?;
                black_box(text);
            }
            "prometheus-client" => {
                let mut registry = prometheus_client::registry::Registry::default();
                registry.register("requests", "requests", CLIENT.get().cloned().unwrap_or_default());
                let mut text = String::new();
                prometheus_client::encoding::text::encode(&mut text, &registry)?;
                black_box(text);
            }
            "opentelemetry_sdk" => libraries::opentelemetry().force_flush()?,
            _ => {
                black_box(libraries::metrics().render());
            }
        }
        Ok(())
    };
    // What the exporter keeps belongs to the series too.
    export()?;
    let each = (allocations::bytes() - before).saturating_sub(texts.len() as u64) / many as u64;
    let mut costs = Vec::new();
    for _ in 0..effort.rounds {
        for number in 0..many {
            let (route, zone) = texts.get(number);
            raise(route, zone);
        }
        let begun = process_cpu();
        export()?;
        costs.push((process_cpu() - begun).as_secs_f64() * 1e3);
    }
    let exports = match library {
        "tallybus" => "what has risen, as native messages",
        "opentelemetry_sdk" => "collected, not encoded",
        _ => "everything, as Prometheus text",
    };
    Ok(Table {
        name: "hot_path-weight".to_owned(),
        title: "100,000 live series with two tags, counted by one thread.".to_owned(),
        columns: ["", "bytes a series beyond its own text", "export, CPU ms", "what is exported"]
            .map(str::to_owned)
            .to_vec(),
        rows: vec![vec![
            library.to_owned(),
            each.to_string(),
            format!("{:.1}", median(&mut costs)),
            exports.to_owned(),
        ]],
        note: "Heap of the whole process after the first export, divided by the number of series, less the texts of \
               the two tag values. Nothing is sent: the encoded messages or texts are dropped."
            .to_owned(),
    })
}
