//! How long a request to one instance of a service takes until its answer is there: service and asker in two processes, one request
//! after the other, on the embedded bus and on Kafka with one broker.
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tallybus::ask::Asker;
use tallybus::commands::Commands;

/// Requests that are not measured.
const WARM_UP: usize = 50;
const DEADLINE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", bus] => serve(bus),
        [] => measure_all(1_000),
        [requests] => measure_all(requests.parse()?),
        _ => bail!("usage: round-trip [REQUESTS]"),
    }
}

fn serve(bus: &str) -> Result<()> {
    let guard = tallybus::init(bus, "bench")?;
    guard.serve(Commands::new().allow_unsigned().on("echo", |request| Ok::<_, String>(request.arguments.clone())))?;
    println!("{}", guard.address().unwrap_or_default());
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn measure_all(requests: usize) -> Result<()> {
    let directory = tempfile::tempdir()?;
    measure("embedded", &format!("embedded:{}", directory.path().join("bus.db").display()), requests)?;
    if let Some(kafka) = tallybus_tests::kafka() {
        measure("kafka", &format!("kafka://{}", kafka.bootstrap()), requests)?;
    }
    Ok(())
}

fn measure(name: &str, bus: &str, requests: usize) -> Result<()> {
    let mut service = Command::new(std::env::current_exe()?);
    let mut service = service.args(["serve", bus]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(service.stdout.take().context("no output")?).read_line(&mut address)?;
    let mut asker = Asker::open(tallybus::connect(bus)?)?;
    let until = Instant::now() + DEADLINE;
    // Before the service has opened it there is no bus to read.
    while asker.instances("bench").map_or(0, |found| found.len()) == 0 {
        ensure!(Instant::now() < until, "the service did not say that it is there");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut took = Vec::with_capacity(requests);
    for number in 0..WARM_UP + requests {
        let asked = Instant::now();
        let answers = asker.ask_one("bench", "echo", json!(number), DEADLINE)?;
        let elapsed = asked.elapsed();
        let answer = answers.answers().next().map(|answer| &answer.answer.data);
        ensure!(answer == Some(&json!(number)), "request {number} was answered by {answer:?}");
        if number >= WARM_UP {
            took.push(elapsed);
        }
    }
    drop(service.stdin.take());
    service.wait()?;
    took.sort_unstable();
    let at = |per_mille: usize| -> f64 {
        let place = (took.len() * per_mille).div_ceil(1_000).saturating_sub(1);
        took.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    let result: Value = json!({
        "bus": name, "requests": took.len(), "p50_ms": at(500), "p99_ms": at(990), "max_ms": at(1_000),
    });
    println!("{result}");
    Ok(())
}
