//! What comes from outside is not obeyed: by a terminal, or by `emit`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Place, Ran, eventually};
use serde_json::json;

/// Every character that a terminal may obey, but line breaks.
fn obeyed(text: &str) -> Vec<char> {
    let obeys = |character: &char| {
        (character.is_control() && *character != '\n')
            || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(obeys).collect()
}

fn shows_safely(place: &Place, args: &[&str]) -> Ran {
    let ran = place.run(args);
    assert_eq!(obeyed(&ran.out), [], "{args:?}: {ran:#?}");
    assert_eq!(obeyed(&ran.err), [], "{args:?}: {ran:#?}");
    ran
}

#[test]
fn nothing_from_the_bus_reaches_the_terminal_unescaped() {
    let place = Place::with_local();
    place.run(&["topic", "create"]).expect(0);
    let evil = "evil\u{9b}31mRED\u{202e}gnp.exe";
    let tags = json!({ "t\u{9b}2J": "\u{9d}0;pwned\u{9c}", "u": "\u{2066}x" });
    let event = json!({ "ts": 1_700_000_000_000_000_000_u64, "name": evil, "value": 1, "tags": tags }).to_string();
    let refused = "garbage \u{1b}[31m\u{9b}2J\u{202e}";
    place.publish(0, &[event.as_bytes(), refused.as_bytes()]);
    let run = shows_safely(&place, &["run", "--until-caught-up"]).expect(0);
    assert!(run.err.contains("1 event") || run.out.contains("1 event"), "{run:#?}");

    let coordinate: [(&str, &[u8]); 9] = [
        ("tallybus-kind", b"rejected"),
        ("tallybus-sink", b"local"),
        ("tallybus-topic", b"tallybus.counters"),
        ("tallybus-partition", b"0"),
        ("tallybus-offset", b"0"),
        ("tallybus-index", b"0"),
        ("tallybus-events", b"1"),
        ("tallybus-time", b"1700000000000"),
        ("tallybus-batch", "\u{1b}[31m\u{9b}b".as_bytes()),
    ];
    let reason = "\u{1b}[31mREASON\u{1b}]0;t\u{7}\nforged line\u{9b}2J\u{202e}";
    let headers = [&coordinate[..], &[("tallybus-reason", reason.as_bytes()), ("x\u{1b}[31m", b"\x1b[32m")]].concat();
    place.publish_with("tallybus.dead.local", event.as_bytes(), &headers);

    let dead = ["tap", "--topic", "tallybus.dead.local", "--from", "beginning", "--until-end"];
    let tapped = shows_safely(&place, &["tap", "--from", "beginning", "--until-end", "--coordinates"]).expect(0);
    assert!(tapped.out.contains(r"\u{9b}31mRED\u{202e}gnp.exe"), "{tapped:#?}");
    let tapped = shows_safely(&place, &dead).expect(0);
    assert!(tapped.out.contains("REASON") && !tapped.out.contains("\nforged"), "{tapped:#?}");
    let counted = shows_safely(&place, &["count", "--by", "name", "--by", "u"]).expect(0);
    assert!(counted.out.contains("gnp.exe"), "{counted:#?}");
    shows_safely(&place, &["count", "--by", "nosuch"]);
    let listed = shows_safely(&place, &["replay", "list", "--dead-letters"]).expect(0);
    assert!(listed.out.contains("REASON") && !listed.out.contains("\nforged"), "{listed:#?}");
    shows_safely(&place, &["replay", "list"]).expect(0);
    let shown = shows_safely(&place, &["replay", "show", "tallybus.counters/0/0/0"]).expect(0);
    assert!(shown.out.contains("REASON"), "{shown:#?}");
    shows_safely(&place, &["replay", "show", "tallybus.counters/0/1"]).expect(0);
    let dry = shows_safely(&place, &["replay", "run", "--sink", "local", "--dry-run"]);
    assert!(!dry.out.contains("\nforged"), "{dry:#?}");
    shows_safely(&place, &["audit"]);
    shows_safely(&place, &["doctor"]);
    // JSON means the same as before.
    let json = shows_safely(&place, &["tap", "--from", "beginning", "--until-end", "--json"]).expect(0).json();
    assert_eq!((json["name"].as_str(), &json["tags"]), (Some(evil), &tags));
    let json = shows_safely(&place, &["count", "--by", "name", "--json"]).expect(0).json();
    assert_eq!(json["groups"][0]["key"]["name"], evil);
}

#[test]
fn lines_of_another_format_are_refused_with_their_number() {
    let place = Place::with_local();
    let ran = place.run_with(&["emit", "-"], "\u{feff}hits 4\npage.views:5|c\nhits,5\nhits 2\n").expect(1);
    for refused in ["line 2: \"page.views:5|c\" is not a name", "line 3: \"hits,5\" is not a name", "2 lines refused"] {
        assert!(ran.err.contains(refused), "{refused}: {ran:#?}");
    }
    let count = place.run(&["count", "--by", "name", "--json"]).expect(0).json();
    assert_eq!((&count["total"], &count["groups"][0]["key"]["name"]), (&json!(6), &json!("hits")), "{count}");
}

#[test]
fn a_line_without_an_end_takes_bounded_memory_and_is_refused() {
    let place = Place::with_local();
    let mut child = place.spawn(place.command(&["emit", "-"]).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let megabyte = vec![b'x'; 1 << 20];
    stdin.write_all(b"hits 1\n").unwrap();
    for _ in 0..200 {
        stdin.write_all(&megabyte).unwrap();
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
    stdin.write_all(b"\nhits 2\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("line 2: longer than 1,048,576 bytes"), "{said}");
    assert!(kilobytes < 120 << 10, "{kilobytes} kB for a line of 200 MB");
    assert_eq!(place.run(&["count", "--json"]).expect(0).json()["total"], 3);
}

#[test]
fn a_signal_ends_the_input_and_everything_read_is_delivered_and_summed() {
    for signal in ["TERM", "INT"] {
        let place = Place::with_local();
        let mut child = place.spawn(place.command(&["emit", "-"]).stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"hits 4\nhits 3\n").unwrap();
        let bus = place.file("bus.db");
        eventually("the bus", || bus.exists());
        // Until both lines are read, which nothing shows from outside.
        std::thread::sleep(Duration::from_millis(500));
        let kill = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{signal}: {output:?}");
        assert!(out.contains("delivered 7 of 7"), "{signal}: {out}");
        assert!(err.contains("stopped by a signal after 2 lines"), "{signal}: {err}");
        assert_eq!(place.run(&["count", "--json"]).expect(0).json()["total"], 7);
    }
}
