//! A service that counts under adverse circumstances, and says at the end what it counted itself.
#![allow(clippy::print_stdout, reason = "its report is what it is for")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;
use tallybus::{builder, count};
use tallybus_bus::kafka::KafkaBus;
use tallybus_tests::Rng;

struct Plan {
    brokers: String,
    service: String,
    series: u64,
    increments: u64,
    seconds: u64,
    seed: u64,
}

fn plan() -> anyhow::Result<Plan> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given: BTreeMap<&str, &str> = args.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let text = |name: &str| given.get(name).copied().with_context(|| format!("{name} is missing"));
    let number = |name: &str| -> anyhow::Result<u64> { Ok(text(name)?.parse()?) };
    Ok(Plan {
        brokers: text("--bus")?.trim_start_matches("kafka://").to_owned(),
        service: text("--service")?.to_owned(),
        series: number("--series")?,
        increments: number("--increments")?,
        seconds: number("--seconds")?,
        seed: number("--seed")?,
    })
}

fn main() -> anyhow::Result<()> {
    let plan = plan()?;
    let bus = KafkaBus::new(&plan.brokers, &BTreeMap::new())?;
    let guard = builder()
        .service(&plan.service)
        .instance("one")
        .flush_interval(Duration::from_millis(200))
        .start(tallybus::Connection::from_bus(Box::new(bus)))?;
    let own = emit(&plan);
    let report = guard.shutdown(Duration::from_secs(120));
    let series: BTreeMap<String, u64> = own
        .iter()
        .enumerate()
        .map(|(number, total)| {
            let service = &plan.service;
            let text = format!(
                r#"chaos.{}{{instance="one",place="{number}",service="{service}"}}"#,
                if number % 2 == 0 { "even" } else { "odd" }
            );
            (text, *total)
        })
        .collect();
    println!("{}", json!({ "series": series, "undelivered": report.undelivered, "unknown": report.unknown }));
    if !report.is_complete() {
        bail!("not everything was delivered: {report}");
    }
    Ok(())
}

/// Counts from two threads, evenly over the time; answers the own tally by series.
fn emit(plan: &Plan) -> Vec<u64> {
    let halves = [plan.increments / 2, plan.increments - plan.increments / 2];
    let threads = halves.into_iter().enumerate().map(|(number, increments)| {
        let (series, seconds, seed) = (plan.series, plan.seconds, plan.seed.wrapping_mul(31) ^ number as u64);
        std::thread::spawn(move || emit_half(series, increments, seconds, Rng::new(seed)))
    });
    let threads: Vec<_> = threads.collect();
    let mut own = vec![0; usize::try_from(plan.series).unwrap_or(0)];
    for thread in threads {
        if let Ok(counted) = thread.join() {
            own.iter_mut().zip(counted).for_each(|(sum, add)| *sum += add);
        }
    }
    own
}

fn emit_half(series: u64, increments: u64, seconds: u64, mut rng: Rng) -> Vec<u64> {
    let mut own = vec![0; usize::try_from(series).unwrap_or(0)];
    let places: Vec<String> = (0..series).map(|place| place.to_string()).collect();
    let (start, slices) = (Instant::now(), seconds * 20);
    for slice in 0..slices {
        let until = increments * (slice + 1) / slices;
        for _ in increments * slice / slices..until {
            let place = usize::try_from(rng.below(series)).unwrap_or(0);
            if place % 2 == 0 {
                count!("chaos.even", place = &places[place]);
            } else {
                count!("chaos.odd", place = &places[place]);
            }
            own[place] += 1;
        }
        let due = Duration::from_millis((slice + 1) * 50);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    own
}
