//! `tallybus console`: what it answers over HTTP, and what a real browser makes of it.
#![allow(missing_docs, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod browser;
mod client;
#[path = "../common/mod.rs"]
mod common;

use std::io::Read;
use std::time::Instant;

use serde_json::Value;
use tallybus_bus::{Bus, Committed, TopicPartition};

use crate::client::{Console, Events};
use crate::common::Place;

const HIT: &[u8] = br#"{"name":"hits"}"#;
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// Seven messages, three of them written, one of these refused.
fn behind() -> Place {
    let place = Place::with_local();
    place.run(&["topic", "create", "--partitions", "2"]).expect(0);
    place.publish(0, &[HIT, b"garbage", HIT]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.publish(0, &[HIT; 3]);
    place.publish(1, &[HIT]);
    place
}

fn without_time(mut picture: Value) -> Value {
    picture["time_ms"] = Value::Null;
    picture
}

#[test]
fn the_pages_have_the_figures_of_top_and_are_small_and_nothing_but_their_own_parts_is_allowed() {
    let place = behind();
    place.run(&["run", "--until-caught-up"]).expect(0);
    let console = Console::start(&place, &["--interval", "200ms"], &[]);
    // The first look of both has no rates. A sink that has settled everything has no figure that depends on when it is looked at.
    let top = place.run(&["top", "--json", "--once", "--interval", "200ms"]).expect(0).json();
    common::eventually("rates", || console.json()["sinks"][0]["settled_per_second"].is_number());
    let json = console.json();
    assert_eq!(without_time(json.clone()), without_time(top));
    place.publish(0, &[HIT; 4]);
    common::eventually("the lag", || console.json()["sinks"][0]["lag_messages"] == 4);
    let page = console.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.contains("<data value=\"4\">4</data>"), "the lag: {}", page.body);
    let sink = console.get("/sink/local");
    for part in
        ["tallybus.local", "<dd data-column=\"LAG\"><data value=\"4\">4</data>", "Partitions of tallybus.counters"]
    {
        assert!(sink.body.contains(part), "{part}: {}", sink.body);
    }
    let policy = page.header("content-security-policy").unwrap();
    for part in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"]
    {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
    for (header, value) in
        [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("cache-control", "no-store")]
    {
        assert_eq!(page.header(header), Some(value));
    }
    let parts = ["/style.css", "/console.js", "/icon.svg"].map(|path| console.get(path));
    assert!(parts.iter().all(|part| part.status == 200));
    let weight: usize = [&page, &sink].iter().map(|part| part.body.len()).max().unwrap()
        + parts.iter().map(|part| part.body.len()).sum::<usize>();
    println!("a page with all its parts: {weight} bytes, not compressed");
    assert!(weight < 100_000, "{weight}");
    for (line, expected) in [
        ("GET /nothing", 404),
        ("GET /sink/nothing", 404),
        ("GET /healthz", 200),
        ("GET /audits", 200),
        ("GET /audits/x", 404),
        ("HEAD /", 200),
        ("POST /", 405),
        ("DELETE /sink/local", 405),
    ] {
        assert_eq!(console.ask(line, "", "").status, expected, "{line}");
    }
    assert!(console.get("/audits").body.contains("--reports DIRECTORY"));
    // A page that had its own name point here.
    let mut misled = String::new();
    console.connect("GET /json HTTP/1.0\r\nHost: evil.example\r\n\r\n").read_to_string(&mut misled).unwrap();
    assert!(misled.starts_with("HTTP/1.0 403"), "{misled}");
    assert_eq!(console.end().err, "");
}

#[test]
fn dead_letters_are_shown_with_their_reason_and_nothing_from_the_bus_is_markup() {
    let place = behind();
    // Without sinks in the settings, names come from the groups on the bus, which anybody may have made.
    let group = format!("tallybus.{HOSTILE}");
    let bus = place.bus();
    let at = TopicPartition::new("tallybus.counters", 0);
    bus.reset_group(&group, &[(at, Committed { offset: 0, metadata: String::new() })]).unwrap();
    let groups = bus.observer().unwrap().groups().unwrap();
    let elsewhere = Place::new();
    let url = format!("embedded:{}", place.file("bus.db").display());
    let console = Console::start(&elsewhere, &["--bus", &url, "--interval", "100ms"], &[]);
    for path in ["/", "/sink/%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E", "/sink/%3Cscript%3E"] {
        let page = console.get(path);
        assert!(
            page.body.contains("&lt;") && !page.body.contains("<img") && !page.body.contains("<script>"),
            "{path}: {}",
            page.body
        );
    }
    let mut events = console.events("/sink/local");
    let shown = events.until("tallybus.counters/0/1");
    assert!(shown.contains("invalid JSON") || shown.contains("not JSON") || shown.contains("not decoded"), "{shown}");
    console.end();
    assert_eq!(bus.observer().unwrap().groups().unwrap(), groups, "no group was made");
}

#[test]
fn followers_are_bounded_see_each_change_and_do_not_keep_the_command_from_its_end() {
    let place = behind();
    let console = Console::start(&place, &["--interval", "100ms"], &[]);
    let mut followers: Vec<Events> = (0..32).map(|_| console.events("/")).collect();
    assert!(followers.iter_mut().all(|events| events.status == 200 && events.next().contains("id=\"view\"")));
    let refused = console.get("/events/");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")), "{}", refused.body);
    assert!(refused.body.contains("32 browser tabs follow already"), "{}", refused.body);
    assert_eq!(console.get("/").status, 200, "pages are answered all the same");
    followers.pop();
    common::eventually("a place", || console.events("/").status == 200);
    place.publish(1, &[HIT; 5]);
    for events in &mut followers {
        events.until("<data value=\"9\">9</data>");
    }
    let ending = Instant::now();
    let ran = console.end();
    println!("ended {:?} after Ctrl-C, with {} followers", ending.elapsed(), followers.len());
    assert_eq!(ran.err, "");
}

#[test]
fn elsewhere_than_on_this_machine_a_token_is_demanded_and_a_login_sets_a_cookie_without_it() {
    let place = behind();
    let refused = place.run(&["console", "--listen", "0.0.0.0:0"]).expect(2);
    assert!(refused.err.contains("other machines") && refused.err.contains("--token"), "{}", refused.err);
    let refused = place.run(&["console", "--token", "hunter2-hunter2"]).expect(2);
    assert!(refused.err.contains("env:NAME or file:PATH"), "{}", refused.err);
    let refused = place.run(&["console", "--token", "env:NO_SUCH_VARIABLE"]).expect(2);
    assert!(refused.err.contains("--token") && refused.err.contains("NO_SUCH_VARIABLE"), "{}", refused.err);
    let refused = place.run(&["console", "--reports", "nowhere"]).expect(2);
    assert!(refused.err.contains("--reports: nowhere is not a directory"), "{}", refused.err);

    let console = Console::start(&place, &["--token", "env:CONSOLE_TOKEN"], &[("CONSOLE_TOKEN", "hunter2-hunter2")]);
    for path in ["/", "/json", "/events/", "/sink/local", "/audits", "/nothing"] {
        let answer = console.get(path);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        let wrong = console.ask(&format!("GET {path}"), "Authorization: Bearer wrong\r\n", "");
        assert_eq!(wrong.status, 401, "{path}");
    }
    assert_eq!(console.ask("GET /json", "Authorization: Bearer hunter2-hunter2\r\n", "").status, 200);
    assert_eq!((console.get("/healthz").status, console.get("/style.css").status), (200, 200));
    // A browser is led to the form, and from there to the page that it wanted.
    let led = console.ask("GET /sink/local", "Accept: text/html\r\n", "");
    assert_eq!((led.status, led.header("location")), (303, Some("/login?to=%2Fsink%2Flocal")));
    let form = console.get("/login?to=%2Fsink%2Flocal");
    assert!(
        form.body.contains("value=\"/sink/local\"")
            && form.header("content-security-policy").unwrap().contains("form-action 'self'")
    );
    let wrong = console.ask("POST /login", "", "token=wrong&to=%2Fsink%2Flocal");
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    let right = "token=hunter2-hunter2&to=%2Fsink%2Flocal";
    assert_eq!(console.ask("POST /login", "Sec-Fetch-Site: cross-site\r\n", right).status, 403);
    let in_the_url = console.get("/login?token=hunter2-hunter2");
    assert_eq!((in_the_url.status, in_the_url.header("set-cookie")), (200, None));
    let entered = console.ask("POST /login", "Sec-Fetch-Site: same-origin\r\n", right);
    assert_eq!((entered.status, entered.header("location")), (303, Some("/sink/local")));
    let cookie = entered.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains("hunter2"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(console.ask("GET /sink/local", &format!("Cookie: {cookie}\r\n"), "").status, 200);
    assert_eq!(console.ask("GET /sink/local", &format!("Cookie: {cookie}x\r\n"), "").status, 401);
    let ran = console.end();
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
}

#[test]
fn reports_of_a_directory_are_listed_and_drawn() {
    let place = behind();
    std::fs::create_dir(place.file("reports")).unwrap();
    let audit = place.run(&["audit", "--json"]);
    place.write("reports/first.json", &audit.out);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.sql("local.db", "UPDATE counters SET value = value + 1");
    place.write("reports/second.json", &place.run(&["audit", "--json"]).expect(1).out);
    let result = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bake-off.json")).unwrap();
    place.write("reports/bake-off.json", &result);
    place.write("reports/other.json", "{}");
    let console = Console::start(&place, &["--reports", "reports"], &[]);
    let list = console.get("/audits").body;
    let at = |text: &str| list.find(text).unwrap_or_else(|| panic!("no {text} in {list}"));
    assert!(at("second.json") < at("first.json") && list.contains("Not equal"), "the newest first: {list}");
    assert!(list.contains("other.json: neither") && list.contains("<svg") && !list.contains("style="), "{list}");
    let one = console.get("/audits/second%2Ejson").body;
    assert!(one.contains("Series that differ") && one.contains("hits"), "{one}");
    let list = console.get("/comparisons").body;
    assert!(list.contains("bake-off.json") && list.contains("not all equal"), "{list}");
    let drawn = console.get("/comparisons/bake%2Doff%2Ejson").body;
    assert!(drawn.contains("Right before fast") && drawn.contains("<svg") && !drawn.contains("style="));
    assert_eq!(console.get("/audits/bake%2Doff%2Ejson").status, 404);
    assert_eq!(console.get("/audits/%2E%2E%2Ftallybus%2Etoml").status, 404);
    console.end();
}
