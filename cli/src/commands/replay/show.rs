use std::fmt::Write;

use clap::Args;
use serde_json::{Map, Value, json};
use tallybus_bus::{Bus, Observer, read_headers, read_topic};
use tallybus_sdk::dead_letter::DeadLetterHeaders;
use tallybus_verify::replay::{DeadLetterEntry, State};
use tallybus_worker::settings::SinkSettings;

use super::list::{dead_letter_json, what};
use super::{STALL_TIMEOUT, state};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::count_of;
use crate::{Global, config};

/// Show one dead letter, with its headers and its payload.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The dead letter's key, as `list --dead-letters` shows it.
    key: String,
    /// The sink that refused it [default: search all].
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
}

/// Headers and payload as stored in the topic.
type Stored = (Vec<(String, Vec<u8>)>, Vec<u8>);

impl Show {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load_without_secrets(global)?;
        let names: Vec<String> = self.sink.iter().cloned().collect();
        let bus = config::open_bus(&settings)?;
        let observer = bus.observer()?;
        let mut found = Vec::new();
        for sink in crate::selection::select(&settings, &names)? {
            let dead_letters = super::read(bus.as_ref(), observer.as_ref(), sink, output)?;
            if let Some(dead_letter) = dead_letters.find(&self.key) {
                let stored = read(bus.as_ref(), observer.as_ref(), sink, dead_letter)?;
                found.push((sink.name.clone(), dead_letter.clone(), stored));
            }
        }
        if found.is_empty() {
            return Err(Failure::could_not_look(format!(
                "no dead letter {:?}; `tallybus replay list --dead-letters` shows their keys",
                self.key
            )));
        }
        if output.json {
            let all: Vec<Value> =
                found.iter().map(|(sink, dead_letter, stored)| as_json(sink, dead_letter, stored)).collect();
            output.print(&json!({ "dead_letters": all }).to_string())?;
            return Ok(Verdict::Good);
        }
        for (sink, dead_letter, stored) in &found {
            show(sink, dead_letter, stored, output)?;
        }
        Ok(Verdict::Good)
    }
}

fn read(
    bus: &dyn Bus,
    observer: &dyn Observer,
    sink: &SinkSettings,
    dead_letter: &DeadLetterEntry,
) -> Result<Stored, Failure> {
    let key = &dead_letter.key;
    let is_it = |head: DeadLetterHeaders<'_>| head.key() == dead_letter.record_key;
    let mut stored: Option<Stored> = None;
    read_topic(bus, observer, &sink.dead_letter_topic(), STALL_TIMEOUT, &mut |record| {
        if stored.is_none() && DeadLetterHeaders::of(&record).is_some_and(is_it) {
            stored = Some((read_headers(record.headers), record.payload.to_vec()));
        }
    })?;
    stored.ok_or_else(|| Failure::could_not_look(format!("{key} was deleted by retention just now")))
}

fn show(
    sink: &str,
    dead_letter: &DeadLetterEntry,
    (headers, payload): &Stored,
    output: &Output,
) -> Result<(), Failure> {
    output.print(&format!("{} ({sink}): {}, {}", dead_letter.key, state(dead_letter), what(dead_letter)))?;
    if let Some(origin) = &dead_letter.origin {
        output.print(&format!("  replayed {} before, the last time from {origin}", times(dead_letter.replays)))?;
    }
    if let State::RefusedAgain(key) = &dead_letter.state {
        output.print(&format!("  now {key}"))?;
    }
    for (name, value) in headers {
        output.print(&format!("  {name}: {}", String::from_utf8_lossy(value).escape_debug()))?;
    }
    if dead_letter.cut_from == Some(0) {
        output.print("  the bus could not deliver the record; it is still there")?;
    } else if let Some(bytes) = dead_letter.cut_from {
        output.print(&format!("  the payload was truncated; it had {}", count_of(bytes, "byte")))?;
    }
    match std::str::from_utf8(payload) {
        Ok(text) => output.print(&format!("\n{text}")),
        Err(_) => output.print(&format!("\n{} (hexadecimal)", hex(payload))),
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { count_of(count, "time") }
}

fn as_json(sink: &str, dead_letter: &DeadLetterEntry, (headers, payload): &Stored) -> Value {
    let mut value = dead_letter_json(dead_letter);
    let headers: Map<String, Value> =
        headers.iter().map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into())).collect();
    let text = std::str::from_utf8(payload).ok();
    let refused_as = match &dead_letter.state {
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
