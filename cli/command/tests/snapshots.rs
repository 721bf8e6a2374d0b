//! What the commands print, word for word: reviewed as code is, on an embedded bus, with directories and times normalised.
//!
//! `UPDATE_EXPECT=1 cargo test -p tallybus-command --test snapshots` writes `snapshots/` again. The help texts are in
//! `docs/cli.md`, which `docs.rs` holds to the program.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Place, Ran};
use expect_test::{ExpectFile, expect_file};

const TIME: &str = "2023-11-14T22:13:20Z";

/// Directories, times and stream ids, which differ in every run, replaced.
fn normal(place: &Place, text: &str) -> String {
    let folder = place.path().canonicalize().unwrap();
    let text = text.replace(folder.to_str().unwrap(), "[DIR]").replace(place.path().to_str().unwrap(), "[DIR]");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let time = rest.find(|c: char| !c.is_ascii_digit() && !"-:.TZ".contains(c)).unwrap_or(rest.len());
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let hex = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        let (length, name) = match &rest[..time] {
            // An instant: the test's own is left as it is.
            found if found.len() >= 20 && found.ends_with('Z') && found.as_bytes()[10] == b'T' => {
                (time, if found == TIME { TIME } else { "[TIME]" })
            }
            // The stream id of an embedded bus.
            _ if hex == 32 => (hex, "[STREAM]"),
            // Milliseconds or nanoseconds since the Unix epoch.
            _ if digits >= 13 => (digits, "[TIME]"),
            _ => (first.len_utf8().max(digits), ""),
        };
        out.push_str(if name.is_empty() { &rest[..length] } else { name });
        rest = &rest[length..];
    }
    out
}

/// The command, its exit status, and both of its outputs.
fn shown(place: &Place, args: &[&str], ran: &Ran) -> String {
    let mut text = format!("$ tallybus {}\n", args.join(" "));
    text.push_str(&ran.out);
    if !ran.err.is_empty() {
        text.push_str("--- standard error\n");
        text.push_str(&ran.err);
    }
    text.push_str(&format!("--- exit status {}\n\n", ran.status));
    normal(place, &text)
}

/// Runs the commands one after the other and compares all that they print.
fn expect(place: &Place, commands: &[&[&str]], expected: &ExpectFile) {
    let text: String = commands.iter().map(|args| shown(place, args, &place.run(args))).collect();
    expected.assert_eq(&text);
}

/// Three counts of two routes on the bus, and one record that nobody can decode.
fn counted() -> Place {
    // A batch waits for a second, so that a busy machine does not make two of one.
    let place = Place::with_settings("[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n");
    place.run(&["topic", "create"]).expect(0);
    for (value, route) in [("3", "/v1"), ("4", "/v2"), ("5", "/v1")] {
        let tag = format!("route={route}");
        place.run(&["emit", "http.requests", value, "--tag", &tag, "--time", TIME]).expect(0);
    }
    place.publish(0, &[b"garbage"]);
    place
}

#[test]
fn normalised_text_keeps_all_but_folders_and_times() {
    let place = Place::new();
    let text = format!(
        "at {}/a.db: 12 of 1,000 since 2026-01-02T03:04:05.678Z, {TIME}, 1767322445678 ms",
        place.path().display()
    );
    assert_eq!(normal(&place, &text), format!("at [DIR]/a.db: 12 of 1,000 since [TIME], {TIME}, [TIME] ms"));
}

#[test]
fn topic_create_and_emit() {
    let place = Place::with_local();
    expect(
        &place,
        &[
            &["topic", "create"],
            &["topic", "create"],
            &["topic", "create", "--partitions", "9"],
            &["emit", "http.requests", "3", "--tag", "route=/v1", "--time", TIME],
            &["emit", "http.requests", "-3"],
        ],
        &expect_file!["snapshots/topic_and_emit.txt"],
    );
}

#[test]
fn count_and_tap() {
    let place = counted();
    expect(
        &place,
        &[
            &["count"],
            &["count", "--by", "route"],
            &["count", "--name", "nothing.*"],
            &["tap", "--from", "beginning", "--until-end"],
        ],
        &expect_file!["snapshots/count_and_tap.txt"],
    );
}

#[test]
fn run_and_audit() {
    let place = counted();
    let before = shown(&place, &["audit"], &place.run(&["audit"]));
    place.run(&["run", "--until-caught-up"]).expect(0);
    let equal = shown(&place, &["audit"], &place.run(&["audit"]));
    place.sql("local.db", "UPDATE counters SET value = value - 1 WHERE value = 4");
    let missing = shown(&place, &["audit"], &place.run(&["audit"]));
    expect_file!["snapshots/audit.txt"].assert_eq(&format!("{before}{equal}{missing}"));
}

