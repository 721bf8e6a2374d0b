//! InfluxDB 2's HTTP interface over a real InfluxDB 1.x engine, the way InfluxDB 1.8 offers it.
//!
//! The engine stores and overwrites points in both versions alike, and Debian has 1.x only. This front translates:
//! - `POST /api/v2/write?org&bucket&precision` to `/write?db&rp&precision`; the bucket `d/r` is database `d` with retention
//!   policy `r`, any other bucket a database of its name. `gzip` passes through.
//! - Status codes and bodies: 204; 400 `invalid`; 401 `unauthorized`; 404 `not found` for a missing bucket or another
//!   organisation; 413 `request too large`; 422 `unprocessable entity` for a partial write (conflicting field types, points
//!   outside the retention period), with the engine's own words.
//! - `GET /health`, `/ready`, `/ping`, `GET`, `POST` and `DELETE /api/v2/buckets`, `GET /api/v2/orgs`.
//! - `POST /api/v2/query` through a translation that the caller supplies with [`InfluxV2::on_query`]: there is no Flux engine
//!   here.
//!
//! What it does not model: with one malformed line the 1.x engine stores the other lines and 2.x stores none (both answer
//! 400); tokens with fewer rights than all; rate limits (put a [`crate::FaultProxy`] before it).

use std::fmt;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use serde_json::{Value, json};

use crate::InfluxServer;
use crate::front::Front;
use crate::http::{self, Request, Response};

/// What it says that its version is.
const VERSION: &str = "v2.0.0-over-1.x";

/// Answers a Flux text with annotated CSV, given a function that runs InfluxQL (database, statement) and gives JSON back; or
/// with the message of a 400.
pub type FluxTranslation =
    Box<dyn Fn(&str, &dyn Fn(&str, &str) -> Result<String>) -> Result<String, String> + Send + Sync>;

/// The front. It ends when dropped; the server behind it goes on.
#[derive(Debug)]
pub struct InfluxV2 {
    shared: Arc<Shared>,
    front: Front,
}

struct Shared {
    engine: String,
    authorization: Vec<(String, String)>,
    org: String,
    token: String,
    query: OnceLock<FluxTranslation>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InfluxV2").field("engine", &self.engine).field("org", &self.org).finish_non_exhaustive()
    }
}

impl InfluxV2 {
    /// The organisation it knows.
    pub const ORG: &'static str = "tallybus";
    /// That organisation's number.
    pub const ORG_ID: &'static str = "00000000000000a1";
    /// The token it takes.
    pub const TOKEN: &'static str = "test-token-of-all-rights";

    /// Starts before this engine, with [`InfluxV2::ORG`] and [`InfluxV2::TOKEN`]. The engine may be restarted.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(engine: &InfluxServer) -> Result<InfluxV2> {
        let shared = Arc::new(Shared {
            engine: engine.url(),
            authorization: engine.authorization().into_iter().collect(),
            org: Self::ORG.to_owned(),
            token: Self::TOKEN.to_owned(),
            query: OnceLock::new(),
        });
        let answers = Arc::clone(&shared);
        let front = Front::start("influx-v2", move |request| {
            answers.answer(request).unwrap_or_else(|error| {
                problem(500, "internal error", &format!("the engine behind this server failed: {error:#}"))
            })
        })?;
        Ok(InfluxV2 { shared, front })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.front.url()
    }

    /// Supplies the answer to `/api/v2/query`, once; without it the front answers 501.
    pub fn on_query(&self, translation: FluxTranslation) {
        assert!(self.shared.query.set(translation).is_ok(), "the translation of queries is given once");
    }
}

impl Shared {
    fn answer(&self, request: &Request) -> Result<Response> {
        match (request.method.as_str(), request.path()) {
            ("GET" | "HEAD", "/ping") => return Ok(ping()),
            ("GET", "/health") => return Ok(self.health()),
            ("GET", "/ready") => return Ok(as_json(200, &json!({"status": "ready"}))),
            _ => {}
        }
        if !self.knows(request) {
            return Ok(problem(401, "unauthorized", "unauthorized access"));
        }
        if let Some(org) = request.parameter("org").or_else(|| request.parameter("orgID"))
            && org != self.org
            && org != InfluxV2::ORG_ID
        {
            return Ok(problem(404, "not found", &format!("organization name \"{org}\" not found")));
        }
        match (request.method.as_str(), request.path()) {
            ("POST", "/api/v2/write") => self.write(request),
            ("POST", "/api/v2/query") => self.run_query(request),
            ("GET", "/api/v2/buckets") => self.buckets(request),
            ("POST", "/api/v2/buckets") => self.create_bucket(request),
            ("DELETE", path) if path.starts_with("/api/v2/buckets/") => self.remove_bucket(path),
            ("GET", "/api/v2/orgs") => {
                Ok(as_json(200, &json!({"orgs": [{"id": InfluxV2::ORG_ID, "name": self.org, "status": "active"}]})))
            }
            (_, path) => Ok(problem(404, "not found", &format!("path not found: {path}"))),
        }
    }

    fn knows(&self, request: &Request) -> bool {
        let Some((scheme, token)) = request.header("authorization").and_then(|value| value.split_once(' ')) else {
            return false;
        };
        (scheme.eq_ignore_ascii_case("token") || scheme.eq_ignore_ascii_case("bearer")) && token == self.token
    }

    fn health(&self) -> Response {
        let alive = http::send(&self.engine, "GET", "/ping", &[], b"").is_ok_and(|answer| answer.status == 204);
        let (code, status, message) =
            if alive { (200, "pass", "ready for queries and writes") } else { (503, "fail", "the engine is away") };
        let body = json!({"name": "influxdb", "message": message, "status": status, "checks": [],
            "version": VERSION, "commit": "none"});
        as_json(code, &body)
    }

