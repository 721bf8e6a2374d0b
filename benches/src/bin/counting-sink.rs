//! An HTTP server that takes what an InfluxDB takes, and only counts it: see [`tallybus_benches::counting`].
//!
//! It shares the machine with the worker that it helps to measure, so it does next to nothing: one thread a connection,
//! blocking reads into a large buffer, and a look at the last digits of each line.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to whoever started it")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Parser;
use flate2::write::GzDecoder;
use tallybus_benches::counting::{Stats, Tally, total};

/// One read of the socket: large enough that the calls do not matter, small enough for the cache.
const BUFFER: usize = 256 << 10;
/// A head that is larger is none.
const MAX_HEAD: usize = 16 << 10;
/// What InfluxDB 1 calls itself.
const VERSION: &str = "1.8.10";

/// Takes line protocol over HTTP and counts it. GET /stats tells; POST /reset forgets. Ends when its standard input closes.
#[derive(Debug, Parser)]
struct Options {
    /// How many events there are.
    #[arg(long)]
    events: u64,
    /// The millisecond of the first one; each has a millisecond of its own.
    #[arg(long)]
    base_ms: u64,
    /// Where to listen on 127.0.0.1; 0: any free port.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// The tallies of all connections there ever were. A connection that ends leaves its own to the next.
struct Tallies {
    base_ms: u64,
    events: u64,
    all: Mutex<Vec<Arc<Mutex<Tally>>>>,
    free: Mutex<Vec<Arc<Mutex<Tally>>>>,
}

impl Tallies {
    fn take(&self) -> Arc<Mutex<Tally>> {
        if let Some(tally) = lock(&self.free).pop() {
            return tally;
        }
        let tally = Arc::new(Mutex::new(Tally::new(self.base_ms, self.events)));
        lock(&self.all).push(Arc::clone(&tally));
        tally
    }

    fn give_back(&self, tally: Arc<Mutex<Tally>>) {
        lock(&self.free).push(tally);
    }

    fn stats(&self) -> Stats {
        let all = lock(&self.all);
        let locked: Vec<_> = all.iter().map(|tally| lock(tally)).collect();
        total(locked.iter().map(|tally| &**tally))
    }

