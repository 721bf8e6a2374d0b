//! A third party's HTTP API: takes rows as JSON, honours `Idempotency-Key`, and keeps exact sums.
//!
//! - `POST /write` takes an array of objects (`application/json`) or an object a line (`application/x-ndjson`), plain, gzip or
//!   zstd: `{"ts": ns, "name": …, "tags": {…}, "value": …}`. All of a request is taken, or none.
//! - Under the same `Idempotency-Key` a request is taken once and answered alike from then on; 409 while the first is still
//!   under way; 422 when the body is another one. [`Receiver::ignore_keys`] turns that off.
//! - `GET /rows?from&to` answers the sums of each series and time, an object a line.
//! - Anything to `/raw` is answered with 200 and nothing, for tests that look at the request itself.
//!
//! What it does not model: keys are never forgotten, and everything is in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::front::Front;
use crate::http::{Request, Response};

/// Name and tags of a series.
pub type SeriesKey = (String, BTreeMap<String, String>);

/// The server. It ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    front: Front,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<String>,
    hmac: Option<String>,
    max_body: Option<usize>,
    ignores_keys: bool,
    refused: BTreeSet<SeriesKey>,
    pause: Duration,
    records: bool,
    keys: HashMap<String, Known>,
    sums: BTreeMap<SeriesKey, BTreeMap<i64, u64>>,
    /// Rows that nobody wrote through it.
    others: Vec<Value>,
    seen: Vec<Request>,
    writes: u64,
    repeats: u64,
}

/// A key, by the digest of the body that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    UnderWay([u8; 32]),
    Taken([u8; 32]),
}

impl Receiver {
    /// Starts an empty one that lets everybody in and takes everything.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> Result<Receiver> {
        let shared = Arc::new(Shared::default());
        let answers = Arc::clone(&shared);
        let front = Front::start("receiver", move |request| answers.answer(request))?;
        Ok(Receiver { shared, front })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.front.url()
    }

    /// From now on every request must come with `Authorization: Bearer` and this token.
    pub fn ask_for_token(&self, token: &str) {
        self.shared.lock().token = Some(token.to_owned());
    }

    /// From now on every write must come with `X-Signature: sha256=` and the HMAC of key, full stop and body.
    pub fn ask_for_signature(&self, secret: &str) {
        self.shared.lock().hmac = Some(secret.to_owned());
    }

    /// The largest body as it is sent; larger ones are answered with 413.
    pub fn limit_bodies(&self, bytes: usize) {
        self.shared.lock().max_body = Some(bytes);
    }

    /// Takes every request as a new one, whatever its key.
    pub fn ignore_keys(&self) {
        self.shared.lock().ignores_keys = true;
    }

    /// Answers 400 to every request that holds a row of this series, and takes nothing of it.
    pub fn refuse(&self, series: SeriesKey) {
        self.shared.lock().refused.insert(series);
    }

    /// Adds a row of any form, which a read answers as it is.
    pub fn add_row(&self, row: &Value) {
        self.shared.lock().others.push(row.clone());
    }

    /// How long every write is under way.
    pub fn set_pause(&self, pause: Duration) {
        self.shared.lock().pause = pause;
    }

    /// Keeps every request from now on.
    pub fn record(&self) {
        self.shared.lock().records = true;
    }

    /// The requests kept since [`Receiver::record`].
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().seen.clone()
    }

    /// Writes that were taken, and writes that were known already.
    pub fn writes(&self) -> (u64, u64) {
        let state = self.shared.lock();
        (state.writes, state.repeats)
    }

    /// What it holds, by series and time.
    pub fn sums(&self) -> BTreeMap<SeriesKey, BTreeMap<i64, u64>> {
        self.shared.lock().sums.clone()
    }

    /// The sum of everything it holds.
    pub fn total(&self) -> u64 {
        self.shared.lock().sums.values().flat_map(BTreeMap::values).sum()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the receiver panics")
    }

    fn answer(&self, request: &Request) -> Response {
        {
            let mut state = self.lock();
            if state.records {
                state.seen.push(request.clone());
            }
            if let Some(token) = &state.token {
                let given = request.header("authorization").unwrap_or_default();
                if given != format!("Bearer {token}") {
                    // As some servers do, it repeats what it was given.
                    return problem(request, 401, &format!("not let in: {given}"));
                }
            }
        }
        match (request.method.as_str(), request.path()) {
            (_, "/raw") => Response::empty(200),
            ("POST" | "PUT", "/write") => self.write(request),
            ("GET", "/rows") => self.rows(request),
            ("GET", "/health") => Response::empty(200),
            (_, "/write") => problem(request, 405, "POST it"),
            _ => problem(request, 404, "nothing is here"),
        }
    }

    fn write(&self, request: &Request) -> Response {
        let key = request.header("idempotency-key").map(str::to_owned);
        let (key, pause) = {
            let state = self.lock();
            if state.max_body.is_some_and(|most| request.body.len() > most) {
                return problem(request, 413, "too large");
            }
            if let Some(secret) = &state.hmac
                && request.header("x-signature") != Some(&signature(secret, key.as_deref(), &request.body))
            {
                return problem(request, 401, "the signature is wrong");
            }
            (key.filter(|_| !state.ignores_keys), state.pause)
        };
        let digest: [u8; 32] = Sha256::digest(&request.body).into();
        if let Some(key) = &key {
            let mut state = self.lock();
            match state.keys.get(key) {
                Some(Known::Taken(known) | Known::UnderWay(known)) if *known != digest => {
                    return problem(request, 422, "this Idempotency-Key was used with another body");
                }
                Some(Known::Taken(_)) => {
                    state.repeats += 1;
                    return Response::empty(204);
                }
                Some(Known::UnderWay(_)) => return problem(request, 409, "a request with this key is in progress"),
                None => drop(state.keys.insert(key.clone(), Known::UnderWay(digest))),
            }
        }
        std::thread::sleep(pause);
        let rows = decode(request);
        let mut state = self.lock();
        let taken = rows.and_then(|rows| state.take(rows));
        if let Some(key) = key {
            // What was refused may come again, and is looked at again.
            match &taken {
                Ok(()) => drop(state.keys.insert(key, Known::Taken(digest))),
                Err(_) => drop(state.keys.remove(&key)),
            }
        }
        match taken {
            Ok(()) => Response::empty(204),
            Err(error) => problem(request, 400, &format!("{error:#}")),
        }
    }

    fn rows(&self, request: &Request) -> Response {
        let end = |name: &str| request.parameter(name).and_then(|text| text.parse::<i64>().ok());
        let (from, to) = (end("from"), end("to"));
        let wanted = request.parameter("name");
        let mut body = String::new();
        for ((name, tags), times) in self.lock().sums.iter() {
            if wanted.as_ref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            for (time, value) in times {
                if from.is_none_or(|from| *time >= from) && to.is_none_or(|to| *time < to) {
                    body.push_str(&json!({"name": name, "tags": tags, "ts": time, "value": value}).to_string());
                    body.push('\n');
                }
            }
        }
        for row in &self.lock().others {
            body.push_str(&format!("{row}\n"));
        }
        Response::new(200, "application/x-ndjson", body)
    }
}

