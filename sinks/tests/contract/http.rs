//! What only an HTTP API can do to a sink, with a receiver of our own behind a proxy that goes wrong.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::batches::{
    Expected, Maker, SECOND, START, batches, recovered, series, settle, settle_all, write,
};
use tallybus_sdk::{DeliveryGuarantee, Sink, SinkError, TimeRange, WriteOutcome};
use tallybus_tests::http::{Request, send};
use tallybus_tests::{Certificates, FaultProxy, Mode, Receiver, TlsFront};

use crate::faults::break_everything;
use crate::subjects::build;

struct Fixture {
    receiver: Receiver,
    proxy: FaultProxy,
}

impl Fixture {
    fn start() -> Self {
        let receiver = Receiver::start().unwrap();
        let proxy = FaultProxy::start(&receiver.url()).unwrap();
        Self { receiver, proxy }
    }

    fn sink(&self, more: Value) -> Arc<dyn Sink> {
        sink_at(&self.proxy.url(), more)
    }

    /// The writes that came in since the receiver began to record.
    fn writes(&self) -> Vec<Request> {
        let mut requests = self.receiver.requests();
        requests.retain(|request| request.method == "POST");
        requests
    }
}

fn sink_at(url: &str, more: Value) -> Arc<dyn Sink> {
    let mut table = json!({
        "url": format!("{url}/write"), "read_url": format!("{url}/rows"), "idempotent": true, "timeout": "2s",
    });
    for (key, value) in more.as_object().unwrap() {
        table[key] = value.clone();
    }
    build("http", table, SECOND, &["tallybus.counters"])
}

fn key_of(series: &Series) -> tallybus_tests::SeriesKey {
    let tags = series.tags().iter().map(|(key, value)| (key.to_string(), value.to_string()));
    (series.name().to_owned(), tags.collect())
}

fn halt(answer: WriteOutcome) -> String {
    let WriteOutcome::Halt { reason } = answer else { panic!("{answer:?}") };
    reason
}

#[tokio::test]
async fn whatever_breaks_is_retried_and_counts_once() {
    let fixture = Fixture::start();
    break_everything(&fixture.proxy, &*fixture.sink(json!({}))).await;
    assert_eq!(fixture.receiver.writes().0, 9);
}

