use std::io::{Read, Write};
use std::net::TcpStream as Client;
use std::time::Instant;

use hyper::StatusCode;

use super::*;
use crate::http::text;

/// Answers `/endless` with one `x` at once and nothing more, everything else with `ok`.
#[derive(Default)]
struct Answers {
    /// Senders of endless answers: they end when these are dropped.
    senders: std::sync::Mutex<Vec<http_body_util::channel::Sender<Bytes>>>,
}

impl Handler for Answers {
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            if request.uri().path() != "/endless" {
                return Reply::Whole(text(StatusCode::OK, "ok\n"));
            }
            let (mut sender, body) = Channel::new(1);
            sender.send_data(Bytes::from_static(b"x")).await.unwrap();
            self.senders.lock().unwrap().push(sender);
            Reply::Endless(Response::new(body))
        })
    }
}

fn start() -> Server {
    Server::start("test", "127.0.0.1:0".parse().unwrap(), Arc::new(Answers::default())).unwrap()
}

fn connect(server: &Server) -> Client {
    let client = Client::connect(server.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client
}

/// All that the server sends to this text until it closes the connection.
fn exchange(mut client: Client, request: &str) -> String {
    // A server that refuses a long request closes while it is sent.
    let _sent = client.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _reset = client.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

/// A client of an endless answer, of which it has read the first part.
fn endless(server: &Server) -> Client {
    let mut client = connect(server);
    client.write_all(b"GET /endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut read = String::new();
    while !read.ends_with("1\r\nx\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        read.push(char::from(byte[0]));
    }
    client
}

#[test]
fn a_request_is_answered_and_the_connection_closed() {
    let server = start();
    let answer = exchange(connect(&server), GET);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok\n"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = start();
    let long = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD * 4));
    let answer = exchange(connect(&server), &long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(exchange(connect(&server), GET).starts_with("HTTP/1.1 200"));
}

#[test]
fn clients_that_send_nothing_are_closed_after_a_while_and_keep_no_other_one_out() {
    let server = start();
    let mut silent: Vec<Client> = (0..MAX_CONNECTIONS + 3).map(|_| connect(&server)).collect();
    let begun = Instant::now();
    for _ in 0..3 {
        assert!(exchange(connect(&server), GET).starts_with("HTTP/1.1 200"));
    }
    assert!(begun.elapsed() < HEAD_TIMEOUT, "{:?}", begun.elapsed());
    for client in &mut silent {
        let mut rest = Vec::new();
        let _reset = client.read_to_end(&mut rest);
    }
    assert!(begun.elapsed() < HEAD_TIMEOUT + Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(exchange(connect(&server), GET).starts_with("HTTP/1.1 200"));
}

#[test]
fn an_endless_answer_outlives_the_limits_of_the_others_and_ends_with_the_server() {
    let server = start();
    let mut first = endless(&server);
    let begun = Instant::now();
    let _silent: Vec<Client> = (0..MAX_CONNECTIONS + 3).map(|_| connect(&server)).collect();
    assert!(exchange(connect(&server), GET).starts_with("HTTP/1.1 200"));
    first.set_read_timeout(Some(CONNECTION_TIMEOUT + Duration::from_secs(1))).unwrap();
    let nothing = first.read(&mut [0; 16]).unwrap_err();
    assert!(matches!(nothing.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{nothing}");
    assert!(begun.elapsed() > CONNECTION_TIMEOUT);
    let ending = Instant::now();
    drop(server);
    first.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut rest = Vec::new();
    let _reset = first.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    assert!(ending.elapsed() < Duration::from_secs(30), "{:?}", ending.elapsed());
}
