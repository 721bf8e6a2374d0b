//! The text of a new settings file.

use std::fmt::Write;

use tallybus_bus::{BUSES, BusAddress, BusKind};
use tallybus_sdk::config::key_path;
use tallybus_sdk::{Kind, Setting};
use tallybus_worker::settings::{BUS_SETTINGS, COMMON_SETTINGS, STATUS_SETTINGS};

use super::kinds::{Given, quoted};
use crate::text::wrap;

/// The width of the lines of comments.
const WIDTH: usize = 100;

/// A sink of the new file.
pub(super) struct NewSink {
    pub(super) name: String,
    pub(super) kind: &'static Kind,
    pub(super) given: Vec<Given>,
}

/// The file: what is chosen as settings, and every other setting as a comment with its meaning.
pub(super) fn text(file: &str, bus: &BusAddress, sinks: &[NewSink]) -> String {
    let mut page = String::from(
        "# Settings of Tallybus, written by `tallybus init`.\n\
         # A line of the form `# key = value` is a setting with its default: remove the # to change it.\n\
         # Secrets are env:NAME or file:PATH. Environment variables override: TALLYBUS__BUS__TOPIC is\n\
         # `topic` of [bus].\n#\n",
    );
    let config = if file == crate::config::DEFAULT_FILE { String::new() } else { format!(" --config {file}") };
    for (command, meaning) in [
        ("doctor", "checks settings, bus and backends; creates nothing"),
        ("run", "runs the workers"),
        ("audit", "compares the bus with every backend"),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "#   {:<40}  {meaning}", format!("tallybus {command}{config}"));
    }
    let kind = bus.kind();
    page.push_str("\n[bus]\n");
    let _ = writeln!(page, "kind = {}", quoted(kind.name));
    let own: Vec<&str> = kind.settings().collect();
    let of_others: Vec<&str> =
        BUSES.iter().flat_map(BusKind::settings).filter(|setting| !own.contains(setting)).collect();
    for setting in BUS_SETTINGS.iter().filter(|setting| !of_others.contains(&setting.key) && setting.key != "kind") {
        let given = (setting.key == kind.place).then(|| quoted(bus.place()));
        add(&mut page, setting, given.as_deref());
    }
    for (number, sink) in sinks.iter().enumerate() {
        add_sink(&mut page, sink, sinks.first().filter(|_| number > 0).map(|first| first.name.as_str()));
    }
    page.push_str("\n# How a process that runs workers shows what it does, on all sinks.\n[status]\n");
    STATUS_SETTINGS.iter().for_each(|setting| add(&mut page, setting, None));
    page
}

/// Adds a sink; what every sink has is shown at the first one.
fn add_sink(page: &mut String, sink: &NewSink, first: Option<&str>) {
    comment(
        page,
        &format!(
            "{}. Its consumer group is tallybus.{}: another name is another group, which starts over.",
            sink.kind.summary, sink.name
        ),
        "\n# ",
    );
    let _ = writeln!(page, "[{}]\nkind = {}", key_path(["sinks", &sink.name]), quoted(sink.kind.name));
    let is_given = |setting: &&Setting| sink.given.iter().any(|given| given.key == setting.key);
    let (given, rest): (Vec<&Setting>, Vec<&Setting>) = sink.kind.settings.iter().partition(is_given);
    for setting in given.into_iter().chain(rest) {
        let value = sink.given.iter().find(|given| given.key == setting.key).map(|given| given.value.literal());
        add(page, setting, value.as_deref());
    }
    match first {
        None => {
            COMMON_SETTINGS.iter().filter(|setting| setting.key != "kind").for_each(|setting| add(page, setting, None))
        }
        Some(first) => comment(page, &format!("window, batch, select and the like: as in [sinks.{first}]."), "\n# "),
    }
}

/// Adds a setting with its meaning: with this value, or with its default as a comment.
fn add(page: &mut String, setting: &Setting, value: Option<&str>) {
    let line = match (value, setting.default) {
        (Some(value), _) => format!("{} = {value}", setting.key),
        (None, Some(default)) => format!("# {} = {}", setting.key, default_literal(default)),
        (None, None) => {
            comment(page, &format!("{} (no default): {}", setting.key, setting.help), "\n# ");
            return;
        }
    };
    comment(page, setting.help, "\n# ");
    let _ = writeln!(page, "{line}");
}

/// Adds a comment of several lines, the first after `begin`.
fn comment(page: &mut String, text: &str, begin: &str) {
    for (number, line) in wrap(text, WIDTH - 2).iter().enumerate() {
        let _ = writeln!(page, "{}{line}", if number == 0 { begin } else { "# " });
    }
}

/// A default as TOML: the tables of settings have texts without their quotes.
fn default_literal(default: &str) -> String {
    let is_bare = default.parse::<u64>().is_ok() || matches!(default, "true" | "false") || default.starts_with('[');
    if is_bare { default.to_owned() } else { quoted(default) }
}
