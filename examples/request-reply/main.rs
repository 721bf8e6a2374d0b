//! One instance of a service answers a question. See README.md beside this file.
#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tallybus::ask::Asker;
use tallybus::commands::Commands;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", bus] => serve(bus),
        ["ask", bus, item] => ask(bus, item),
        _ => bail!("usage: request-reply serve BUS | request-reply ask BUS ITEM"),
    }
}

fn serve(bus: &str) -> Result<()> {
    let guard = tallybus::init(bus, "shop")?;
    // Everyone who may write the bus's topics can ask; with `key` instead, only those who have the key.
    guard.serve(Commands::new().allow_unsigned().on("price", |request| match request.arguments["item"].as_str() {
        Some("book") => Ok(json!({ "cents": 1_250 })),
        Some(other) => Err(format!("no price for {other:?}")),
        None => Err("`item` is missing".to_owned()),
    }))?;
    println!("{}", guard.address().unwrap_or_default());
    std::io::stdin().read_line(&mut String::new())?;
    println!("{}", guard.shutdown(Duration::from_secs(5)));
    Ok(())
}

fn ask(bus: &str, item: &str) -> Result<()> {
    let mut asker = Asker::open(tallybus::connect(bus)?)?;
    let answers = asker.ask_one("shop", "price", json!({ "item": item }), Duration::from_secs(10))?;
    let answer = answers.answers().next().context("no instance has answered")?;
    println!("{}: {:?} {} {}", answer.answer.addressee, answer.answer.outcome, answer.answer.data, answer.answer.text);
    if answers.is_good() { Ok(()) } else { bail!("the price is not known") }
}
