//! The helpers themselves: that servers keep their data over a kill, and that each fault is the one it says.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tallybus_tests::http::{Response, send};
use tallybus_tests::{FaultProxy, InfluxOptions, InfluxServer, InfluxV2, Mode, influxdb, influxdb_with, kafka};

fn write_v1(url: &str, line: &str) -> anyhow::Result<Response> {
    send(url, "POST", "/write?db=d", &[], line.as_bytes())
}

fn sum(server: &InfluxServer) -> i64 {
    let csv = server.query_csv("d", "SELECT sum(value) FROM m").unwrap();
    csv.lines().nth(1).map_or(0, |row| row.rsplit(',').next().unwrap().parse().unwrap())
}

#[test]
fn kafka_comes_back_on_its_port_after_sigkill() {
    let Some(mut kafka) = kafka() else { return };
    let address = kafka.bootstrap();
    let reachable = || TcpStream::connect(&address).is_ok();
    assert!(reachable());
    kafka.kill();
    assert!(!reachable() && kafka.pid().is_none());
    kafka.restart().unwrap();
    assert!(reachable());
    assert_eq!(kafka.bootstrap(), address);
}

#[test]
fn influxdb_keeps_its_points_over_sigkill() {
    let Some(mut server) = influxdb() else { return };
    server.create_database("d").unwrap();
    assert_eq!(write_v1(&server.url(), "m value=3i 1\nm value=4i 2").unwrap().status, 204);
    server.kill();
    assert!(write_v1(&server.url(), "m value=1i 3").is_err());
    server.restart().unwrap();
    assert_eq!(sum(&server), 7);
}

#[test]
fn authentication_is_asked_for() {
    let auth = Some(("root".to_owned(), "se'cret".to_owned()));
    let Some(server) = influxdb_with(InfluxOptions { auth, max_body: None }) else { return };
    assert_eq!(write_v1(&server.url(), "m value=3i 1").unwrap().status, 401);
    server.create_database("d").unwrap();
    let v2 = InfluxV2::start(&server).unwrap();
    assert_eq!(write_v2(&v2, InfluxV2::TOKEN, "d", "m value=3i 1").status, 204);
    assert_eq!(sum(&server), 3);
}

