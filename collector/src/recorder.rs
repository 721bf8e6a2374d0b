//! A recorder for the [`metrics`] facade: a program already instrumented with it needs one line.
//!
//! ```
//! # fn main() -> Result<(), tallybus::recorder::InstallError> {
//! tallybus::recorder::install()?;
//! metrics::counter!("http.requests", "route" => "/v1/sites").increment(1);
//! # Ok(())
//! # }
//! ```
//! Counters become series of the same name and labels. `absolute` raises a counter by the difference to the last
//! absolute value it was given.
//!
//! **Gauges and histograms are not carried.** They are ignored, and the log says so once for each name. A program that needs
//! them keeps a recorder for them beside this one, through a fan-out of recorders (`metrics-util` has one).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use thiserror::Error;

use crate::warnings::{self, Warning};
use crate::{cells, registry};

/// The most handles kept; others are looked up each time.
const MOST_KEPT: usize = 20_000;

/// The program has already installed a recorder, which remains installed.
#[derive(Debug, Clone, Copy, Error)]
#[non_exhaustive]
#[error("a metrics recorder is already installed: a program can have only one")]
pub struct InstallError;

/// Makes every counter of the `metrics` facade a counter of Tallybus, whether or not a collector runs. Gauges and
/// histograms are ignored.
///
/// # Errors
/// [`InstallError`] when the program has already installed a recorder.
pub fn install() -> Result<(), InstallError> {
    metrics::set_global_recorder(Recorder::default()).map_err(|_| InstallError)
}

/// The recorder itself, for a program that combines several; [`install`] is the usual way.
#[derive(Debug, Default)]
pub struct Recorder {
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Key, Arc<Handle>>,
    /// Labels in another order are the same series.
    by_series: HashMap<u32, Arc<Handle>>,
}

#[derive(Debug)]
struct Handle {
    series: u32,
    /// The last absolute value; `None` in an overflow series, which holds the counts of many.
    absolute: Option<AtomicU64>,
}

impl CounterFn for Handle {
    fn increment(&self, value: u64) {
        cells::add(self.series, value);
    }

    fn absolute(&self, value: u64) {
        if let Some(absolute) = &self.absolute {
            let before = absolute.fetch_max(value, Ordering::Relaxed);
            cells::add(self.series, value.saturating_sub(before));
        } else {
            warnings::record(Warning::Ignored { kind: "absolute value", name: registry::OVERFLOW_KEY.to_owned() });
        }
    }
}

impl Recorder {
    fn handle(&self, key: &Key) -> Arc<Handle> {
        if let Some(handle) = self.kept.read().unwrap_or_else(PoisonError::into_inner).by_key.get(key) {
            return Arc::clone(handle);
        }
        let mut labels: Vec<(&str, &str)> = key.labels().map(|label| (label.key(), label.value())).collect();
        // Of a label given twice, the first one is used.
        labels.sort_by_key(|label| label.0);
        labels.dedup_by_key(|label| label.0);
        let (keys, values): (Vec<&str>, Vec<&str>) = labels.into_iter().unzip();
        let resolved = registry::resolve(key.name(), &keys, &values);
        let series = resolved.series;
        if resolved.entry.is_none() {
            return Arc::new(Handle { series, absolute: None });
        }
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Handle { series, absolute: Some(AtomicU64::new(0)) });
        let handle = Arc::clone(kept.by_series.entry(series).or_insert_with(new));
        if kept.by_key.len() < MOST_KEPT {
            kept.by_key.insert(key.clone(), Arc::clone(&handle));
        }
        handle
    }
}

fn ignore(kind: &'static str, key: &Key) {
    warnings::record(Warning::Ignored { kind, name: key.name().to_owned() });
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        ignore("gauge", key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        ignore("histogram", key);
        Histogram::noop()
    }
}
