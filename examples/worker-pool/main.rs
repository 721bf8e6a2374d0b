//! One instance of a service does each task. See README.md beside this file.
#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tallybus::ask::Asker;
use tallybus::commands::Commands;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", bus] => serve(bus),
        ["ask", bus, width] => ask(bus, width.parse()?),
        _ => bail!("usage: worker-pool serve BUS | worker-pool ask BUS WIDTH"),
    }
}

fn serve(bus: &str) -> Result<()> {
    let guard = tallybus::init(bus, "thumbnails")?;
    let commands = Commands::new().allow_unsigned().on_task("resize", |request| {
        // At least once: with `again` it may have been begun before, and the thumbnail may be there already.
        println!("resize {} {}", request.id, if request.again { "again" } else { "first" });
        std::io::stdout().flush()?;
        // The wider, the longer it takes.
        thread::sleep(Duration::from_millis(request.arguments["width"].as_u64().unwrap_or_default()));
        Ok::<_, std::io::Error>(json!({ "width": request.arguments["width"], "by": std::process::id() }))
    });
    guard.serve(commands)?;
    println!("{}", guard.address().unwrap_or_default());
    std::io::stdin().read_line(&mut String::new())?;
    println!("{}", guard.shutdown(Duration::from_secs(5)));
    Ok(())
}

fn ask(bus: &str, width: u64) -> Result<()> {
    let mut asker = Asker::open(tallybus::connect(bus)?)?;
    let answers = asker.ask_pool("thumbnails", "resize", json!({ "width": width }), Duration::from_secs(60))?;
    let answer = answers.answers().next().context("no instance has done it in time")?;
    let again = if answer.again { ", perhaps for the second time" } else { "" };
    println!("{}: {:?} {}{again}", answer.answer.addressee, answer.answer.outcome, answer.answer.data);
    if answers.is_good() { Ok(()) } else { bail!("the task was not done") }
}