#[test]
fn run_says_what_it_has_written() {
    let place = counted();
    let ran = place.run(&["run", "--until-caught-up"]).expect(0);
    // The log has the time of each line; the summary is what is compared.
    let summary: String =
        ran.err.lines().filter(|line| line.starts_with("local: ")).map(|line| format!("{line}\n")).collect();
    expect_file!["snapshots/run.txt"].assert_eq(&normal(&place, &summary));
}

#[test]
fn doctor() {
    let place = Place::with_local();
    let before = shown(&place, &["doctor"], &place.run(&["doctor"]));
    place.run(&["topic", "create"]).expect(0);
    let fixed = shown(&place, &["doctor", "--fix"], &place.run(&["doctor", "--fix"]));
    expect_file!["snapshots/doctor.txt"].assert_eq(&format!("{before}{fixed}"));
}

#[test]
fn replay() {
    let place = counted();
    place.run(&["run", "--until-caught-up"]).expect(0);
    let dead_letters = place.run(&["replay", "list", "--json", "--dead-letters"]).expect(0).json();
    let key = dead_letters["sinks"][0]["each"][0]["key"].as_str().unwrap().to_owned();
    expect(
        &place,
        &[
            &["replay", "list"],
            &["replay", "list", "--dead-letters"],
            &["replay", "show", &key],
            &["replay", "show", "nothing/0/0"],
            &["replay", "run", "--sink", "local", "--dry-run"],
        ],
        &expect_file!["snapshots/replay.txt"],
    );
}

#[test]
fn sinks_and_ddl() {
    let place = Place::with_local();
    expect(
        &place,
        &[&["sinks", "sqlite"], &["sinks", "nosuch"], &["sink", "ddl", "local"]],
        &expect_file!["snapshots/sinks.txt"],
    );
}

#[test]
fn tables_as_csv() {
    let place = counted();
    for (value, tags) in [("7", ["route==1+2", "who=\"x\", y"]), ("1", ["route=", "who=@SUM(1)"])] {
        place.run(&["emit", "other", value, "--tag", tags[0], "--tag", tags[1], "--time", TIME]).expect(0);
    }
    place.run(&["emit", "-evil", "--time", TIME]).expect(2);
    place.run(&["emit", "--time", TIME, "--", "-evil"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.sql("local.db", "UPDATE counters SET value = value + 2 WHERE name = 'other'");
    expect(
        &place,
        &[
            &["count", "--csv"],
            &["count", "--by", "name", "--by", "route", "--by", "who", "--csv"],
            &["audit", "--csv"],
            &["group", "show", "local", "--csv"],
            &["replay", "list", "--csv"],
            &["replay", "list", "--csv", "--dead-letters"],
            &["sinks", "sqlite", "--csv"],
            &["topic", "create", "--csv"],
            &["count", "--csv", "--json"],
            &["--json", "count", "--csv"],
        ],
        &expect_file!["snapshots/csv.txt"],
    );
}

#[test]
fn config_show() {
    let place = Place::new();
    place.write(
        "tallybus.toml",
        "[bus]\nkind = \"kafka\"\nbrokers = \"127.0.0.1:9092\"\n\n[bus.kafka]\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"me\"\n\
         \"sasl.password\" = \"hunter2\"\n\n[sinks.influx]\nkind = \"influxdb\"\nurl = \"http://127.0.0.1:8086\"\n\
         org = \"o\"\nbucket = \"b\"\ntoken = \"env:NO_SUCH_VARIABLE\"\nbatch = { max_delay = \"5s\" }\n",
    );
    let args = ["config", "show"];
    let mut command = place.command(&args);
    command.env("TALLYBUS__SINKS__INFLUX__WINDOW", "10s").env("TALLYBUS__BUS__KAFKA__SECURITY_PROTOCOL", "SASL_SSL");
    let good = shown(&place, &args, &Ran::of(command.output().unwrap()));
    place.write(
        "tallybus.toml",
        "[bus]\nkind = \"embedded\"\npath = \"bus.db\"\n[sinks.a]\nkind = \"influxdb\"\ntokn = \"hunter2\"\n",
    );
    let args = ["config", "show", "--bus", "embedded:other.db", "--sink", "a"];
    let wrong = shown(&place, &args, &place.run(&args));
    let text = good + &wrong;
    assert!(!text.contains("hunter2") && text.lines().filter(|line| line.starts_with(' ')).count() > 20, "{text}");
    expect_file!["snapshots/config.txt"].assert_eq(&text);
}

#[test]
fn mistakes_in_the_settings() {
    let place = Place::new();
    place.write(
        "tallybus.toml",
        "[bus]\nkind = \"kafak\"\npartitons = 4\n\n[sinks.local]\nkind = \"sqlite\"\nwindow = \"soon\"\n\
         [sinks.influx]\nkind = \"influxdb\"\ntoken = \"env:NO_SUCH_VARIABLE\"\n",
    );
    expect(
        &place,
        &[&["doctor", "--offline"], &["run", "--sink", "nosuch"], &["audit", "--config", "nosuch.toml"]],
        &expect_file!["snapshots/settings.txt"],
    );
}
