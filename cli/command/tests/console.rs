//! `tallybus console`: what it answers over HTTP, and what a real browser makes of it.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, Ran};
use serde_json::Value;
use tallybus_bus::{Bus, BusAddress, Committed, TopicPartition};
use tallybus_tests::Browser;

const HIT: &[u8] = br#"{"name":"hits"}"#;
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// A console that runs.
struct Console {
    child: Child,
    url: String,
    out: BufReader<std::process::ChildStdout>,
}

/// An answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Console {
    fn start(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = place.command(&[&["console", "--listen", "127.0.0.1:0", "--json"], args].concat());
        command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).unwrap();
        Self { child, url: started["url"].as_str().unwrap().trim_end_matches('/').to_owned(), out }
    }

    fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// The answer to a request line, headers, and body.
    fn ask(&self, line: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!("{line} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
        let mut text = String::new();
        self.connect(&request).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", "")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.get("/json").body).unwrap()
    }

    fn events(&self, path: &str) -> Events {
        let stream = self.connect(&format!("GET /events{path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"));
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        Events { status: head.split(' ').nth(1).unwrap().parse().unwrap(), reader }
    }

    /// Ctrl-C, and what the process came to.
    fn end(mut self) -> Ran {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        Ran::of(self.child.wait_with_output().unwrap()).expect(0)
    }
}

/// A page that is followed.
struct Events {
    status: u16,
    reader: BufReader<TcpStream>,
}

