//! A proxy that stands before a server of any protocol over TCP and goes wrong on request.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};

/// What the proxy does with the bytes that come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpMode {
    /// Hands them on, both ways.
    Pass,
    /// Hands each piece of an answer on after a pause.
    Delay(Duration),
    /// Cuts every connection, the open ones and those to come.
    Cut,
    /// Hands on so many bytes of requests, of all connections together, and cuts the connection that goes over.
    CutRequest(usize),
    /// Hands on the request that holds these bytes, waits for the answer, and cuts the connection instead of handing it
    /// back.
    CutAnswerTo(Vec<u8>),
}

/// The proxy. It ends when dropped.
#[derive(Debug)]
pub struct TcpProxy {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    mode: TcpMode,
    /// Bytes of requests since the mode was set.
    sent: usize,
    closed: bool,
    next: u64,
    open: HashMap<u64, [TcpStream; 2]>,
}

impl TcpProxy {
    /// Starts before a port of 127.0.0.1, in [`TcpMode::Pass`].
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(upstream: u16) -> Result<TcpProxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port for the proxy")?;
        let port = listener.local_addr()?.port();
        let state = State { mode: TcpMode::Pass, sent: 0, closed: false, next: 0, open: HashMap::new() };
        let shared = Arc::new(Shared { upstream, state: Mutex::new(state) });
        let acceptor = Arc::clone(&shared);
        std::thread::Builder::new().name("tcp-proxy".to_owned()).spawn(move || acceptor.accept(&listener))?;
        Ok(TcpProxy { shared, port })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what happens from the next bytes on.
    pub fn set(&self, mode: TcpMode) {
        let mut state = self.shared.lock();
        if mode == TcpMode::Cut {
            state.cut_all();
        }
        state.mode = mode;
        state.sent = 0;
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
            state.cut_all();
        }
        let _waker = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl State {
    fn cut_all(&mut self) {
        for (_, pair) in self.open.drain() {
            cut(&pair);
        }
    }
}

fn cut(pair: &[TcpStream; 2]) {
    for stream in pair {
        // It may be closed already.
        let _closed = stream.shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the proxy panics")
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.lock().closed {
                return;
            }
            let Ok(client) = client else { continue };
            // A connection that ends in the middle is what this proxy is for.
            let _ended = Arc::clone(&self).serve(client);
        }
    }

    fn serve(self: Arc<Self>, client: TcpStream) -> Result<()> {
        if self.lock().mode == TcpMode::Cut {
            return Ok(());
        }
        let server = TcpStream::connect(("127.0.0.1", self.upstream))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let number = {
            let mut state = self.lock();
            let number = state.next;
            state.next += 1;
            state.open.insert(number, [client.try_clone()?, server.try_clone()?]);
            number
        };
        let awaits_cut = Arc::new(AtomicBool::new(false));
        let (up, flag) = (Arc::clone(&self), Arc::clone(&awaits_cut));
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        std::thread::Builder::new().name("tcp-proxy-up".to_owned()).spawn(move || {
            let _ended = up.requests(from, to, &flag);
            up.end(number);
        })?;
        std::thread::Builder::new().name("tcp-proxy-down".to_owned()).spawn(move || {
            let _ended = self.answers(server, client, &awaits_cut);
            self.end(number);
        })?;
        Ok(())
    }

    fn end(&self, number: u64) {
        if let Some(pair) = self.lock().open.remove(&number) {
            cut(&pair);
        }
    }

    fn requests(&self, mut from: TcpStream, mut to: TcpStream, awaits_cut: &AtomicBool) -> Result<()> {
        let mut piece = vec![0; 64 << 10];
        loop {
            let count = from.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            let room = {
                let mut state = self.lock();
                let sent = state.sent;
                state.sent += count;
                match &state.mode {
                    TcpMode::CutRequest(after) => after.saturating_sub(sent),
                    TcpMode::CutAnswerTo(marker) => {
                        if piece[..count].windows(marker.len()).any(|window| window == marker) {
                            awaits_cut.store(true, Ordering::SeqCst);
                        }
                        count
                    }
                    TcpMode::Cut => return Ok(()),
                    TcpMode::Pass | TcpMode::Delay(_) => count,
                }
            };
            to.write_all(&piece[..count.min(room)])?;
            if room < count {
                return Ok(());
            }
        }
    }

    fn answers(&self, mut from: TcpStream, mut to: TcpStream, awaits_cut: &AtomicBool) -> Result<()> {
        let mut piece = vec![0; 64 << 10];
        loop {
            let count = from.read(&mut piece)?;
            if count == 0 || awaits_cut.load(Ordering::SeqCst) {
                return Ok(());
            }
            let mode = self.lock().mode.clone();
            if let TcpMode::Delay(pause) = mode {
                std::thread::sleep(pause);
            }
            to.write_all(&piece[..count])?;
        }
    }
}
