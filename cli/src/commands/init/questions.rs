//! Questions to a person on a terminal.

use std::io::BufRead;

use tallybus_bus::BusAddress;
use tallybus_sdk::Kind;

use super::kinds::{Given, Value};
use super::{kind_names, parse_bus, parse_sink};
use crate::failure::Failure;

/// Asks, and reads answers; an empty answer is the one that is offered.
pub(super) struct Questions<'a> {
    pub(super) input: &'a mut dyn BufRead,
    /// Shows a text without a line break after it.
    pub(super) show: &'a mut dyn FnMut(&str),
}

impl Questions<'_> {
    pub(super) fn bus(&mut self) -> Result<BusAddress, Failure> {
        let kind = self.ask("Bus: kafka, or embedded (one file, one machine)", "embedded", |answer| match answer {
            "kafka" | "embedded" => Ok(answer.to_owned()),
            _ => Err("expected kafka or embedded".to_owned()),
        })?;
        let (what, offered) = match kind.as_str() {
            "kafka" => ("Brokers, as host:port, several separated by commas", "127.0.0.1:9092"),
            _ => ("File of the bus", super::BUS_FILE),
        };
        let scheme = if kind == "kafka" { "kafka://" } else { "embedded:" };
        self.ask(what, offered, |place| parse_bus(&format!("{scheme}{place}")))
    }

    pub(super) fn sinks(&mut self, kinds: &'static [Kind]) -> Result<Vec<(String, &'static Kind)>, Failure> {
        let offered = kinds.iter().find(|kind| kind.name == "sqlite").or(kinds.first()).map_or("", |kind| kind.name);
        let what = format!("Sinks, separated by commas, as KIND or NAME=KIND; kinds: {}", kind_names(kinds));
        self.ask(&what, offered, |answer| {
            let sinks: Result<Vec<_>, String> =
                answer.split(',').map(str::trim).map(|sink| parse_sink(kinds, sink)).collect();
            super::distinct(sinks?)
        })
    }

    /// Asks for the value of each setting that a sink cannot do without.
    pub(super) fn values(&mut self, sink: &str, given: Vec<Given>) -> Result<Vec<Given>, Failure> {
        let mut answered = Vec::with_capacity(given.len());
        for Given { key, value } in given {
            let value = match value {
                Value::Flag(_) => value,
                Value::Text(offered) => {
                    Value::Text(self.ask(&format!("{sink}: {key}"), &offered, |answer| Ok(answer.to_owned()))?)
                }
                Value::Secret(offered) => {
                    let what = format!("{sink}: {key}, as env:NAME or file:PATH");
                    Value::Secret(self.ask(&what, &offered, |answer| {
                        let is_reference = ["env:", "file:"]
                            .iter()
                            .any(|form| answer.strip_prefix(form).is_some_and(|rest| !rest.is_empty()));
                        let expected = "a secret is not written into the file: expected env:NAME or file:PATH";
                        if is_reference { Ok(answer.to_owned()) } else { Err(expected.to_owned()) }
                    })?)
                }
            };
            answered.push(Given { key, value });
        }
        Ok(answered)
    }

    /// Asks until there is an answer that `read` accepts.
    fn ask<T>(
        &mut self,
        what: &str,
        offered: &str,
        mut read: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        loop {
            (self.show)(&format!("{what} [{offered}]: "));
            let mut line = String::new();
            let read_bytes = self.input.read_line(&mut line);
            if read_bytes.map_err(|error| Failure::failed(format!("standard input: {error}")))? == 0 {
                (self.show)("\n");
                return Err(Failure::could_not_look(
                    "the input ended before every question was answered: nothing is written",
                ));
            }
            let answer = line.trim();
            match read(if answer.is_empty() { offered } else { answer }) {
                Ok(answer) => return Ok(answer),
                Err(reason) => (self.show)(&format!("  {reason}\n")),
            }
        }
    }
}
