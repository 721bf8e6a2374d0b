use std::fmt::Write;

use clap::Args;
use serde_json::{Map, Value, json};
use tallybus_bus::{Bus, Observer, read_headers, read_topic};
use tallybus_sdk::dead_letter::LetterHead;
use tallybus_verify::replay::{self, Letter, State};
use tallybus_worker::settings::SinkSettings;

use super::list::{letter_json, what};
use super::{STALL_TIMEOUT, state};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::{Global, config};

/// One letter, with its headers and its payload.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The letter's key, as `list --letters` shows it.
    key: String,
    /// The sink that refused it [default: look in all of them].
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
}

/// Headers and payload as they stand in the topic.
type Stored = (Vec<(String, Vec<u8>)>, Vec<u8>);

impl Show {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load(global)?;
        let names: Vec<String> = self.sink.iter().cloned().collect();
        let bus = config::open_bus(&settings)?;
        let observer = bus.observer()?;
        let mut found = Vec::new();
        for sink in crate::selection::select(&settings, &names)? {
            let letters = replay::read(bus.as_ref(), observer.as_ref(), sink, STALL_TIMEOUT)?;
            if let Some(letter) = letters.find(&self.key) {
                let stored = read(bus.as_ref(), observer.as_ref(), sink, &self.key)?;
                found.push((sink.name.clone(), letter.clone(), stored));
            }
        }
        if found.is_empty() {
            return Err(Failure::could_not_look(format!(
                "no dead letter {:?}; `tallybus replay list --letters` shows their keys",
                self.key
            )));
        }
        if output.json {
            let all: Vec<Value> = found.iter().map(|(sink, letter, stored)| as_json(sink, letter, stored)).collect();
            output.print(&json!({ "letters": all }).to_string())?;
            return Ok(Verdict::Good);
        }
        for (sink, letter, stored) in &found {
            show(sink, letter, stored, output)?;
        }
        Ok(Verdict::Good)
    }
}

fn read(bus: &dyn Bus, observer: &dyn Observer, sink: &SinkSettings, key: &str) -> Result<Stored, Failure> {
    let mut stored: Option<Stored> = None;
    read_topic(bus, observer, &sink.dead_topic(), STALL_TIMEOUT, &mut |record| {
        if stored.is_none() && LetterHead::of(&record).is_some_and(|head| head.key() == key) {
            stored = Some((read_headers(record.headers), record.payload.to_vec()));
        }
    })?;
    stored.ok_or_else(|| Failure::could_not_look(format!("{key} is gone by retention just now")))
}

fn show(sink: &str, letter: &Letter, (headers, payload): &Stored, output: &Output) -> Result<(), Failure> {
    output.print(&format!("{} ({sink}): {}, {}", letter.key, state(letter), what(letter)))?;
    if let Some(origin) = &letter.origin {
        output.print(&format!("  written again {} before, the last time from {origin}", times(letter.replays)))?;
    }
    if let State::RefusedAgain(key) = &letter.state {
        output.print(&format!("  now {key}"))?;
    }
    for (name, value) in headers {
        output.print(&format!("  {name}: {}", String::from_utf8_lossy(value).escape_debug()))?;
    }
    if let Some(bytes) = letter.cut_from {
        output.print(&format!("  the payload was cut; it had {bytes} bytes"))?;
    }
    match std::str::from_utf8(payload) {
        Ok(text) => output.print(&format!("\n{text}")),
        Err(_) => output.print(&format!("\n{} (hexadecimal)", hex(payload))),
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn as_json(sink: &str, letter: &Letter, (headers, payload): &Stored) -> Value {
    let mut value = letter_json(letter);
    let headers: Map<String, Value> =
        headers.iter().map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into())).collect();
    let text = std::str::from_utf8(payload).ok();
    let refused_as = match &letter.state {
        State::RefusedAgain(key) => Some(key),
        _ => None,
    };
    value["sink"] = sink.into();
    value["headers"] = headers.into();
    value["payload"] = text.into();
    value["payload_hex"] = if text.is_none() { hex(payload).into() } else { Value::Null };
    value["refused_as"] = json!(refused_as);
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
