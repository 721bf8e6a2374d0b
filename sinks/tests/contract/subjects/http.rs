//! A third party that honours the key of each request, behind a proxy; once with rows as JSON, once as lines, gzipped.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::batches::START;
use tallybus_sdk::testkit::contract::{Backend, NetworkFault, Server};
use tallybus_sdk::{ForeignKind, Sink};
use tallybus_tests::{FaultProxy, Mode, Receiver};

use super::{build, mode_of, questions};

mod json {
    tallybus_sdk::testkit::contract!(Some(&super::HttpServer { form: super::json_form }));
}

mod ndjson_gzip {
    tallybus_sdk::testkit::contract!(Some(&super::HttpServer { form: super::ndjson_form }));
}

mod zstd_signed {
    tallybus_sdk::testkit::contract!(Some(&super::HttpServer { form: super::zstd_form }));
}

const TOKEN: &str = "the right token";
const SECRET: &str = "a secret to sign with";

fn json_form() -> Value {
    json!({})
}

fn ndjson_form() -> Value {
    json!({"format": "ndjson", "compression": "gzip", "method": "PUT"})
}

fn zstd_form() -> Value {
    let hmac = json!({"header": "X-Signature", "secret": SECRET, "signs": "key.body", "prefix": "sha256="});
    json!({"compression": "zstd", "hmac": hmac})
}

struct HttpServer {
    form: fn() -> Value,
}

impl Server for HttpServer {
    fn backend(&self) -> Box<dyn Backend> {
        let receiver = Receiver::start().expect("a receiver");
        receiver.ask_for_token(TOKEN);
        let form = (self.form)();
        if form["hmac"].is_object() {
            receiver.ask_for_signature(SECRET);
        }
        let proxy = FaultProxy::start(&receiver.url()).expect("a proxy");
        Box::new(HttpCase { form: self.form, receiver, proxy })
    }
}

struct HttpCase {
    form: fn() -> Value,
    receiver: Receiver,
    proxy: FaultProxy,
}

impl HttpCase {
    fn build(&self, token: &str, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        let mut table = json!({
            "url": format!("{}/write", self.proxy.url()),
            "read_url": format!("{}/rows", self.proxy.url()),
            "headers": {"Authorization": format!("Bearer {token}")},
            "idempotent": true,
        });
        let form = (self.form)();
        for (key, value) in form.as_object().expect("a table") {
            table[key] = value.clone();
        }
        build("http", table, window, topics)
    }
}

#[async_trait]
impl Backend for HttpCase {
    fn questions(&self) -> &'static [&'static str] {
        questions("http")
    }
    fn least_storage(&self) -> Option<u64> {
        None
    }
    fn fresh(&self) -> Box<dyn Backend> {
        HttpServer { form: self.form }.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        self.build(TOKEN, window, topics)
    }
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        self.build("wrong-secret", window, &["tallybus.counters"])
    }
    fn set_away(&self, away: bool) {
        self.proxy.set(if away { Mode::Refuse } else { Mode::Pass });
    }
    async fn refuse(&self, series: &Series, _start: i64) {
        let tags = series.tags().iter().map(|(key, value)| (key.to_string(), value.to_string()));
        self.receiver.refuse((series.name().to_owned(), tags.collect()));
    }
    async fn add_foreign(&self) -> Vec<ForeignKind> {
        for row in [
            json!({"name": "a", "tags": {"k": 4}, "ts": START, "value": 5}),
            json!({"name": "a", "tags": {"k": "v"}, "ts": START, "value": -5}),
            json!({"name": "a", "tags": {"k": "v"}, "ts": START, "value": 1.5}),
            json!({"name": "a", "tags": {"k": "v"}, "ts": -5, "value": 5}),
        ] {
            self.receiver.add_row(&row);
        }
        vec![ForeignKind::Tags, ForeignKind::Negative, ForeignKind::Fraction, ForeignKind::BeforeEpoch]
    }
    fn takes_parts(&self) -> bool {
        true
    }
    fn inject(&self, fault: Option<NetworkFault>) -> bool {
        self.proxy.set(mode_of(fault));
        true
    }
}
