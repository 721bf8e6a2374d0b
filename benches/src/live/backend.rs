//! A backend that answers like InfluxDB 1 and notes what was written when.

use std::collections::HashMap;
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tallybus_tests::http::{self, Response};

use super::{COUNTER, SERIES_TAG, clock};

/// One request that wrote points; times as in [`clock`].
#[derive(Clone, Debug)]
pub struct Write {
    /// Which of the backend's doors it came in by: each worker has its own.
    pub door: usize,
    /// When all of it was there.
    pub arrived: u64,
    /// When the answer was on its way.
    pub answered: u64,
    /// What it added: series and increments. A point that was there already adds nothing.
    pub added: Vec<(u32, u64)>,
}

/// What has been written so far.
#[derive(Debug, Default)]
pub struct Book {
    /// All writes, as they were answered; of one series always in the order of the bus.
    pub writes: Vec<Write>,
    /// Increments in all points.
    pub total: u64,
    /// Points that were written again with the same value.
    pub repeated: u64,
    /// Points that were written again with another value: lost or doubled counts.
    pub changed: u64,
    points: HashMap<(u32, i64), u64>,
}

impl Book {
    fn write(&mut self, door: usize, arrived: u64, body: &str) -> Result<()> {
        let mut added = Vec::new();
        for line in body.lines().filter(|line| line.starts_with(COUNTER)) {
            let (series, value, time) = parse(line).with_context(|| format!("no line of the load: {line}"))?;
            match self.points.insert((series, time), value) {
                None => {
                    self.total += value;
                    added.push((series, value));
                }
                Some(before) if before == value => self.repeated += 1,
                Some(_) => self.changed += 1,
            }
        }
        self.writes.push(Write { door, arrived, answered: clock::now(), added });
        Ok(())
    }
}

/// The backend, with a door for each worker.
#[derive(Clone, Default)]
pub struct Backend {
    book: Arc<Mutex<Book>>,
    service_time: Duration,
}

impl Backend {
    /// A backend that takes so long for a write.
    #[must_use]
    pub fn new(service_time: Duration) -> Self {
        Self { service_time, ..Self::default() }
    }

    /// Opens a door and answers its URL.
    ///
    /// # Errors
    /// No port is free.
    pub fn open(&self, door: usize) -> Result<String> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let backend = self.clone();
        thread::Builder::new().name(format!("backend-{door}")).spawn(move || {
            for stream in listener.incoming().flatten() {
                let backend = backend.clone();
                // A worker that was killed leaves its connections in the middle of something.
                thread::spawn(move || drop(backend.serve(stream, door)));
            }
        })?;
        Ok(url)
    }

    /// What has been written so far.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream, door: usize) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut answers = stream.try_clone()?;
        let mut requests = BufReader::new(stream);
        while let Some(mut request) = http::read_head(&mut requests)? {
            http::read_body(&mut requests, &mut request)?;
            let arrived = clock::now();
            if request.path() == "/write" && !request.body.is_empty() {
                if !self.service_time.is_zero() {
                    thread::sleep(self.service_time);
                }
                self.book().write(door, arrived, std::str::from_utf8(&request.body)?)?;
            }
            Response::empty(204).write(&mut answers)?;
        }
        Ok(())
    }
}

/// Series, value and time of a line that the load gave rise to.
fn parse(line: &str) -> Option<(u32, u64, i64)> {
    let mut words = line.split(' ');
    let (key, field, time) = (words.next()?, words.next()?, words.next()?);
    let mut tags = key.split(',').skip(1).filter_map(|tag| tag.split_once('='));
    let (_, series) = tags.find(|(key, _)| *key == SERIES_TAG)?;
    let value = field.strip_prefix("value=")?.strip_suffix('i')?;
    Some((series.parse().ok()?, value.parse().ok()?, time.parse().ok()?))
}