    fn reset(&self) {
        for tally in lock(&self.all).iter() {
            *lock(tally) = Tally::new(self.base_ms, self.events);
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let listener = TcpListener::bind(("127.0.0.1", options.port))?;
    println!("listening on {}", listener.local_addr()?);
    end_with_input();
    let tallies = Arc::new(Tallies {
        base_ms: options.base_ms,
        events: options.events,
        all: Mutex::default(),
        free: Mutex::default(),
    });
    for stream in listener.incoming() {
        let (stream, tallies) = (stream?, Arc::clone(&tallies));
        thread::spawn(move || {
            let tally = tallies.take();
            if let Err(error) = Connection::new(stream).serve(&tally, &tallies) {
                eprintln!("a connection ended: {error}");
            }
            tallies.give_back(tally);
        });
    }
    Ok(())
}

fn end_with_input() {
    thread::spawn(|| {
        let _closed = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the system clock is wrong")?;
    Ok(u64::try_from(since.as_nanos())?)
}

struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// What of a request's head matters.
#[derive(Debug, Default)]
struct Head {
    method: String,
    path: String,
    length: u64,
    chunked: bool,
    gzip: bool,
    expects_continue: bool,
    close: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        // Only an answer would be late.
        let _slower = stream.set_nodelay(true);
        Self { stream, buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    fn serve(&mut self, tally: &Mutex<Tally>, tallies: &Tallies) -> Result<()> {
        while let Some(head) = self.head()? {
            if head.expects_continue {
                self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let path = head.path.split('?').next().unwrap_or_default();
            match (head.method.as_str(), path) {
                ("POST", "/write" | "/api/v2/write") => {
                    self.take(&head, &mut lock(tally))?;
                    self.answer("204 No Content", "")?;
                }
                ("GET", "/stats") => {
                    let stats = serde_json::to_string(&tallies.stats())?;
                    self.answer("200 OK", &stats)?;
                }
                ("GET" | "HEAD", "/ping") => self.answer("204 No Content", "")?,
                ("GET", "/health") => self.answer("200 OK", r#"{"name":"influxdb","status":"pass"}"#)?,
                (_, "/query") => {
                    self.body(&head, &mut |_| Ok(()))?;
                    self.answer("200 OK", r#"{"results":[{"statement_id":0}]}"#)?;
                }
                ("POST", "/reset") => {
                    self.body(&head, &mut |_| Ok(()))?;
                    tallies.reset();
                    self.answer("204 No Content", "")?;
                }
                _ => {
                    self.body(&head, &mut |_| Ok(()))?;
                    self.answer("404 Not Found", "")?;
                }
            }
            if head.close {
                break;
            }
        }
        Ok(())
    }

    /// Counts a body while it streams.
    fn take(&mut self, head: &Head, tally: &mut Tally) -> Result<()> {
        let begun = now()?;
        let taken = if head.gzip && (head.length > 0 || head.chunked) {
            let mut decoder = GzDecoder::new(&mut *tally);
            let taken = self.body(head, &mut |piece| decoder.write_all(piece));
            taken.and_then(|bytes| {
                decoder.finish()?;
                Ok(bytes)
            })
        } else {
            self.body(head, &mut |piece| {
                tally.feed(piece);
                Ok(())
            })
        };
        match taken {
            Ok(0) => return Ok(()),
            Ok(bytes) => {
                tally.end();
                tally.stats.bytes += bytes;
            }
            Err(error) => {
                tally.break_off();
                return Err(error);
            }
        }
        tally.stats.requests += 1;
        tally.stats.last_ns = now()?;
        if tally.stats.first_ns == 0 {
            tally.stats.first_ns = begun;
        }
        Ok(())
    }

    /// Hands the body to `each` in pieces; answers its length as it came.
    fn body(&mut self, head: &Head, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<u64> {
        if !head.chunked {
            self.pass(head.length, each)?;
            return Ok(head.length);
        }
        let mut bytes = 0;
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16)?;
            if size == 0 {
                // Trailers, up to an empty line.
                while !self.line()?.is_empty() {}
                return Ok(bytes);
            }
            self.pass(size, each)?;
            bytes += size;
            if !self.line()?.is_empty() {
                bail!("a chunk is longer than it says");
            }
        }
    }

    fn pass(&mut self, mut left: u64, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        while left > 0 {
            if self.start == self.end && !self.fill()? {
                bail!("the body broke off");
            }
            let there = (self.end - self.start).min(usize::try_from(left).unwrap_or(usize::MAX));
            each(&self.buffer[self.start..self.start + there])?;
            self.start += there;
            left -= there as u64;
        }
        Ok(())
    }

    /// The next request's head; `None` when the client is gone.
    fn head(&mut self) -> Result<Option<Head>> {
        let request = match self.start == self.end && !self.fill()? {
            true => return Ok(None),
            false => self.line()?,
        };
        let mut words = request.split(' ').map(str::to_owned);
        let mut head = Head { method: words.next().unwrap_or_default(), ..Head::default() };
        head.path = words.next().unwrap_or_default();
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                return Ok(Some(head));
            }
            let Some((name, value)) = line.split_once(':') else { bail!("a header without a colon: {line:?}") };
            let value = value.trim();
            match name {
                "content-length" => head.length = value.parse()?,
                "transfer-encoding" => head.chunked = value.contains("chunked"),
                "content-encoding" => head.gzip = value.contains("gzip"),
                "expect" => head.expects_continue = value.contains("100-continue"),
                "connection" => head.close = value.contains("close"),
                _ => {}
            }
        }
    }

    /// A line of a head, without its end.
    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            if self.start == self.end && !self.fill()? {
                bail!("the head broke off");
            }
            let there = &self.buffer[self.start..self.end];
            match memchr::memchr(b'\n', there) {
                Some(at) => {
                    line.extend_from_slice(&there[..at]);
                    self.start += at + 1;
                    if line.last() == Some(&b'\r') {
                        line.pop();
                    }
                    return Ok(String::from_utf8_lossy(&line).into_owned());
                }
                None => line.extend_from_slice(there),
            }
            self.start = self.end;
            if line.len() > MAX_HEAD {
                bail!("the head is too long");
            }
        }
    }

    fn fill(&mut self) -> io::Result<bool> {
        self.start = 0;
        self.end = 0;
        self.end = self.stream.read(&mut self.buffer)?;
        Ok(self.end > 0)
    }

    fn answer(&mut self, status: &str, body: &str) -> io::Result<()> {
        let length = match status.starts_with("204") {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        let answer = format!("HTTP/1.1 {status}\r\nX-Influxdb-Version: {VERSION}\r\n{length}\r\n{body}");
        self.stream.write_all(answer.as_bytes())
    }
}