impl State {
    /// All or nothing.
    fn take(&mut self, rows: Vec<(SeriesKey, i64, u64)>) -> Result<()> {
        if let Some((series, _, _)) = rows.iter().find(|(series, _, _)| self.refused.contains(series)) {
            bail!("the series {series:?} is refused");
        }
        for (series, time, value) in rows {
            *self.sums.entry(series).or_default().entry(time).or_default() += value;
        }
        self.writes += 1;
        Ok(())
    }
}

fn decode(request: &Request) -> Result<Vec<(SeriesKey, i64, u64)>> {
    let mut plain = Vec::new();
    match request.header("content-encoding") {
        None => plain.extend_from_slice(&request.body),
        Some("gzip") => drop(flate2::read::GzDecoder::new(request.body.as_slice()).read_to_end(&mut plain)?),
        Some("zstd") => plain = zstd::decode_all(request.body.as_slice())?,
        Some(other) => bail!("the encoding {other} is unknown"),
    }
    let values = match request.header("content-type") {
        Some("application/json") => serde_json::from_slice::<Vec<Value>>(&plain)?,
        Some("application/x-ndjson") => {
            let lines = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| Ok(serde_json::from_slice(line)?)).collect::<Result<_>>()?
        }
        other => bail!("the type {other:?} is unknown"),
    };
    values.iter().map(row).collect()
}

fn row(value: &Value) -> Result<(SeriesKey, i64, u64)> {
    let name = value["name"].as_str().filter(|name| !name.is_empty()).context("a row without a name")?;
    let mut tags = BTreeMap::new();
    for (key, value) in value["tags"].as_object().context("a row without tags")? {
        tags.insert(key.clone(), value.as_str().context("a tag that is no text")?.to_owned());
    }
    let time = value["ts"].as_i64().context("a row without ts")?;
    let count = value["value"].as_u64().filter(|count| *count > 0).context("a row without value")?;
    Ok(((name.to_owned(), tags), time, count))
}

fn signature(secret: &str, key: Option<&str>, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(key.unwrap_or_default().as_bytes());
    mac.update(b".");
    mac.update(body);
    let digits = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256={digits}")
}

fn problem(request: &Request, status: u16, message: &str) -> Response {
    if request.method == "HEAD" {
        return Response::empty(status);
    }
    Response::new(status, "application/problem+json", json!({"status": status, "detail": message}).to_string())
}