impl Events {
    /// The next event.
    fn next(&mut self) -> String {
        let mut event = String::new();
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).unwrap() > 0, "the events have ended: {event}");
            match line.strip_prefix("data: ") {
                Some(data) => event.push_str(data),
                None => return event,
            }
        }
    }

    /// Reads events until one has this text.
    fn until(&mut self, text: &str) -> String {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let event = self.next();
            if event.contains(text) {
                return event;
            }
            assert!(Instant::now() < until, "{text} does not come: {event}");
        }
    }
}

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
    let console = Console::start(&place, &[], &[]);
    // The first look of both has no rates.
    let top = place.run(&["top", "--json", "--once", "--interval", "200ms"]).expect(0).json();
    common::eventually("rates", || console.json()["sinks"][0]["settled_per_second"].is_number());
    let json = console.json();
    assert_eq!(without_time(json.clone()), without_time(top));
    let page = console.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.contains("<data value=\"4\">4</data>"), "the lag: {}", page.body);
    let sink = console.get("/sink/local");
    for part in ["tallybus.local", "<b class=\"state\">measuring</b>", "Partitions of tallybus.counters"] {
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

/// The pages of a broker that goes away and comes back, in a browser, with the keyboard alone.
#[test]
fn in_a_browser_figures_are_those_of_json_follow_the_bus_over_a_restart_and_need_no_mouse() {
    let Some(mut kafka) = tallybus_tests::kafka() else { return };
    let Some(mut browser) = tallybus_tests::browser() else { return };
    let place = Place::with_settings("");
    let settings = format!(
        "[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\n[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n",
        kafka.bootstrap()
    );
    place.write("tallybus.toml", &settings);
    place.run(&["topic", "create", "--partitions", "3"]).expect(0);
    place.run(&["emit", "hits", "4"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.run(&["emit", "hits", "5"]).expect(0);
    let address = BusAddress::parse(&format!("kafka://{}", kafka.bootstrap())).unwrap();
    let groups = || {
        let bus = address.open().unwrap();
        bus.observer().unwrap().groups().unwrap()
    };
    let before = groups();
    let console = Console::start(&place, &["--interval", "500ms"], &[]);
    browser.show_as((1_280, 900), false);
    browser.open(&console.url);
    let lag = |lag: u64| {
        format!(
            "document.querySelector('tr[data-key=local] td[data-column=LAG] data').value === '{lag}' && view.className === 'current'"
        )
    };
    browser.wait(&lag(1));
    // Every figure of the page is that of one look, as /json has it.
    equals_json(&mut browser);
    let marked = "document.querySelector('tr[data-key=local]').marked = true; main.marked = true";
    browser.evaluate(marked);
    place.run(&["emit", "hits", "6"]).expect(0);
    browser.wait(&lag(2));
    assert_eq!(
        browser.evaluate("document.querySelector('tr[data-key=local]').marked && main.marked"),
        true,
        "the same elements"
    );

    // With the keyboard: past the link that skips the menu and the menu to the button, which pauses, and to the sink.
    let focused =
        |browser: &mut Browser| browser.evaluate("document.activeElement.textContent").as_str().unwrap().to_owned();
    let tab_to = |browser: &mut Browser, text: &str| {
        for _ in 0..30 {
            browser.press("Tab");
            if focused(browser) == text {
                return;
            }
        }
        panic!("{text} is not reached with Tab");
    };
    browser.press("Tab");
    assert_eq!(focused(&mut browser), "Skip to the page");
    tab_to(&mut browser, "Pause");
    browser.press("Enter");
    browser.wait(
        "main.classList.contains('cut') && document.getElementById('link').textContent.startsWith('Paused since')",
    );
    browser.press("Enter");
    browser.wait("!main.classList.contains('cut')");
    tab_to(&mut browser, "local");
    let look = browser.evaluate("view.dataset.time");
    browser.wait(&format!("view.dataset.time !== '{}'", look.as_str().unwrap()));
    assert_eq!(focused(&mut browser), "local", "it keeps the focus over a look");
    browser.press("Enter");
    browser.wait("location.pathname === '/sink/local' && document.querySelectorAll('tr[data-key^=\"tallybus.counters/\"]').length === 3");

    // Old figures are never shown as current, and what was opened stays open.
    browser.wait("document.querySelector('#lag svg.drawing')");
    browser.evaluate("document.querySelector('#lag details').open = true");
    kafka.kill();
    browser.wait("view.className === 'old' && bus.textContent.includes('has not answered since') && bus.textContent.includes('are old, from')");
    let since = browser.evaluate("bus.textContent.split(': ')[0]");
    kafka.restart().unwrap();
    browser.wait("view.className === 'current' && bus.textContent === ''");
    assert!(since.as_str().unwrap().contains("UTC"), "{since}");
    assert_eq!(browser.evaluate("document.querySelector('#lag details').open"), true);
    place.run(&["emit", "hits", "7"]).expect(0);
    browser.wait("document.querySelector('dd[data-column=LAG] data').value === '3'");

    for (size, is_dark) in [((375, 800), false), ((375, 800), true), ((1_280, 900), true)] {
        browser.show_as(size, is_dark);
        for path in ["/", "/sink/local", "/audits", "/comparisons"] {
            browser.open(&format!("{}{path}", console.url));
            browser.wait(&format!("location.pathname === '{path}' && document.readyState === 'complete'"));
            let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
            assert_eq!(browser.evaluate(fits), true, "{path} at {size:?}");
        }
    }
    assert_eq!(browser.complaints(), [""; 0]);
    let requests = browser.requests();
    assert!(requests.len() > 20 && requests.iter().all(|url| url.starts_with(&console.url)), "{requests:?}");
    console.end();
    assert_eq!(groups(), before, "no group was made");
}

/// Every exact figure of the sinks' table against /json, of the same look.
fn equals_json(browser: &mut Browser) {
    let compare = "(async () => {
        for (let tries = 0; tries < 100; tries++) {
            const json = await (await fetch('/json')).json();
            await new Promise((done) => setTimeout(done, 20));
            if (view.dataset.time !== String(json.time_ms)) continue;
            const cell = (column) => document.querySelector(`tr[data-key=local] td[data-column='${column}'] data`)?.value ?? null;
            const sink = json.sinks[0];
            const pairs = [['LAG', sink.lag_messages], ['IN/S', sink.arriving_per_second], ['OUT/S', sink.settled_per_second],
                ['DEAD', sink.dead_letters], ['SEALED', sink.sealed_batches], ['WORKERS', sink.workers]];
            return pairs.map(([column, value]) => [column, value === null ? null : String(value), cell(column)]);
        }
        return 'no look was on the page and in /json';
    })()";
    let pairs = browser.evaluate(compare);
    let pairs = pairs.as_array().unwrap_or_else(|| panic!("{pairs}"));
    assert_eq!(pairs.len(), 6);
    assert!(pairs.iter().all(|pair| pair[1] == pair[2]), "{pairs:?}");
}