    fn write(&self, request: &Request) -> Result<Response> {
        let Some(bucket) = request.parameter("bucket").filter(|bucket| !bucket.is_empty()) else {
            return Ok(problem(400, "invalid", "bucket is required"));
        };
        if request.parameter("org").is_none() && request.parameter("orgID").is_none() {
            return Ok(problem(400, "invalid", "org or orgID is required"));
        }
        let precision = match request.parameter("precision").as_deref().unwrap_or("ns") {
            "ns" => "n",
            "us" => "u",
            "ms" => "ms",
            "s" => "s",
            other => return Ok(problem(400, "invalid", &format!("invalid precision {other:?}; use ns, us, ms or s"))),
        };
        let (database, policy) = bucket.split_once('/').unwrap_or((bucket.as_str(), ""));
        let mut target = format!("/write?db={}&precision={precision}", http::percent_encode(database));
        if !policy.is_empty() {
            target.push_str(&format!("&rp={}", http::percent_encode(policy)));
        }
        let mut headers: Vec<_> = request
            .headers
            .iter()
            .filter(|(name, _)| {
                name.eq_ignore_ascii_case("content-encoding") || name.eq_ignore_ascii_case("content-type")
            })
            .cloned()
            .collect();
        headers.extend(self.authorization.clone());
        let answer = http::send(&self.engine, "POST", &target, &headers, &request.body)?;
        let message = error_of(&answer);
        Ok(match answer.status {
            204 => Response::empty(204),
            404 => problem(404, "not found", &format!("bucket \"{bucket}\" not found")),
            413 => problem(413, "request too large", &message),
            400 if message.contains("partial write") && !message.contains("unable to parse") => {
                problem(422, "unprocessable entity", &format!("failure writing points to database: {message}"))
            }
            400 => problem(400, "invalid", &message),
            status => problem(status, "internal error", &message),
        })
    }

    fn run_query(&self, request: &Request) -> Result<Response> {
        let Some(translation) = self.query.get() else {
            return Ok(problem(501, "not implemented", "this test did not say how to answer Flux"));
        };
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let json_body = request.header("content-type").is_some_and(|kind| kind.contains("json"));
        let flux = if json_body {
            let body: Value = serde_json::from_slice(&request.body)?;
            body["query"].as_str().unwrap_or_default().to_owned()
        } else {
            text
        };
        Ok(match translation(&flux, &|database, influxql| self.influxql(database, influxql)) {
            Ok(csv) => Response::new(200, "text/csv; charset=utf-8", csv),
            Err(message) => problem(400, "invalid", &message),
        })
    }

    fn buckets(&self, request: &Request) -> Result<Response> {
        let (names, wanted) = (self.databases()?, request.parameter("name"));
        let names = names.iter().filter(|name| wanted.as_ref().is_none_or(|wanted| wanted == *name));
        let found: Vec<Value> = names.map(|name| bucket(name)).collect();
        if let (Some(wanted), true) = (&wanted, found.is_empty()) {
            return Ok(problem(404, "not found", &format!("bucket \"{wanted}\" not found")));
        }
        Ok(as_json(200, &json!({"buckets": found})))
    }

    fn remove_bucket(&self, path: &str) -> Result<Response> {
        let id = path.rsplit('/').next().unwrap_or_default();
        let names = self.databases()?;
        let Some(name) = names.iter().find(|name| bucket(name)["id"] == id) else {
            return Ok(problem(404, "not found", "bucket not found"));
        };
        self.influxql("", &format!("DROP DATABASE \"{}\"", name.replace('"', "\\\"")))?;
        Ok(Response::empty(204))
    }

    fn databases(&self) -> Result<Vec<String>> {
        let answer: Value = serde_json::from_str(&self.influxql("", "SHOW DATABASES")?)?;
        let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
        let names = rows.iter().filter_map(|row| row[0].as_str()).filter(|name| *name != "_internal");
        Ok(names.map(str::to_owned).collect())
    }

    fn create_bucket(&self, request: &Request) -> Result<Response> {
        let body: Value = serde_json::from_slice(&request.body)?;
        let Some(name) = body["name"].as_str().filter(|name| !name.is_empty()) else {
            return Ok(problem(400, "invalid", "bucket name is required"));
        };
        self.influxql("", &format!("CREATE DATABASE \"{}\"", name.replace('"', "\\\"")))?;
        Ok(as_json(201, &bucket(name)))
    }

    fn influxql(&self, database: &str, statement: &str) -> Result<String> {
        let target =
            format!("/query?epoch=ns&db={}&q={}", http::percent_encode(database), http::percent_encode(statement));
        let answer = http::send(&self.engine, "POST", &target, &self.authorization, b"")?;
        anyhow::ensure!(answer.status == 200, "the engine answered {}: {}", answer.status, error_of(&answer));
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

fn bucket(name: &str) -> Value {
    json!({"id": format!("{:016x}", name.bytes().fold(0u64, |id, byte| id.wrapping_mul(31) + u64::from(byte))),
        "orgID": InfluxV2::ORG_ID, "type": "user", "name": name, "retentionRules": []})
}

/// The 1.x engine's own words.
fn error_of(answer: &Response) -> String {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    match body.as_ref().and_then(|body| body["error"].as_str()) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&answer.body).trim().to_owned(),
    }
}

fn problem(status: u16, code: &str, message: &str) -> Response {
    as_json(status, &json!({"code": code, "message": message}))
}

fn ping() -> Response {
    Response { headers: vec![("X-Influxdb-Version".to_owned(), VERSION.to_owned())], ..Response::empty(204) }
}

fn as_json(status: u16, body: &Value) -> Response {
    Response::new(status, "application/json; charset=utf-8", body.to_string())
}
