//! A proxy that stands before an HTTP server and goes wrong on request.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::{self, Request, Response};

/// What the proxy does with the next requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Hands requests on, and answers back.
    Pass,
    /// Hands requests on, after a pause.
    Delay(Duration),
    /// Hands requests to this path on after a pause, and all others at once.
    DelayPath(&'static str, Duration),
    /// Answers 503 without asking the server; with `Retry-After` in seconds when given.
    Unavailable {
        /// The header's value.
        retry_after: Option<u64>,
    },
    /// Answers this without asking the server.
    Answer {
        /// The status code.
        status: u16,
        /// Headers besides the length.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// Hands requests on without every so many lines of what is posted, and answers as the server does.
    LoseLines(u64),
    /// Nobody listens: connections are refused, and open ones are cut.
    Refuse,
    /// Takes requests and answers nothing, until the mode changes; then the connection is cut.
    Hang,
    /// Cuts the connection in the middle of the request's body; the server sees nothing of it.
    CutRequest,
    /// Hands the request on, waits until the server has answered, and cuts the connection instead of answering.
    ApplyThenCut,
}

impl Mode {
    /// An answer with a JSON body.
    pub fn answer(status: u16, body: &str) -> Mode {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Mode::Answer { status, headers, body: body.to_owned() }
    }
}

/// The proxy. It ends when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    state: Mutex<State>,
    changed: Condvar,
    requests: AtomicU64,
    applied: AtomicU64,
    in_flight: AtomicU64,
    /// Lines that were looked at while some are lost.
    lines: AtomicU64,
    /// Requests with a body and their bytes, by path.
    posted: Mutex<HashMap<String, Posted>>,
}

/// What was posted to one path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Posted {
    /// How many requests.
    pub requests: u64,
    /// The bytes of their bodies, as they were sent.
    pub bytes: u64,
}

/// A request that is being served; it is counted until dropped.
struct InFlight<'a>(&'a AtomicU64);

impl<'a> InFlight<'a> {
    fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// For how many requests yet, and what comes then.
    fuse: Option<(u64, Mode)>,
    listening: bool,
    closed: bool,
    generation: u64,
    next_connection: u64,
    connections: HashMap<u64, TcpStream>,
}

impl FaultProxy {
    /// Starts before `upstream`, a URL such as `http://127.0.0.1:8086`, in [`Mode::Pass`].
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(upstream: &str) -> Result<FaultProxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port for the fault proxy")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            state: Mutex::new(State {
                mode: Mode::Pass,
                fuse: None,
                listening: true,
                closed: false,
                generation: 0,
                next_connection: 0,
                connections: HashMap::new(),
            }),
            changed: Condvar::new(),
            requests: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            posted: Mutex::default(),
        });
        let acceptor = Arc::clone(&shared);
        std::thread::Builder::new().name("fault-proxy".to_owned()).spawn(move || acceptor.accept(listener, port))?;
        Ok(FaultProxy { shared, port })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Changes what happens from the next request on. Back from [`Mode::Refuse`], and into it, it returns once the port
    /// is open, or closed.
    pub fn set(&self, mode: Mode) {
        self.change(mode, None);
    }

    /// Behaves like `mode` for so many requests and passes the ones after. Not for [`Mode::Refuse`], in which no request
    /// comes in.
    pub fn set_for(&self, mode: Mode, requests: u64) {
        self.change(mode, Some((requests, Mode::Pass)));
    }

    fn change(&self, mode: Mode, fuse: Option<(u64, Mode)>) {
        let mut state = self.shared.lock();
        let refuse = mode == Mode::Refuse;
        state.mode = mode;
        state.fuse = fuse;
        state.generation += 1;
        if refuse {
            state.cut_all();
        }
        self.shared.changed.notify_all();
        if refuse && state.listening {
            drop(state);
            // Wakes the thread that accepts, which then closes the port.
            let _waker = TcpStream::connect(("127.0.0.1", self.port));
            state = self.shared.lock();
        }
        let (_state, waited) = self
            .shared
            .changed
            .wait_timeout_while(state, Duration::from_secs(10), |state| state.listening == refuse)
            .expect("no thread of the proxy panics");
        assert!(!waited.timed_out(), "the fault proxy's port did not change its state");
    }

    /// Requests that have come in, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Requests that were handed on and that the server answered.
    pub fn applied(&self) -> u64 {
        self.shared.applied.load(Ordering::SeqCst)
    }

    /// What has been posted to a path, without its query, whatever became of it.
    pub fn posted(&self, path: &str) -> Posted {
        let posted = self.shared.posted.lock().expect("no thread of the proxy panics");
        posted.get(path).copied().unwrap_or_default()
    }

    /// Requests that are being served now, also those whose client has given up.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let listening = {
            let mut state = self.shared.lock();
            state.closed = true;
            state.cut_all();
            self.shared.changed.notify_all();
            state.listening
        };
        if listening {
            let _waker = TcpStream::connect(("127.0.0.1", self.port));
        }
    }
}