#[tokio::test]
async fn a_stated_wait_is_handed_on_in_both_forms() {
    let fixture = Fixture::start();
    let sink = fixture.sink(json!({}));
    let answer = |status, value: String| Mode::Answer {
        status,
        headers: vec![("Retry-After".to_owned(), value)],
        body: r#"{"detail":"slow down"}"#.to_owned(),
    };
    for status in [408, 409, 425, 429, 500, 503] {
        fixture.proxy.set(answer(status, "17".to_owned()));
        let WriteOutcome::Retry { after, reason } = write(&*sink, &batches(1)[0]).await else { panic!("no retry") };
        assert_eq!(after, Some(Duration::from_secs(17)));
        assert_eq!(reason, format!("the server answered {status}: slow down"));
    }
    let until = SystemTime::now() + Duration::from_secs(60);
    fixture.proxy.set(answer(503, http_date(until)));
    let WriteOutcome::Retry { after: Some(after), .. } = write(&*sink, &batches(1)[0]).await else {
        panic!("no retry")
    };
    assert!((Duration::from_secs(50)..=Duration::from_secs(60)).contains(&after), "{after:?}");
    fixture.proxy.set(answer(503, "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()));
    let answered = write(&*sink, &batches(1)[0]).await;
    assert!(matches!(answered, WriteOutcome::Retry { after: Some(Duration::ZERO), .. }), "{answered:?}");
}

/// As `date -u` prints it.
fn http_date(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn bad_events_are_found_and_only_they_are_rejected() {
    for honours in [true, false] {
        let fixture = Fixture::start();
        if !honours {
            fixture.receiver.ignore_keys();
        }
        let sink = fixture.sink(json!({"idempotent": honours}));
        let all: Vec<Series> = (0..300).map(|n| series("a", &[("n", &n.to_string())])).collect();
        for bad in [0, 7, 8, 150, 299] {
            fixture.receiver.refuse(key_of(&all[bad]));
        }
        let events: Vec<_> = all.iter().zip(1..).map(|(series, value)| (series.clone(), START, value)).collect();
        let batch = Maker::new(SECOND, 0).batch(&events);
        let WriteOutcome::Split { reason } = write(&*sink, &batch).await else { panic!("no split") };
        assert!(reason.contains("the server answered 400: the series") && reason.contains("is refused"), "{reason}");
        let mut rejected: Vec<u64> = settle(&*sink, &batch).await.into_iter().map(|(_, value)| value).collect();
        rejected.sort_unstable();
        assert_eq!(rejected, [1, 8, 9, 151, 300]);
        assert_eq!(fixture.receiver.total(), (1..=300).sum::<u64>() - (1 + 8 + 9 + 151 + 300), "honours: {honours}");
    }
}

#[tokio::test]
async fn too_large_is_halved_until_it_fits() {
    let fixture = Fixture::start();
    fixture.receiver.limit_bodies(4_000);
    let mut maker = Maker::new(SECOND, 0);
    let mut expected = Expected::default();
    for (round, setting) in
        [json!({}), json!({"max_body": 4_000}), json!({"max_body": "3 KiB"})].into_iter().enumerate()
    {
        let sink = fixture.sink(setting.clone());
        let before = fixture.proxy.requests();
        let events: Vec<_> = (0..500).map(|n| (series("a", &[("n", &n.to_string())]), START, n + 1)).collect();
        let batch = maker.batch(&events);
        assert!(matches!(write(&*sink, &batch).await, WriteOutcome::Split { .. }));
        // What is known to be too large is not even sent.
        assert_eq!(fixture.proxy.requests() - before, u64::from(round == 0), "{setting}");
        settle_all(&*sink, &batch).await;
        settle_all(&*sink, &recovered(&batch)).await;
        // One row that is too large for itself is rejected, and only it.
        let long = "x".repeat(5_000);
        let huge = maker.batch(&[(series("b", &[("k", &long)]), START, 1), (series("c", &[]), START, 1)]);
        assert_eq!(settle(&*sink, &huge).await, [(series("b", &[("k", &long)]), 1)]);
        for point in &batch.points {
            expected.add(&batch.series.get(point.series).to_series(), point.time, point.value);
        }
        expected.add(&series("c", &[]), START, 1);
        expected.check(&*sink, SECOND).await;
    }
}

/// What was sent whole and then in halves would count twice.
#[tokio::test]
async fn a_batch_is_not_written_under_another_limit_than_it_was_sealed_under() {
    let fixture = Fixture::start();
    let shapes: Vec<String> = [
        json!({}),
        json!({"max_body": 4_000}),
        json!({"max_body": 5_000}),
        json!({"compression": "gzip"}),
        json!({"format": "ndjson"}),
        json!({"format": "influx"}),
        json!({"format": "influx", "slots": 2}),
    ]
    .into_iter()
    .map(|settings| fixture.sink(settings).layout_fingerprint())
    .collect();
    for (index, shape) in shapes.iter().enumerate() {
        assert!(!shapes[..index].contains(shape), "{shape}");
    }
    let headers = json!({"headers": {"X-Tenant": "7"}, "timeout": "9s", "idempotent": false});
    assert_eq!(fixture.sink(headers).layout_fingerprint(), shapes[0]);
}

#[tokio::test]
async fn a_request_under_way_elsewhere_is_waited_for() {
    let fixture = Fixture::start();
    fixture.receiver.record();
    fixture.receiver.set_pause(Duration::from_millis(700));
    let (one, two) = (fixture.sink(json!({})), fixture.sink(json!({})));
    let batch = &batches(1)[0];
    let late = async {
        while fixture.receiver.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        write(&*two, batch).await
    };
    let (first, second) = tokio::join!(write(&*one, batch), late);
    assert_eq!(first, WriteOutcome::Done);
    assert!(matches!(&second, WriteOutcome::Retry { reason, .. } if reason.contains("409")), "{second:?}");
    settle_all(&*two, batch).await;
    Expected::of([batch]).check(&*one, SECOND).await;
    // Without a key 409 is no word about ours.
    fixture.proxy.set(Mode::answer(409, "{}"));
    let reason = halt(write(&*fixture.sink(json!({"idempotency_key": ""})), batch).await);
    assert!(reason.contains("409"), "{reason}");
}

#[tokio::test]
async fn a_key_that_the_server_knows_with_another_body_halts() {
    let fixture = Fixture::start();
    let sink = fixture.sink(json!({}));
    let batch = &batches(1)[0];
    let headers = [
        ("Idempotency-Key".to_owned(), format!("tested/{}", batch.key())),
        ("Content-Type".to_owned(), "application/json".to_owned()),
    ];
    assert_eq!(send(&fixture.receiver.url(), "POST", "/write", &headers, b"[]").unwrap().status, 204);
    let reason = halt(write(&*sink, batch).await);
    assert!(reason.contains("422") && reason.contains("idempotency key with another body"), "{reason}");
    assert_eq!(fixture.receiver.total(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let fixture = Fixture::start();
    let sink = fixture.sink(json!({"headers": {"Authorization": "Bearer very-secret"}}));
    fixture.receiver.record();
    for status in [301, 302, 307, 308] {
        let headers = vec![("Location".to_owned(), format!("{}/write", fixture.receiver.url()))];
        fixture.proxy.set(Mode::Answer { status, headers, body: String::new() });
        assert!(halt(write(&*sink, &batches(1)[0]).await).contains("set `url`"));
        assert!(matches!(sink.check().await, Err(SinkError::Halt(_))));
    }
    assert_eq!(fixture.receiver.requests().len(), 0);
}

#[tokio::test]
async fn every_try_is_the_same_request() {
    let fixture = Fixture::start();
    fixture.receiver.record();
    let hmac = json!({"header": "X-Signature", "secret": "s", "signs": "key.body", "prefix": "sha256="});
    let settings = json!({"compression": "gzip", "hmac": hmac, "headers": {"X-Tenant": "7"}});
    let (one, two) = (fixture.sink(settings.clone()), fixture.sink(settings));
    let batch = &batches(1)[0];
    fixture.proxy.set(Mode::ApplyThenCut);
    assert!(matches!(write(&*one, batch).await, WriteOutcome::Retry { .. }));
    fixture.proxy.set(Mode::Pass);
    settle_all(&*one, batch).await;
    settle_all(&*two, &recovered(batch)).await;
    let writes = fixture.writes();
    assert_eq!(writes.len(), 3);
    for again in &writes {
        assert_eq!(again.body, writes[0].body);
        for name in ["idempotency-key", "x-signature", "content-type", "content-encoding", "x-tenant"] {
            assert!(again.header(name).is_some(), "{name}");
            assert_eq!(again.header(name), writes[0].header(name), "{name}");
        }
    }
    assert_eq!(writes[0].header("idempotency-key"), Some("tested/tallybus.counters/0/0-4"));
    assert_eq!(writes[0].header("user-agent").map(|agent| agent.starts_with("tallybus/")), Some(true));
    assert_eq!(fixture.receiver.writes(), (1, 2));
}

#[tokio::test]
async fn without_a_server_that_honours_the_key_it_is_at_least_once() {
    let fixture = Fixture::start();
    fixture.receiver.ignore_keys();
    let sink = fixture.sink(json!({"idempotent": false}));
    assert_eq!(sink.delivery_guarantee(), DeliveryGuarantee::AtLeastOnce);
    assert_eq!(fixture.sink(json!({})).delivery_guarantee(), DeliveryGuarantee::ExactlyOnce);
    let by_default = build("http", json!({"url": fixture.proxy.url()}), SECOND, &["t"]);
    assert_eq!(by_default.delivery_guarantee(), DeliveryGuarantee::AtLeastOnce);
    let all = batches(2);
    settle_all(&*sink, &all[0]).await;
    fixture.proxy.set(Mode::ApplyThenCut);
    assert!(matches!(write(&*sink, &all[1]).await, WriteOutcome::Retry { .. }));
    fixture.proxy.set(Mode::Pass);
    settle_all(&*sink, &all[1]).await;
    // Never missing, perhaps twice.
    assert_eq!(fixture.receiver.total(), 10 + 2 * 10);
}

#[tokio::test]
async fn no_secret_shows() {
    let fixture = Fixture::start();
    fixture.receiver.ask_for_token("another");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "short1\n").unwrap();
    let by_file = format!("Bearer file:{}", path.display());
    let url = format!("{}/write?api_key=very-secret-key", fixture.proxy.url());
    for (secret, settings) in [
        ("very-secret", json!({"headers": {"Authorization": "Bearer very-secret"}})),
        ("short1", json!({"headers": {"Authorization": by_file}})),
        ("tiny", json!({"headers": {"X-Auth": "tiny"}})),
        ("very-secret-key", json!({"url": url, "headers": {"Authorization": "Bearer very-sec"}})),
    ] {
        let sink = fixture.sink(settings.clone());
        let mut shown = vec![halt(write(&*sink, &batches(1)[0]).await)];
        shown.push(format!("{:?}", sink.check().await));
        shown.push(format!("{:?}", sink.totals(TimeRange::default()).await));
        shown.push(format!("{:?} {:?}", sink.layout_fingerprint(), sink.usage()));
        fixture.proxy.set(Mode::Refuse);
        shown.push(format!("{:?}", write(&*sink, &batches(1)[0]).await));
        shown.push(format!("{:?}", sink.check().await));
        for status in [400, 500] {
            fixture.proxy.set(Mode::answer(status, &json!({"message": format!("<{secret}>")}).to_string()));
            let answer = format!("{:?}", write(&*sink, &batches(1)[0]).await);
            assert!(answer.contains("<***>"), "{answer}");
            shown.push(answer);
        }
        fixture.proxy.set(Mode::Pass);
        for text in &shown {
            assert!(!text.contains(secret), "{settings}: {text}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_is_sent_by_the_running_sink_and_never_shown() {
    let fixture = Fixture::start();
    fixture.receiver.ask_for_token("the-second-token");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "the-first-token\n").unwrap();
    let sink = fixture.sink(json!({"headers": {"Authorization": format!("Bearer file:{}", path.display())}}));
    let batch = &batches(1)[0];
    assert!(halt(write(&*sink, batch).await).contains("check the credentials"));
    fs::write(&path, "the-second-token\n").unwrap();
    settle_all(&*sink, batch).await;
    sink.check().await.unwrap();
    Expected::of([batch]).check(&*sink, SECOND).await;
    fixture.proxy.set(Mode::answer(500, r#"{"message":"<the-second-token>"}"#));
    let answer = format!("{:?}", write(&*sink, batch).await);
    assert!(answer.contains("<***>"), "{answer}");
    fs::write(&path, "no\u{7}header\n").unwrap();
    let answer = format!("{:?}", write(&*sink, batch).await);
    assert!(answer.contains("the file for the header authorization") && !answer.contains("no\\u{7}"), "{answer}");
}

#[tokio::test]
async fn a_wrong_signature_halts_and_shows_no_secret() {
    let fixture = Fixture::start();
    fixture.receiver.ask_for_signature("right");
    let hmac = |secret: &str, signs: &str| json!({"hmac": {"header": "X-Signature", "secret": secret, "signs": signs, "prefix": "sha256="}});
    let batch = &batches(1)[0];
    for wrong in [hmac("wrong-secret", "key.body"), hmac("right", "body"), json!({})] {
        let reason = halt(write(&*fixture.sink(wrong), batch).await);
        assert!(reason.contains("the signature is wrong") && !reason.contains("wrong-secret"), "{reason}");
    }
    let sink = fixture.sink(hmac("right", "key.body"));
    settle_all(&*sink, batch).await;
    Expected::of([batch]).check(&*sink, SECOND).await;
}

#[tokio::test]
async fn only_our_authority_is_trusted_and_our_certificate_is_shown() {
    let fixture = Fixture::start();
    let (ours, others) = (Certificates::make().unwrap(), Certificates::make().unwrap());
    let front = TlsFront::start(&fixture.receiver.url(), &ours, true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let ca = file("ca.pem", ours.authority_pem().unwrap());
    let (cert, key) = ours.client_pem().unwrap();
    let (cert, key) = (file("cert.pem", cert), file("key.pem", key));
    let batch = &batches(1)[0];

    let sink = sink_at(&front.url(), json!({"ca": ca, "client_cert": cert, "client_key": key}));
    sink.check().await.unwrap();
    settle_all(&*sink, batch).await;
    Expected::of([batch]).check(&*sink, SECOND).await;

    let (other_cert, other_key) = others.client_pem().unwrap();
    let other_ca = file("other-ca.pem", others.authority_pem().unwrap());
    let (other_cert, other_key) = (file("other-cert.pem", other_cert), file("other-key.pem", other_key));
    for (settings, says) in [
        (json!({"client_cert": cert, "client_key": key}), "certificate verify failed"),
        (json!({"ca": other_ca, "client_cert": cert, "client_key": key}), "certificate verify failed"),
        (json!({"ca": ca}), "cannot be reached"),
        (json!({"ca": ca, "client_cert": other_cert, "client_key": other_key}), "cannot be reached"),
    ] {
        let sink = sink_at(&front.url(), settings.clone());
        let answer = write(&*sink, batch).await;
        assert!(
            matches!(&answer, WriteOutcome::Retry { reason, .. } if reason.contains(says)),
            "{settings}: {answer:?}"
        );
        assert!(matches!(sink.check().await, Err(SinkError::Unavailable(_))));
    }
    assert_eq!(fixture.receiver.writes(), (1, 0));

    // Without being asked for, nothing needs to be shown.
    let open = TlsFront::start(&fixture.receiver.url(), &ours, false).unwrap();
    settle_all(&*sink_at(&open.url(), json!({"ca": ca})), batch).await;
    assert_eq!(fixture.receiver.writes(), (1, 1));
}

#[tokio::test]
async fn a_partial_success_of_otlp_is_not_silent() {
    let fixture = Fixture::start();
    // partial_success { rejected_data_points: n, error_message: "no" }
    let partial = |refused: u8| {
        let body = String::from_utf8(vec![0x0a, 0x06, 0x08, refused, 0x12, 0x02, b'n', b'o']).unwrap();
        Mode::Answer { status: 200, headers: Vec::new(), body }
    };
    let url = format!("{}/raw", fixture.proxy.url());
    let sink = fixture.sink(json!({"url": url, "format": "otlp"}));
    let batch = &batches(1)[0];
    assert_eq!(batch.points.len(), 3);
    assert_eq!(write(&*sink, batch).await, WriteOutcome::Done);
    fixture.proxy.set(partial(0));
    assert_eq!(write(&*sink, batch).await, WriteOutcome::Done);
    fixture.proxy.set(partial(1));
    let reason = halt(write(&*sink, batch).await);
    assert!(reason.contains("refused 1 of them: \"no\""), "{reason}");
    let goes_on = fixture.sink(json!({"url": url, "format": "otlp", "partial_success": "accept"}));
    assert_eq!(write(&*goes_on, batch).await, WriteOutcome::Done);
    let refused = goes_on.usage().into_iter().find(|usage| usage.what == "points refused unnamed").unwrap();
    assert_eq!(refused.amount, 1.0);
    // All refused means that nothing is in: each point is tried alone, and is rejected when it is refused alone.
    for sink in [&sink, &goes_on] {
        fixture.proxy.set(partial(3));
        assert!(matches!(write(&**sink, batch).await, WriteOutcome::Split { .. }));
        let answer = write(&**sink, &batch.split().unwrap().0).await;
        assert!(matches!(answer, WriteOutcome::Split { .. }), "{answer:?}");
    }
}

#[tokio::test]
async fn a_look_writes_nothing_and_finds_what_is_wrong() {
    let fixture = Fixture::start();
    fixture.receiver.record();
    let sink = fixture.sink(json!({}));
    sink.check().await.unwrap();
    let elsewhere = fixture.sink(json!({"url": format!("{}/nothing", fixture.proxy.url())}));
    let Err(SinkError::Halt(reason)) = elsewhere.check().await else { panic!("no halt") };
    assert!(reason.contains("404") && reason.contains("check_url"), "{reason}");
    let health = format!("{}/health", fixture.proxy.url());
    fixture.sink(json!({"check_url": health})).check().await.unwrap();
    let methods: Vec<String> = fixture.receiver.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["HEAD", "HEAD", "GET"]);
    for (status, passing) in [(401, false), (403, false), (404, false), (429, true), (500, true), (503, true)] {
        fixture.proxy.set(Mode::answer(status, "{}"));
        for sink in [&sink, &fixture.sink(json!({"check_url": health}))] {
            let outcome = sink.check().await;
            assert_eq!(matches!(outcome, Err(SinkError::Unavailable(_))), passing, "{status}: {outcome:?}");
            assert_eq!(matches!(outcome, Err(SinkError::Halt(_))), !passing, "{status}: {outcome:?}");
        }
    }
    fixture.proxy.set(Mode::answer(405, "{}"));
    sink.check().await.unwrap();
    assert!(matches!(fixture.sink(json!({"check_url": health})).check().await, Err(SinkError::Halt(_))));
}

#[tokio::test]
async fn reading_back_needs_a_url_and_says_what_is_wrong_with_it() {
    let fixture = Fixture::start();
    let blind = build("http", json!({"url": format!("{}/write", fixture.proxy.url())}), SECOND, &["t"]);
    let Err(SinkError::Halt(reason)) = blind.totals(TimeRange::default()).await else { panic!("no halt") };
    assert!(reason.contains("set `read_url`"), "{reason}");
    assert!(matches!(blind.windows(&series("a", &[]), TimeRange::default(), SECOND).await, Err(SinkError::Halt(_))));
    let sink = fixture.sink(json!({}));
    for (mode, passing) in [
        (Mode::Refuse, true),
        (Mode::CutRequest, true),
        (Mode::ApplyThenCut, true),
        (Mode::Unavailable { retry_after: None }, true),
        (Mode::answer(403, r#"{"message":"no"}"#), false),
        (Mode::answer(200, "no rows"), false),
    ] {
        fixture.proxy.set(mode.clone());
        match sink.totals(TimeRange::default()).await {
            Err(SinkError::Unavailable(_)) if passing => {}
            Err(SinkError::Halt(_)) if !passing => {}
            other => panic!("{mode:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn each_format_comes_with_its_headers() {
    let fixture = Fixture::start();
    fixture.receiver.record();
    let batch = &batches(1)[0];
    let url = format!("{}/raw?site=1", fixture.proxy.url());
    for (format, content_type, encoding) in [
        ("json", "application/json", None),
        ("ndjson", "application/x-ndjson", None),
        ("datadog", "application/json", None),
        ("prometheus", "application/x-protobuf", Some("snappy")),
        ("otlp", "application/x-protobuf", None),
        ("influx", "text/plain; charset=utf-8", None),
        ("statsd", "text/plain; charset=utf-8", None),
    ] {
        let before = fixture.receiver.requests().len();
        let sink = fixture.sink(json!({"url": url, "format": format, "slots": 1, "idempotency_key": "X-Request-Id"}));
        settle_all(&*sink, batch).await;
        let requests = fixture.receiver.requests();
        assert_eq!(requests.len(), before + 1);
        let request = &requests[before];
        assert_eq!(request.header("content-type"), Some(content_type), "{format}");
        assert_eq!(request.header("content-encoding"), encoding, "{format}");
        let version = request.header("x-prometheus-remote-write-version");
        assert_eq!(version.is_some(), format == "prometheus", "{format}");
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/raw?site=1"));
        assert_eq!(request.header("x-request-id"), Some("tested/tallybus.counters/0/0-4"));
        assert_eq!(request.header("idempotency-key"), None);
        assert_eq!(&request.body[..], &sink.encode(batch).as_bytes().unwrap()[..]);
    }
    let own = fixture.sink(json!({"url": url, "headers": {"content-type": "application/vnd.acme+json"}}));
    settle_all(&*own, batch).await;
    let request = fixture.receiver.requests().pop().unwrap();
    let types: Vec<_> = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type")).collect();
    assert_eq!(types.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["application/vnd.acme+json"]);
}

#[tokio::test]
async fn what_was_sent_is_counted() {
    let fixture = Fixture::start();
    fixture.receiver.record();
    let sink = fixture.sink(json!({"compression": "zstd"}));
    sink.check().await.unwrap();
    let events: Vec<_> = (0..200).map(|n| (series("a", &[("n", &n.to_string())]), START, n + 1)).collect();
    let batch = Maker::new(SECOND, 0).batch(&events);
    settle_all(&*sink, &batch).await;
    let used = |what: &str| sink.usage().into_iter().find(|usage| usage.what == what).unwrap().amount;
    let plain = fixture.sink(json!({})).encode(&batch).memory;
    assert_eq!(used("requests"), 1.0);
    assert_eq!(used("bytes sent"), fixture.writes()[0].body.len() as f64);
    assert_eq!(used("bytes before compression"), plain as f64);
}
