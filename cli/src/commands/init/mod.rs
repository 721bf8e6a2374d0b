//! A settings file to begin with.

mod kinds;
mod page;
mod questions;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tallybus_bus::BusAddress;
use tallybus_sdk::{Kind, find_kind};

use self::kinds::Value;
use self::page::NewSink;
use self::questions::Questions;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::count_of;
use crate::{Global, config};

/// The embedded bus when no file is named.
const BUS_FILE: &str = "tallybus.db";

/// Write a settings file to begin with, with a comment for every setting.
///
/// On a terminal it asks for what the options do not say; elsewhere it needs --bus and --sink. With --bus, `embedded` alone is
/// the file tallybus.db. Secrets are not asked for: the file refers to them, as env:NAME. A file that exists is not
/// overwritten without --force.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// A sink of this kind, named like it or NAME; repeatable. `tallybus sinks` lists the kinds.
    #[arg(long = "sink", value_name = "[NAME=]KIND")]
    sinks: Vec<String>,
    /// Where to write it.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    output: PathBuf,
    /// Overwrite a file that exists.
    #[arg(long)]
    force: bool,
}

impl Init {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        if global.config.is_some() {
            return Err(Failure::could_not_look(
                "init reads no settings: name the new file with --output, not --config",
            ));
        }
        // Before the questions: answers should not be in vain.
        if !self.force && self.output.symlink_metadata().is_ok() {
            return Err(self.exists());
        }
        let bus = global.bus.as_deref().map(parse_bus).transpose();
        let bus = bus.map_err(|reason| Failure::could_not_look(format!("--bus: {reason}")))?;
        let sinks: Result<Vec<_>, String> = self.sinks.iter().map(|sink| parse_sink(global.kinds, sink)).collect();
        let sinks = sinks.and_then(distinct).map_err(|reason| Failure::could_not_look(format!("--sink: {reason}")))?;
        let asks = bus.is_none() || sinks.is_empty();
        if asks && !(io::stdin().is_terminal() && output.is_terminal()) {
            return Err(no_terminal(global.kinds));
        }
        let (bus, sinks) = if asks {
            let mut show = |text: &str| output.prompt(text);
            let mut questions = Questions { input: &mut io::stdin().lock(), show: &mut show };
            answered(&mut questions, global.kinds, bus, sinks)?
        } else {
            let bus = bus.ok_or_else(|| no_terminal(global.kinds))?;
            (bus, new_sinks(sinks, |_, given| Ok(given))?)
        };
        let file = self.output.display().to_string();
        let text = page::text(&file, &bus, &sinks);
        let problems = config::check_text(&text, &file, global.kinds)?;
        self.write(&text)?;
        self.tell(&sinks, &problems, output)?;
        Ok(Verdict::Good)
    }

    fn exists(&self) -> Failure {
        Failure::could_not_look(format!(
            "{} exists already and was not changed: name another file with --output, or overwrite it with --force",
            self.output.display()
        ))
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => self.exists(),
            _ => Failure::failed(format!("cannot write {}: {error}", self.output.display())),
        };
        let mut options = File::options();
        match self.force {
            true => options.write(true).create(true).truncate(true),
            false => options.write(true).create_new(true),
        };
        options.open(&self.output).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
    }

    fn tell(&self, sinks: &[NewSink], problems: &[String], output: &Output) -> Result<(), Failure> {
        let secrets = sinks.iter().flat_map(|sink| &sink.given).filter_map(|given| match &given.value {
            Value::Secret(reference) => reference.strip_prefix("env:"),
            Value::Text(_) | Value::Flag(_) => None,
        });
        let secrets: Vec<&str> = secrets.collect();
        let file = self.output.display().to_string();
        if output.json {
            let sinks: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
            let report = json!({ "file": file, "sinks": sinks, "variables": secrets, "problems": problems });
            return output.report(&report.to_string());
        }
        output.report(&format!("{file}: written, {}", count_of(sinks.len() as u64, "sink")))?;
        for problem in problems {
            output.report(&format!("  to be completed: {problem}"))?;
        }
        if !secrets.is_empty() {
            output.report(&format!("  to be set in the environment: {}", secrets.join(", ")))?;
        }
        let config = if file == config::DEFAULT_FILE { String::new() } else { format!(" --config {file}") };
        output.report(&format!("next: `tallybus doctor{config}` checks settings, bus and backends"))
    }
}

fn no_terminal(kinds: &[Kind]) -> Failure {
    Failure::could_not_look(format!(
        "there is no terminal to ask on: give --bus embedded[:PATH] or --bus kafka://HOST:PORT, and --sink [NAME=]KIND for each \
         sink (kinds: {}), as in `tallybus init --bus kafka://127.0.0.1:9092 --sink sqlite`",
        kind_names(kinds)
    ))
}

