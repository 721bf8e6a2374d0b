//! A console that a test starts, and its clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Place, Ran};

/// A console that runs.
pub(crate) struct Console {
    child: Child,
    pub(crate) url: String,
    out: BufReader<std::process::ChildStdout>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Console {
    pub(crate) fn start(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = place.command(&[&["console", "--listen", "127.0.0.1:0", "--json"], args].concat());
        command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).unwrap();
        Self { child, url: started["url"].as_str().unwrap().trim_end_matches('/').to_owned(), out }
    }

    pub(crate) fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// The answer to a request line, headers, and body.
    pub(crate) fn ask(&self, line: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!("{line} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
        let mut text = String::new();
        self.connect(&request).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", "")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.get("/json").body).unwrap()
    }

    pub(crate) fn events(&self, path: &str) -> Events {
        let stream = self.connect(&format!("GET /events{path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"));
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        Events { status: head.split(' ').nth(1).unwrap().parse().unwrap(), reader }
    }

    /// Ctrl-C, and what the process came to.
    pub(crate) fn end(mut self) -> Ran {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Ran { status: status.code().unwrap_or(-1), out, err }.expect(0)
    }
}

impl Drop for Console {
    /// Of a test that failed: what the console came to.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let ended = self.child.try_wait().unwrap();
        // Fails when it has ended.
        let _gone = self.child.kill();
        let mut err = String::new();
        self.child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut err));
        println!("the console at the end of the test: {ended:?}\n{err}");
    }
}

/// A page that is followed.
pub(crate) struct Events {
    pub(crate) status: u16,
    reader: BufReader<TcpStream>,
}

impl Events {
    /// The next event.
    pub(crate) fn next(&mut self) -> String {
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
    pub(crate) fn until(&mut self, text: &str) -> String {
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