impl State {
    fn cut_all(&mut self) {
        for (_, connection) in self.connections.drain() {
            // It may be closed already.
            let _closed = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the proxy panics")
    }

    fn accept(self: Arc<Self>, first: TcpListener, port: u16) {
        let mut listener = Some(first);
        loop {
            {
                let mut state = self.lock();
                if state.mode == Mode::Refuse && !state.closed {
                    listener = None;
                    state.listening = false;
                    self.changed.notify_all();
                    while state.mode == Mode::Refuse && !state.closed {
                        state = self.changed.wait(state).expect("no thread of the proxy panics");
                    }
                }
                if state.closed {
                    return;
                }
            }
            let open = match &listener {
                Some(open) => open,
                None => {
                    let again = TcpListener::bind(("127.0.0.1", port)).expect("the proxy's port is still free");
                    self.lock().listening = true;
                    self.changed.notify_all();
                    listener.insert(again)
                }
            };
            let Ok((stream, _)) = open.accept() else { continue };
            let shared = Arc::clone(&self);
            let Some(number) = self.register(&stream) else { continue };
            let spawned = std::thread::Builder::new().name("fault-proxy-connection".to_owned()).spawn(move || {
                // A connection that ends in the middle is what this proxy is for.
                let _ended = shared.serve(&stream);
                let _closed = stream.shutdown(Shutdown::Both);
                shared.lock().connections.remove(&number);
            });
            spawned.expect("a thread can be started");
        }
    }

    fn register(&self, stream: &TcpStream) -> Option<u64> {
        let mut state = self.lock();
        if state.closed || state.mode == Mode::Refuse {
            return None;
        }
        let number = state.next_connection;
        state.next_connection += 1;
        state.connections.insert(number, stream.try_clone().ok()?);
        Some(number)
    }

    fn serve(&self, stream: &TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut answers = stream.try_clone()?;
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(mut request) = http::read_head(&mut reader)? {
            let _in_flight = InFlight::begin(&self.in_flight);
            self.requests.fetch_add(1, Ordering::SeqCst);
            let (mode, generation) = self.next_mode();
            if mode == Mode::CutRequest {
                let half = http::content_length(&request.headers)?.unwrap_or(0) / 2;
                reader.read_exact(&mut vec![0; half])?;
                return Ok(());
            }
            http::read_body(&mut reader, &mut request)?;
            self.count(&request);
            if let Mode::LoseLines(every) = mode {
                self.lose_lines(&mut request, every);
            }
            let answer = match mode {
                Mode::Pass | Mode::LoseLines(_) => self.forward(&request),
                Mode::Delay(pause) => {
                    std::thread::sleep(pause);
                    self.forward(&request)
                }
                Mode::DelayPath(path, pause) => {
                    if request.path() == path {
                        std::thread::sleep(pause);
                    }
                    self.forward(&request)
                }
                Mode::Unavailable { retry_after } => unavailable(retry_after),
                Mode::Answer { status, headers, body } => Response { status, headers, body: body.into_bytes() },
                Mode::ApplyThenCut => {
                    self.forward(&request);
                    return Ok(());
                }
                Mode::Hang => {
                    let state = self.lock();
                    let _changed = self
                        .changed
                        .wait_while(state, |state| state.generation == generation && !state.closed)
                        .expect("no thread of the proxy panics");
                    return Ok(());
                }
                Mode::Refuse | Mode::CutRequest => return Ok(()),
            };
            // An answer to HEAD has no body.
            let body = if request.method == "HEAD" { Vec::new() } else { answer.body };
            Response { body, ..answer }.write(&mut answers)?;
            if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn count(&self, request: &Request) {
        if request.method != "POST" || request.body.is_empty() {
            return;
        }
        let path = request.target.split('?').next().unwrap_or_default();
        let mut posted = self.posted.lock().expect("no thread of the proxy panics");
        let posted = posted.entry(path.to_owned()).or_default();
        posted.requests += 1;
        posted.bytes += request.body.len() as u64;
    }

    fn lose_lines(&self, request: &mut Request, every: u64) {
        let is_kept = |_: &&[u8]| !(self.lines.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(every);
        let kept: Vec<&[u8]> = request.body.split_inclusive(|byte| *byte == b'\n').filter(is_kept).collect();
        let body = kept.concat();
        for (name, value) in &mut request.headers {
            if name.eq_ignore_ascii_case("content-length") {
                *value = body.len().to_string();
            }
        }
        request.body = body;
    }

    fn next_mode(&self) -> (Mode, u64) {
        let mut state = self.lock();
        let mode = state.mode.clone();
        let generation = state.generation;
        if let Some((left, _)) = &mut state.fuse {
            *left = left.saturating_sub(1);
            if *left == 0
                && let Some((_, then)) = state.fuse.take()
            {
                state.mode = then;
            }
        }
        (mode, generation)
    }

    fn forward(&self, request: &Request) -> Response {
        match http::send(&self.upstream, &request.method, &request.target, &request.headers, &request.body) {
            Ok(answer) => {
                self.applied.fetch_add(1, Ordering::SeqCst);
                answer
            }
            Err(error) => Response::new(502, "text/plain", format!("{error:#}")),
        }
    }
}

fn unavailable(retry_after: Option<u64>) -> Response {
    let mut answer = Response::new(503, "application/json", r#"{"code":"unavailable","message":"out for a while"}"#);
    if let Some(seconds) = retry_after {
        answer.headers.push(("Retry-After".to_owned(), seconds.to_string()));
    }
    answer
}
