//! The repeated path: a series that every thread has met.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::{median, thread_cpu};
use crate::forms::{self, Form};
use crate::results::Table;
use crate::{Effort, allocations};

/// What a thread does before the clock runs: it meets the series, and the processor the loop.
const WARM_UP: u64 = 1_000;

/// Nanoseconds for each increment.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
}

#[derive(Default)]
struct Costs {
    one: Vec<f64>,
    two: Vec<f64>,
    two_wall: Vec<f64>,
    eight: Vec<f64>,
}

pub fn table(effort: Effort) -> Table {
    let forms = forms::all();
    let times: Vec<u64> = forms.iter().map(|form| times(form, effort.slice_ms)).collect();
    let mut costs: Vec<Costs> = forms.iter().map(|_| Costs::default()).collect();
    // Round by round through all forms, so that whatever else the machine does hits all alike.
    for _ in 0..effort.rounds {
        for ((form, times), costs) in forms.iter().zip(&times).zip(&mut costs) {
            costs.one.push(measure(form, 1, *times).cpu);
            let two = measure(form, 2, *times);
            costs.two.push(two.cpu);
            costs.two_wall.push(two.wall);
            costs.eight.push(measure(form, 8, times.div_ceil(2)).cpu);
        }
    }
    let rows = forms.iter().zip(&mut costs).map(|(form, costs)| {
        let mut cells = vec![form.name.to_owned()];
        let columns = [&mut costs.one, &mut costs.two, &mut costs.two_wall, &mut costs.eight];
        cells.extend(columns.map(|values| nanoseconds(median(values))));
        cells.push(format!("{}", allocated(form)));
        cells
    });
    Table {
        name: "hot_path".to_owned(),
        title: "One increment of a series seen before, nanoseconds; all threads raise the same series.".to_owned(),
        columns: ["", "1 thread", "2 threads", "2 threads, wall", "8 threads", "allocations"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
        note: format!(
            "Medians of {} rounds through all rows. CPU time of the threads that count, for each increment \
             (`CLOCK_THREAD_CPUTIME_ID`); the wall clock shows waiting for locks too.",
            effort.rounds
        ),
    }
}

/// How many increments take about so long.
fn times(form: &Form, slice_ms: u64) -> u64 {
    (form.run)(WARM_UP);
    let mut times = 10_000;
    loop {
        let begun = Instant::now();
        (form.run)(times);
        if begun.elapsed() >= Duration::from_millis(slice_ms) {
            return times;
        }
        times = times * 3 / 2;
    }
}

fn measure(form: &Form, threads: usize, times: u64) -> Cost {
    let start = Barrier::new(threads);
    let count = || {
        (form.run)(WARM_UP);
        start.wait();
        let (begun, cpu) = (Instant::now(), thread_cpu());
        (form.run)(times);
        (thread_cpu() - cpu, begun.elapsed())
    };
    let spent: Vec<(Duration, Duration)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().expect("the loop does not panic")).collect()
    });
    let each = |total: Duration| total.as_secs_f64() * 1e9 / (times as f64 * threads as f64);
    Cost { cpu: each(spent.iter().map(|spent| spent.0).sum()), wall: each(spent.iter().map(|spent| spent.1).sum()) }
}

fn allocated(form: &Form) -> u64 {
    const TIMES: u64 = 1_000;
    let before = allocations::calls();
    (form.run)(TIMES);
    // Rounded up: a single one shows.
    (allocations::calls() - before).div_ceil(TIMES)
}

pub fn nanoseconds(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
