//! What an increment costs: `cargo bench -p tallybus`. Nanoseconds for each, as seen by each thread.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use tallybus::{count, counter};

const ROUNDS: usize = 7;

fn main() {
    let routes = ["/v1/sites", "/v1/sites/search", "/v1/users", "/healthz"];
    let methods = ["GET", "POST", "DELETE"];
    let handle = counter!("bench.handle", kind = "x");
    for threads in [1, 2] {
        measure("static tags", threads, 200_000_000, |number| {
            count!("bench.static", black_box(number & 1), route = "/v1/sites", status = 200);
        });
        measure("static tags, by one", threads, 200_000_000, |_| count!("bench.static", route = "/v1"));
        measure("handle", threads, 200_000_000, |_| handle.increment());
        measure("two run-time texts", threads, 20_000_000, |number| {
            let place = usize::try_from(number).unwrap_or(0);
            let route = black_box(routes[place % 4]);
            count!("bench.tagged", route = route, method = black_box(methods[place % 3]));
        });
        measure("text and integer", threads, 20_000_000, |number| {
            let route = black_box(routes[usize::try_from(number).unwrap_or(0) % 4]);
            count!("bench.status", route = route, status = black_box(200 + number % 5));
        });
        measure("a thousand series", threads, 20_000_000, |number| {
            count!("bench.many", route = black_box(routes[0]), number = black_box(number % 1_000));
        });
        measure("run-time name", threads, 20_000_000, |_| count!(black_box("bench.name")));
    }
}

fn measure(what: &str, threads: usize, times: u64, count: impl Fn(u64) + Sync) {
    let count = &count;
    let round = || {
        thread::scope(|scope| {
            let spawned: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(move || {
                        count(0);
                        let begun = Instant::now();
                        (0..times / 10).for_each(count);
                        begun.elapsed().as_secs_f64() * 1e10 / times as f64
                    })
                })
                .collect();
            spawned.into_iter().map(|thread| thread.join().unwrap_or(f64::NAN)).fold(0.0, f64::max)
        })
    };
    let best = (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min);
    println!("{what:<24} {threads} thread(s) {best:>8.2} ns");
}
