//! The ways to raise a counter that are measured: each is one loop, and every loop hides its value, and whatever is
//! known at run time only, from the compiler in the same way.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use cadence::Counted;
use opentelemetry::KeyValue;
use tallybus::{count, counter};

use crate::libraries::{self, ClientFamily, Labels};

/// One way to raise a counter.
pub struct Form {
    pub name: &'static str,
    /// Raises the same series so many times.
    pub run: Box<dyn Fn(u64) + Sync>,
}

const ROUTE: &str = "/v1/sites";
const METHOD: &str = "GET";
static ROUTES: [&str; 4] = ["/v1/sites", "/v1/sites/search", "/v1/users", "/healthz"];
static METHODS: [&str; 3] = ["GET", "POST", "DELETE"];

fn form(name: &'static str, raise: impl Fn(u64) + Sync + 'static) -> Form {
    let run = move |times| {
        for _ in 0..times {
            raise(black_box(1));
        }
    };
    Form { name, run: Box::new(run) }
}

/// Two texts that the compiler knows nothing of. Behind one thin reference: `black_box` of a wide one writes halves and
/// reads the whole, which stalls the processor for longer than some of the libraries take.
fn texts() -> (&'static str, &'static str) {
    static TEXTS: (&str, &str) = (ROUTE, METHOD);
    *black_box(&TEXTS)
}

pub fn all() -> Vec<Form> {
    [limits(), ours(), prometheus(), prometheus_client(), opentelemetry(), metrics(), cadence()]
        .into_iter()
        .flatten()
        .collect()
}

fn limits() -> Vec<Form> {
    thread_local! { static OWN: AtomicU64 = const { AtomicU64::new(0) }; }
    static SHARED: AtomicU64 = AtomicU64::new(0);
    vec![
        form("limit: load and store on the thread's own cell", |value| {
            OWN.with(|own| own.store(own.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed));
        }),
        form("limit: `fetch_add` on one shared atomic", |value| {
            SHARED.fetch_add(value, Ordering::Relaxed);
        }),
    ]
}

fn ours() -> Vec<Form> {
    let handle = counter!("bench.handle", route = "/v1/sites", method = "GET");
    let turns = Box::new(|times: u64| {
        for turn in 0..times {
            let place = turn as usize;
            let (route, method) = (black_box(&ROUTES)[place % 4], black_box(&METHODS)[place % 3]);
            count!("bench.turns", black_box(1u64), route = route, method = method);
        }
    });
    vec![
        form("tallybus: `count!`, static tags", |value| {
            count!("bench.static", value, route = "/v1/sites", method = "GET")
        }),
        form("tallybus: handle", move |value| handle.add(value)),
        form("tallybus: `count!`, two run-time tags", |value| {
            let (route, method) = texts();
            count!("bench.tagged", value, route = route, method = method);
        }),
        Form { name: "tallybus: the same, twelve series in turn", run: turns },
    ]
}

fn prometheus() -> Vec<Form> {
    let counters = libraries::prometheus();
    let handle = counters.with_label_values(&[ROUTE, METHOD]);
    vec![
        form("prometheus: handle", move |value| handle.inc_by(value)),
        form("prometheus: `with_label_values`, two run-time labels", move |value| {
            let (route, method) = texts();
            counters.with_label_values(&[route, method]).inc_by(value);
        }),
    ]
}

fn prometheus_client() -> Vec<Form> {
    let family = ClientFamily::default();
    let labels = || {
        let (route, method) = texts();
        Labels { route: route.to_owned(), method: method.to_owned() }
    };
    let (handle, fixed, again) = (family.get_or_create_owned(&labels()), labels(), family.clone());
    vec![
        form("prometheus-client: handle", move |value| {
            handle.inc_by(value);
        }),
        form("prometheus-client: family, labels made before", move |value| {
            family.get_or_create(black_box(&fixed)).inc_by(value);
        }),
        form("prometheus-client: family, two run-time labels", move |value| {
            again.get_or_create(&labels()).inc_by(value);
        }),
    ]
}

fn opentelemetry() -> Vec<Form> {
    let counter = libraries::opentelemetry_counter();
    let fixed = [KeyValue::new("route", ROUTE), KeyValue::new("method", METHOD)];
    let (bound, again) = (counter.bind(&fixed), counter.clone());
    vec![
        form("opentelemetry_sdk: bound counter (experimental)", move |value| bound.add(value)),
        form("opentelemetry_sdk: `add`, attributes made before", move |value| counter.add(value, black_box(&fixed))),
        form("opentelemetry_sdk: `add`, two run-time attributes", move |value| {
            let (route, method) = texts();
            again.add(value, &[KeyValue::new("route", route.to_owned()), KeyValue::new("method", method.to_owned())]);
        }),
    ]
}

fn metrics() -> Vec<Form> {
    libraries::metrics();
    let handle = metrics::counter!("bench_handle", "route" => "/v1/sites", "method" => "GET");
    vec![
        form("metrics + Prometheus recorder: handle", move |value| handle.increment(value)),
        form("metrics + Prometheus recorder: `counter!`, static labels", |value| {
            metrics::counter!("bench_static", "route" => "/v1/sites", "method" => "GET").increment(value);
        }),
        form("metrics + Prometheus recorder: `counter!`, two run-time labels", |value| {
            let (route, method) = texts();
            metrics::counter!("bench_tagged", "route" => route.to_owned(), "method" => method.to_owned())
                .increment(value);
        }),
    ]
}

fn cadence() -> Vec<Form> {
    let client = libraries::cadence();
    vec![form("cadence, sink that discards: two run-time tags", move |value| {
        let value = i64::try_from(value).unwrap_or(0);
        let (route, method) = texts();
        client.count_with_tags("requests", value).with_tag("route", route).with_tag("method", method).send();
    })]
}