/// Asks for the bus and the sinks as far as they are missing, and for what the sinks need.
fn answered(
    questions: &mut Questions<'_>,
    kinds: &'static [Kind],
    bus: Option<BusAddress>,
    sinks: Vec<(String, &'static Kind)>,
) -> Result<(BusAddress, Vec<NewSink>), Failure> {
    let bus = match bus {
        Some(bus) => bus,
        None => questions.bus()?,
    };
    let sinks = if sinks.is_empty() { questions.sinks(kinds)? } else { sinks };
    let sinks = new_sinks(sinks, |name, given| questions.values(name, given))?;
    Ok((bus, sinks))
}

/// The sinks with what they need, each with a destination of its own; `values` may change what they are given.
fn new_sinks(
    sinks: Vec<(String, &'static Kind)>,
    mut values: impl FnMut(&str, Vec<kinds::Given>) -> Result<Vec<kinds::Given>, Failure>,
) -> Result<Vec<NewSink>, Failure> {
    let mut new = Vec::with_capacity(sinks.len());
    for (name, kind) in sinks {
        let place = if name == kind.name { "counters" } else { &name };
        let given = values(&name, kinds::given(kind.name, place).unwrap_or_default())?;
        new.push(NewSink { name, kind, given });
    }
    Ok(new)
}

/// `embedded`, or an address as `--bus` takes it.
fn parse_bus(text: &str) -> Result<BusAddress, String> {
    let text = if text == "embedded" { format!("embedded:{BUS_FILE}") } else { text.to_owned() };
    BusAddress::parse(&text).map_err(|error| error.to_string())
}

/// `KIND` or `NAME=KIND`.
fn parse_sink(kinds: &'static [Kind], text: &str) -> Result<(String, &'static Kind), String> {
    let (name, kind) = text.split_once('=').unwrap_or((text, text));
    match find_kind(kinds, kind) {
        Some(kind) => Ok((name.to_owned(), kind)),
        None => Err(format!("unknown kind {kind:?}: this build has {}", kind_names(kinds))),
    }
}

/// Refuses two sinks of one name.
fn distinct(sinks: Vec<(String, &'static Kind)>) -> Result<Vec<(String, &'static Kind)>, String> {
    for (place, (name, kind)) in sinks.iter().enumerate() {
        if sinks[..place].iter().any(|(other, _)| other == name) {
            return Err(format!("two sinks are named {name}: name one of them otherwise, as in other={}", kind.name));
        }
    }
    Ok(sinks)
}

fn kind_names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::Setting;
    use tallybus_sdk::testkit::UNOPENED;

    use super::kinds::Given;
    use super::*;

    const KINDS: &[Kind] = &[
        Kind { name: "sqlite", settings: &[Setting { key: "path", default: None, help: "the file" }], ..UNOPENED },
        Kind {
            name: "influxdb",
            settings: &[
                Setting { key: "gzip", default: Some("true"), help: "compresses" },
                Setting { key: "token", default: None, help: "the token" },
            ],
            ..UNOPENED
        },
        Kind { name: "own", settings: &[], ..UNOPENED },
    ];

    fn asked(input: &str) -> (String, Result<(BusAddress, Vec<NewSink>), Failure>) {
        let mut shown = String::new();
        let mut show = |text: &str| shown.push_str(text);
        let mut questions = Questions { input: &mut input.as_bytes(), show: &mut show };
        let answered = answered(&mut questions, KINDS, None, Vec::new());
        (shown, answered)
    }

    #[test]
    fn empty_answers_are_those_that_are_offered() {
        let (shown, answered) = asked("\n\n\n\n");
        let (bus, sinks) = answered.unwrap();
        assert_eq!((bus.kind().name, bus.place()), ("embedded", "tallybus.db"));
        assert_eq!((sinks[0].name.as_str(), sinks.len()), ("sqlite", 1));
        assert_eq!(sinks[0].given, [Given { key: "path", value: Value::Text("counters.db".to_owned()) }]);
        assert_eq!(
            shown,
            "Bus: kafka, or embedded (one file, one machine) [embedded]: File of the bus [tallybus.db]: Sinks, separated by \
             commas, as KIND or NAME=KIND; kinds: sqlite, influxdb, own [sqlite]: sqlite: path [counters.db]: "
        );
    }

    #[test]
    fn a_wrong_answer_is_asked_for_again_with_the_reason_and_a_secret_is_not_taken() {
        let answers =
            "redis\nkafka\nh:x\nh:1,i:2\nnosuch\nsqlite,sqlite\na=influxdb, own\n\n\nmine\nhunter2\nfile:/run/t\n";
        let (shown, answered) = asked(answers);
        let (bus, sinks) = answered.unwrap();
        assert_eq!((bus.kind().name, bus.place()), ("kafka", "h:1,i:2"));
        let names: Vec<_> = sinks.iter().map(|sink| (sink.name.as_str(), sink.kind.name)).collect();
        assert_eq!(names, [("a", "influxdb"), ("own", "own")]);
        assert_eq!(sinks[0].given[2], Given { key: "bucket", value: Value::Text("mine".to_owned()) });
        assert_eq!(sinks[0].given[3], Given { key: "token", value: Value::Secret("file:/run/t".to_owned()) });
        for reason in [
            "expected kafka or embedded\n",
            "\"host:port\"",
            "unknown kind \"nosuch\"",
            "two sinks are named sqlite",
            "expected env:NAME or file:PATH\n",
        ] {
            assert!(shown.contains(reason), "no {reason:?} in {shown}");
        }
    }

    #[test]
    fn an_input_that_ends_early_is_an_error() {
        let refused = asked("kafka\n").1.err().map(|failure| failure.status());
        assert_eq!(refused, Some(2));
    }

    #[test]
    fn the_file_has_what_is_chosen_and_the_rest_as_comments() {
        let (_, answered) = asked("\na \"b\".db\nsqlite,influxdb\n\n\n\n\n\n");
        let (bus, sinks) = answered.unwrap();
        let text = page::text("x.toml", &bus, &sinks);
        for line in [
            "#   tallybus doctor --config x.toml           checks settings, bus and backends; creates nothing",
            "path = \"a \\\"b\\\".db\"",
            "# topic = \"tallybus.counters\"",
            "# partitions = 4",
            "[sinks.influxdb]",
            "token = \"env:INFLUX_TOKEN\"",
            "# gzip = true",
            "# batch.max_bytes = \"4 MiB\"",
            "# window, batch, select and the like: as in [sinks.sqlite].",
        ] {
            assert!(text.lines().any(|written| written == line), "no {line:?} in\n{text}");
        }
        assert!(!text.contains("brokers") && text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
