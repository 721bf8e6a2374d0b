//! A real Chromium without a window, steered through its DevTools protocol over two named pipes: no port is opened, and no driver is
//! needed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::places::{self, RunDir};
use crate::process::Server;

/// How long Chromium may take to answer, on a loaded machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser of this test's own with one page. It ends when dropped.
pub struct Browser {
    pipe: File,
    answers: Receiver<Value>,
    /// The page's session.
    session: Option<String>,
    next_id: u64,
    /// What the page has reported.
    events: Vec<Value>,
    // Ends before its directory is removed.
    process: Server,
    _dir: RunDir,
}

impl std::fmt::Debug for Browser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Browser").field("pid", &self.process.pid()).finish_non_exhaustive()
    }
}

impl Browser {
    /// Why it cannot be started here.
    pub(crate) fn missing() -> Option<String> {
        let is_here = PROGRAMS.iter().any(|program| places::program(program).is_some());
        (!is_here).then(|| "`chromium` is not installed (Debian: chromium)".to_owned())
    }

    pub(crate) fn start() -> Result<Self> {
        let dir = places::run_dir("chromium")?;
        let program = PROGRAMS.iter().find_map(|program| places::program(program)).context("no chromium")?;
        for pipe in ["in", "out"] {
            let made = Command::new("mkfifo").arg(dir.path().join(pipe)).status()?;
            ensure!(made.success(), "mkfifo: {made}");
        }
        // Open for both directions, so that neither side waits for the other one to open it.
        let open = |name: &str| File::options().read(true).write(true).open(dir.path().join(name));
        let (pipe, out) = (open("in")?, open("out")?);
        let mut command = Command::new("sh");
        command.current_dir(dir.path()).env("HOME", dir.path()).arg("-c");
        // The sandbox needs privileges that containers lack; all that it loads comes from this test.
        command.arg("exec \"$0\" \"$@\" 3<in 4>out").arg(program).args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-breakpad",
            "--no-first-run",
            "--remote-debugging-pipe",
            "--user-data-dir=profile",
            "about:blank",
        ]);
        let process = Server::spawn("Chromium", command, &dir.path().join("server.log"))?;
        let (send, answers) = channel();
        std::thread::Builder::new().name("chromium".to_owned()).spawn(move || {
            let mut out = BufReader::new(out);
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|bytes| bytes > 0) {
                message.pop();
                let parsed = serde_json::from_slice(&message).unwrap_or(Value::Null);
                message.clear();
                if send.send(parsed).is_err() {
                    return;
                }
            }
        })?;
        let mut browser = Self { pipe, answers, session: None, next_id: 0, events: Vec::new(), process, _dir: dir };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.next_id += 1;
        let id = self.next_id;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        self.pipe.write_all(format!("{request}\0").as_bytes())?;
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(answer) = self.answers.recv_timeout(left) else {
                bail!("Chromium does not answer {method}; the end of its log:\n{}", self.process.log_tail());
            };
            if answer["id"] != id {
                self.events.push(answer);
                continue;
            }
            ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return Ok(answer["result"].clone());
        }
    }

    fn must(&mut self, method: &str, params: Value) -> Value {
        self.call(method, params).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Opens a page. Does not wait until it has loaded.
    pub fn open(&mut self, url: &str) {
        let opened = self.must("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
    }

    /// The value of an expression in the page; promises are waited for.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.must("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true; while a page is loading, it may not be defined.
    pub fn wait(&mut self, expression: &str) {
        let until = Instant::now() + ANSWER_WITHIN;
        let guarded = format!("(() => {{ try {{ return !!({expression}); }} catch {{ return false; }} }})()");
        loop {
            let params = json!({ "expression": guarded, "returnByValue": true });
            // A page that is left in the meantime has no answer.
            if self.call("Runtime.evaluate", params).is_ok_and(|result| result["result"]["value"] == true) {
                return;
            }
            if Instant::now() > until {
                let text = self.evaluate("document.documentElement.innerText");
                panic!("{expression} does not come true; the page: {}", text.as_str().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key, such as `Tab`, `Enter` or ` `.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            " " => 32,
            other => panic!("the key {other} is not known here"),
        };
        let text = if key == "Enter" { "\r" } else { key };
        let mut event = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code });
        if key != "Tab" {
            event["text"] = text.into();
        }
        self.must("Input.dispatchKeyEvent", event.clone());
        event["type"] = "keyUp".into();
        self.must("Input.dispatchKeyEvent", event);
    }

    /// Shows the page in this size, in CSS pixels, light or dark.
    pub fn show_as(&mut self, (width, height): (u32, u32), is_dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.must("Emulation.setDeviceMetricsOverride", size);
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.must("Emulation.setEmulatedMedia", features);
    }

    fn reported<'b>(&'b self, method: &'static str) -> impl Iterator<Item = &'b Value> {
        self.events.iter().filter(move |event| event["method"] == method).map(|event| &event["params"])
    }

    /// What the browser's console has shown so far: exceptions, refusals by the content security policy, failed requests, and all
    /// that scripts have written.
    pub fn complaints(&mut self) -> Vec<String> {
        // An answer comes behind everything that was reported before.
        self.evaluate("0");
        let kinds = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];
        kinds.iter().flat_map(|kind| self.reported(kind).map(ToString::to_string)).collect()
    }

    /// The URL of each request so far.
    pub fn requests(&mut self) -> Vec<String> {
        self.evaluate("0");
        let urls = self.reported("Network.requestWillBeSent").filter_map(|event| event["request"]["url"].as_str());
        urls.map(str::to_owned).collect()
    }
}