#[test]
fn every_fault_is_the_one_it_says() {
    let Some(server) = influxdb() else { return };
    server.create_database("d").unwrap();
    let proxy = FaultProxy::start(&server.url()).unwrap();
    let write = |line: &str| write_v1(&proxy.url(), line);
    let big = format!("m value=100i 10{}", " ".repeat(10_000));

    assert_eq!(write("m value=1i 1").unwrap().status, 204);

    proxy.set(Mode::Unavailable { retry_after: Some(7) });
    let busy = write("m value=1i 2").unwrap();
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("7")));

    proxy.set(Mode::answer(400, r#"{"error":"no"}"#));
    let refused = write("m value=1i 2").unwrap();
    assert_eq!((refused.status, refused.body.as_slice()), (400, &br#"{"error":"no"}"#[..]));

    proxy.set(Mode::Refuse);
    assert!(TcpStream::connect(proxy.url().trim_start_matches("http://")).is_err());
    let before = proxy.requests();

    proxy.set(Mode::CutRequest);
    assert!(write(&big).is_err());
    assert_eq!(proxy.requests(), before + 1);

    proxy.set(Mode::Hang);
    let mut hanging = TcpStream::connect(proxy.url().trim_start_matches("http://")).unwrap();
    hanging.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    hanging.write_all(b"GET /ping HTTP/1.1\r\n\r\n").unwrap();
    let mut nothing = [0u8; 1];
    assert!(hanging.read(&mut nothing).is_err(), "an answer came");
    assert_eq!(sum(&server), 1, "a fault let something through");

    proxy.set_for(Mode::ApplyThenCut, 1);
    let applied = proxy.applied();
    hanging.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(hanging.read(&mut nothing).unwrap(), 0, "the hanging connection is cut");
    assert!(write("m value=10i 3").is_err());
    assert_eq!(proxy.applied(), applied + 1);
    assert_eq!(sum(&server), 11);

    let start = Instant::now();
    proxy.set(Mode::Delay(Duration::from_millis(100)));
    assert_eq!(write("m value=5i 4").unwrap().status, 204);
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(sum(&server), 16);
}

#[test]
fn one_connection_carries_many_requests() {
    let Some(server) = influxdb() else { return };
    let proxy = FaultProxy::start(&server.url()).unwrap();
    let mut stream = TcpStream::connect(proxy.url().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0u8; 512];
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 204"));
    }
    assert_eq!(proxy.requests(), 3);
}

fn write_v2(v2: &InfluxV2, token: &str, bucket: &str, lines: &str) -> Response {
    let headers = [("Authorization".to_owned(), format!("Token {token}"))];
    let target = format!("/api/v2/write?org={}&bucket={bucket}&precision=ns", InfluxV2::ORG);
    send(&v2.url(), "POST", &target, &headers, lines.as_bytes()).unwrap()
}

#[test]
fn version_2_answers_as_version_2_does() {
    let Some(server) = influxdb_with(InfluxOptions { auth: None, max_body: Some(1000) }) else { return };
    let v2 = InfluxV2::start(&server).unwrap();
    let text = |answer: &Response| String::from_utf8_lossy(&answer.body).into_owned();
    let token = InfluxV2::TOKEN;

    let missing = write_v2(&v2, token, "d", "m value=1i 1");
    assert_eq!(missing.status, 404);
    assert!(text(&missing).contains(r#""code":"not found""#), "{}", text(&missing));

    server.create_database("d").unwrap();
    assert_eq!(write_v2(&v2, token, "d", "m value=1i 1").status, 204);
    assert_eq!(write_v2(&v2, "other", "d", "m value=1i 2").status, 401);
    let conflict = write_v2(&v2, token, "d", "m value=\"text\" 3");
    assert_eq!(conflict.status, 422, "{}", text(&conflict));
    let garbage = write_v2(&v2, token, "d", "no line protocol");
    assert_eq!((garbage.status, text(&garbage).contains("unable to parse")), (400, true));
    assert_eq!(write_v2(&v2, token, "d", &"x".repeat(2000)).status, 413);
    assert_eq!(sum(&server), 1);

    let health = send(&v2.url(), "GET", "/health", &[], b"").unwrap();
    assert!(text(&health).contains(r#""status":"pass""#));
    let headers = [("Authorization".to_owned(), format!("Token {token}"))];
    let buckets = send(&v2.url(), "GET", "/api/v2/buckets?name=d", &headers, b"").unwrap();
    assert!(text(&buckets).contains(r#""name":"d""#), "{}", text(&buckets));
    assert_eq!(send(&v2.url(), "GET", "/api/v2/buckets?name=e", &headers, b"").unwrap().status, 404);

    v2.on_query(Box::new(|flux, influxql| {
        if flux != "sum" {
            return Err(format!("no such query: {flux}"));
        }
        influxql("d", "SELECT sum(value) FROM m").map_err(|error| error.to_string())
    }));
    let answer = send(&v2.url(), "POST", "/api/v2/query?org=tallybus", &headers, b"sum").unwrap();
    assert!(answer.status == 200 && text(&answer).contains("1]"), "{}", text(&answer));
    assert_eq!(send(&v2.url(), "POST", "/api/v2/query?org=tallybus", &headers, b"other").unwrap().status, 400);
}

#[test]
fn postgres_starts_and_refuses_clients_without_a_password() {
    let Some(mut server) = tallybus_tests::postgres() else { return };
    let Some(psql) = tallybus_tests::program("psql") else { return };
    let ask = |password: &str, port: u16| {
        let target = format!("host=127.0.0.1 port={port} user=tallybus dbname=counters");
        let output = std::process::Command::new(&psql)
            .env("PGPASSWORD", password)
            .args(["-w", "-At", "-c", "SELECT 6 * 7", &target])
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(ask(server.password(), server.port()), (true, "42\n".to_owned()));
    assert!(!ask("wrong", server.port()).0);
    server.restart().unwrap();
    assert_eq!(ask(server.password(), server.port()), (true, "42\n".to_owned()));
}

#[test]
fn moto_keeps_buckets() {
    let Some(server) = tallybus_tests::s3() else { return };
    server.create_bucket("counters").unwrap();
    assert!(server.object("counters", "no/such").unwrap_err().to_string().contains("NoSuchKey"));
}
