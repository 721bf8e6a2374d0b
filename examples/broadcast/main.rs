//! Each instance of a service does what is asked. See README.md beside this file.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tallybus::ask::{Asker, State};
use tallybus::commands::Commands;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", bus] => serve(bus),
        ["ask", bus] => ask(bus),
        _ => bail!("usage: broadcast serve BUS | broadcast ask BUS"),
    }
}

fn serve(bus: &str) -> Result<()> {
    let entries = AtomicU64::new(u64::from(std::process::id()));
    let guard = tallybus::init(bus, "cache")?;
    let commands = Commands::new().allow_unsigned().on("clear", move |request| {
        eprintln!("cleared for {}", request.issuer);
        Ok::<_, String>(json!({ "cleared": entries.swap(0, Ordering::Relaxed) }))
    });
    guard.serve(commands)?;
    println!("{}", guard.address().unwrap_or_default());
    std::io::stdin().read_line(&mut String::new())?;
    println!("{}", guard.shutdown(Duration::from_secs(5)));
    Ok(())
}

fn ask(bus: &str) -> Result<()> {
    let mut asker = Asker::open(tallybus::connect(bus)?)?;
    let answers = asker.ask(&"service/cache".parse()?, "clear", Value::Null, Duration::from_secs(10))?;
    for addressee in &answers.addressees {
        match &addressee.state {
            State::Answered(answer) | State::UnderWay(answer) => {
                println!("{}: {:?} {}", addressee.address, answer.answer.outcome, answer.answer.data);
            }
            State::Silent => println!("{}: silent", addressee.address),
        }
    }
    if answers.is_good() { Ok(()) } else { bail!("not every instance has cleared its cache") }
}
