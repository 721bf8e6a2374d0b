//! Callbacks against receivers on loopback that misbehave in each known way.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::io::{BufReader, Write};
use std::net::{IpAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver as Results, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tallybus_control::callback::{
    AllowList, Callback, CallbackSettings, Callbacks, FailedAttempt, Resolve, Schedule, Undelivered, UrlRefusal,
};
use tallybus_control::{Key, Signed};
use tallybus_tests::http::{Request, Response, read_body, read_head};
use tallybus_tests::{Certificates, TlsFront};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const WAIT: Duration = Duration::from_secs(60);

/// Answers the requests to an address in order, the last answer for ever, and remembers them.
struct Receiver {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// `None` is no answer at all.
    fn start(answers: Vec<Option<Response>>) -> Self {
        Self::on(TcpListener::bind(("127.0.0.1", 0)).unwrap(), answers)
    }

    fn on(listener: TcpListener, answers: Vec<Option<Response>>) -> Self {
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let Ok(Some(mut request)) = read_head(&mut reader) else { continue };
                if read_body(&mut reader, &mut request).is_err() {
                    continue;
                }
                let mut seen = seen.lock().unwrap();
                let answer = &answers[seen.len().min(answers.len() - 1)];
                seen.push(request);
                match answer {
                    Some(answer) => drop(answer.write(reader.get_mut())),
                    // It stays open, without an answer.
                    None => open.push(reader),
                }
            }
        });
        Self { port, requests }
    }

    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn status(status: u16) -> Option<Response> {
    Some(Response::empty(status))
}

fn status_with(status: u16, name: &str, value: &str) -> Option<Response> {
    let mut response = Response::empty(status);
    response.headers.push((name.to_owned(), value.to_owned()));
    Some(response)
}

/// Loopback is allowed, and what is slow by default is fast.
fn settings(origin: &str) -> CallbackSettings {
    let allowed = AllowList::default().allow_origin(origin).unwrap().allow_network("127.0.0.1").unwrap();
    let mut settings = CallbackSettings::new(allowed).sign_with(Key::parse(KEY).unwrap());
    settings.schedule = Schedule { first_wait: Duration::from_millis(20), longest_wait: Duration::from_millis(100) };
    settings
}

fn callback(url: &str) -> Callback {
    Callback {
        id: "cmd-1_orders".to_owned(),
        url: url.to_owned(),
        event: "tallybus.answer".to_owned(),
        data: json!({ "outcome": "done" }),
    }
}

/// Sends one; what comes back is in the channel.
fn send(callbacks: &Callbacks, url: &str) -> Result<Results<Undelivered>, UrlRefusal> {
    let (back, returned) = channel();
    callbacks.send(callback(url), Box::new(move |undelivered| back.send(undelivered).unwrap()))?;
    Ok(returned)
}

fn until(condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + WAIT;
    while !condition() {
        assert!(std::time::Instant::now() < end, "the condition did not come true within {WAIT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_receiver_that_fails_first_gets_the_same_id_again_with_a_new_signature_and_then_it_is_delivered() {
    let receiver =
        Receiver::start(vec![status(500), status_with(302, "location", "/elsewhere"), status(404), status(204)]);
    let callbacks = Callbacks::start(settings(&receiver.origin())).unwrap();
    let returned = send(&callbacks, &format!("{}/hook?token=secret", receiver.origin())).unwrap();
    until(|| callbacks.counts().delivered == 1);
    let requests = receiver.requests();
    assert_eq!(requests.len(), 4);
    let key = Key::parse(KEY).unwrap();
    for request in &requests {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/hook?token=secret"));
        let header = |name| request.header(name).unwrap();
        assert_eq!(header("webhook-id"), "cmd-1_orders");
        assert_eq!(header("content-type"), "application/json");
        let timestamp = header("webhook-timestamp").parse().unwrap();
        let signed = Signed { id: "cmd-1_orders", timestamp, signature: header("webhook-signature") };
        assert!(key.verify(&signed, &request.body));
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!((&body["type"], &body["data"]["outcome"]), (&json!("tallybus.answer"), &json!("done")));
    }
    assert_eq!(callbacks.counts().failed_attempts, 3);
    assert!(returned.try_recv().is_err(), "it was delivered, and is not given back");
}

/// Written from the specification with the standard library of another language.
const VERIFY: &str = r#"
import base64, hashlib, hmac, sys
secret, name, timestamp, signature = sys.argv[1:5]
signed = name.encode() + b"." + timestamp.encode() + b"." + sys.stdin.buffer.read()
mac = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
sys.exit(0 if any(hmac.compare_digest("v1," + base64.b64encode(mac).decode(), one) for one in signature.split(" ")) else 1)
"#;

#[test]
fn a_signature_is_verified_by_an_implementation_in_another_language() {
    let receiver = Receiver::start(vec![status(200)]);
    let new_key = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    let settings = settings(&receiver.origin()).sign_with(Key::parse(new_key).unwrap());
    let callbacks = Callbacks::start(settings).unwrap();
    let _returned = send(&callbacks, &receiver.origin()).unwrap();
    until(|| callbacks.counts().delivered == 1);
    let request = receiver.requests().remove(0);
    let verify = |key: &str, body: &[u8]| {
        let header = |name| request.header(name).unwrap().to_owned();
        let arguments = [header("webhook-id"), header("webhook-timestamp"), header("webhook-signature")];
        let mut python = Command::new("python3");
        python.args(["-c", VERIFY, key]).args(arguments).stdin(Stdio::piped());
        let mut child = python.spawn().expect("python3 is needed by this test, as by the servers of others");
        child.stdin.take().unwrap().write_all(body).unwrap();
        child.wait().unwrap().code()
    };
    assert_eq!(verify(KEY, &request.body), Some(0));
    assert_eq!(verify(new_key, &request.body), Some(0), "both keys sign while one is replaced");
    assert_eq!(verify("whsec_////////////////////////////////", &request.body), Some(1));
    assert_eq!(verify(KEY, &[&request.body[..], b" "].concat()), Some(1));
}

#[test]
fn a_receiver_that_is_gone_ends_it_at_once_and_it_is_given_back() {
    let receiver = Receiver::start(vec![status(410)]);
    let callbacks = Callbacks::start(settings(&receiver.origin())).unwrap();
    let undelivered = send(&callbacks, &receiver.origin()).unwrap().recv_timeout(WAIT).unwrap();
    assert_eq!((undelivered.reason, undelivered.attempts), (FailedAttempt::Gone, 1));
    assert_eq!(undelivered.callback, callback(&receiver.origin()));
    assert_eq!((receiver.requests().len(), callbacks.counts().undelivered), (1, 1));
}

#[test]
fn a_redirect_is_never_followed_and_never_succeeds() {
    let elsewhere = Receiver::start(vec![status(200)]);
    let target = format!("{}/taken", elsewhere.origin());
    let receiver =
        Receiver::start([301, 302, 303, 307, 308].map(|code| status_with(code, "location", &target)).to_vec());
    let mut settings = settings(&receiver.origin());
    settings.allowed = settings.allowed.allow_origin(&elsewhere.origin()).unwrap();
    settings.give_up_after = Duration::from_secs(1);
    let callbacks = Callbacks::start(settings).unwrap();
    let undelivered = send(&callbacks, &receiver.origin()).unwrap().recv_timeout(WAIT).unwrap();
    assert!(matches!(undelivered.reason, FailedAttempt::Status(301..=308)), "{}", undelivered.reason);
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn a_receiver_that_never_answers_times_out_and_the_callback_is_given_back_after_the_stated_end() {
    let receiver = Receiver::start(vec![None]);
    let mut settings = settings(&receiver.origin());
    settings.timeout = Duration::from_millis(200);
    settings.give_up_after = Duration::from_millis(900);
    let callbacks = Callbacks::start(settings).unwrap();
    let undelivered = send(&callbacks, &receiver.origin()).unwrap().recv_timeout(WAIT).unwrap();
    assert_eq!(undelivered.reason, FailedAttempt::TimedOut);
    assert!(undelivered.attempts >= 2, "{}", undelivered.attempts);
}

#[test]
fn retry_after_beyond_the_stated_end_gives_the_callback_back_at_once() {
    let receiver = Receiver::start(vec![status_with(503, "retry-after", "86401")]);
    let callbacks = Callbacks::start(settings(&receiver.origin())).unwrap();
    let undelivered = send(&callbacks, &receiver.origin()).unwrap().recv_timeout(WAIT).unwrap();
    assert_eq!((undelivered.reason, undelivered.attempts), (FailedAttempt::Status(503), 1));
}

#[test]
fn retry_after_delays_the_next_attempt() {
    let receiver = Receiver::start(vec![status_with(429, "retry-after", "2"), status(200)]);
    let callbacks = Callbacks::start(settings(&receiver.origin())).unwrap();
    let begun = std::time::Instant::now();
    let _returned = send(&callbacks, &receiver.origin()).unwrap();
    until(|| callbacks.counts().delivered == 1);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// Gives the next answer at each look-up, the last for ever.
struct Scripted {
    answers: Vec<Vec<IpAddr>>,
    asked: Arc<AtomicUsize>,
}

impl Resolve for Scripted {
    fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        assert_eq!(host, "receiver.test");
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers[asked.min(self.answers.len() - 1)].clone())
    }
}

fn scripted(settings: &mut CallbackSettings, answers: &[&[&str]]) -> Arc<AtomicUsize> {
    let asked = Arc::<AtomicUsize>::default();
    let answers = answers.iter().map(|all| all.iter().map(|address| address.parse().unwrap()).collect()).collect();
    settings.resolver = Arc::new(Scripted { answers, asked: Arc::clone(&asked) });
    asked
}

#[test]
fn a_name_with_an_address_that_is_not_public_is_not_connected_to() {
    for addresses in
        [&["10.0.0.1"][..], &["::ffff:127.0.0.1"], &["127.0.0.2"], &["fe80::1"], &["127.0.0.1", "169.254.169.254"]]
    {
        let mut settings = settings("https://receiver.test:9");
        scripted(&mut settings, &[addresses]);
        let callbacks = Callbacks::start(settings).unwrap();
        let undelivered = send(&callbacks, "https://receiver.test:9/").unwrap().recv_timeout(WAIT).unwrap();
        assert_eq!((undelivered.reason, undelivered.attempts), (FailedAttempt::Address, 1), "{addresses:?}");
    }
    let receiver = Receiver::start(vec![status(200)]);
    let only_the_origin = AllowList::default().allow_origin(&receiver.origin()).unwrap();
    let callbacks = Callbacks::start(CallbackSettings::new(only_the_origin)).unwrap();
    let undelivered = send(&callbacks, &receiver.origin()).unwrap().recv_timeout(WAIT).unwrap();
    assert_eq!(undelivered.reason, FailedAttempt::Address, "an address in the URL is judged as one of a name");
    assert_eq!(receiver.requests().len(), 0);
}

#[test]
fn a_name_that_changes_its_address_after_the_look_up_is_reached_at_the_address_that_was_judged() {
    let receiver = Receiver::start(vec![status(200)]);
    let certificates = Certificates::make().unwrap();
    let front = TlsFront::start(&receiver.origin(), &certificates, false).unwrap();
    let port = front.url().rsplit_once(':').unwrap().1.parse().unwrap();
    // What the name resolves to from its second look-up on: another receiver behind the same port.
    let wrong = TcpListener::bind(("127.0.0.2", port)).unwrap();
    wrong.set_nonblocking(true).unwrap();
    let origin = format!("https://receiver.test:{port}");
    let mut settings = settings(&origin).trust_only(&certificates.authority_pem().unwrap()).unwrap();
    settings.allowed = settings.allowed.allow_network("127.0.0.2").unwrap();
    let asked = scripted(&mut settings, &[&["127.0.0.1"], &["127.0.0.2"]]);
    let callbacks = Callbacks::start(settings).unwrap();
    let _returned = send(&callbacks, &format!("{origin}/hook")).unwrap();
    until(|| callbacks.counts().delivered == 1);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the name is resolved once for an attempt");
    assert_eq!(receiver.requests().len(), 1);
    assert_eq!(wrong.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_receiver_whose_certificate_is_not_trusted_gets_nothing() {
    let receiver = Receiver::start(vec![status(200)]);
    let front = TlsFront::start(&receiver.origin(), &Certificates::make().unwrap(), false).unwrap();
    let mut settings = settings(&front.url());
    settings.give_up_after = Duration::from_millis(300);
    let callbacks = Callbacks::start(settings).unwrap();
    let undelivered = send(&callbacks, &front.url()).unwrap().recv_timeout(WAIT).unwrap();
    assert_eq!(undelivered.reason, FailedAttempt::NotConnected);
    assert_eq!(receiver.requests().len(), 0);
}

#[test]
fn a_url_that_is_not_listed_is_refused_and_counted_before_anything_is_sent() {
    let receiver = Receiver::start(vec![status(200)]);
    let callbacks = Callbacks::start(settings("https://receiver.test")).unwrap();
    assert_eq!(send(&callbacks, &receiver.origin()).unwrap_err(), UrlRefusal::NotAllowed);
    assert_eq!((callbacks.counts().refused, receiver.requests().len()), (1, 0));
}

#[test]
fn callbacks_under_way_are_bounded_and_those_that_are_left_at_the_end_are_given_back() {
    let receiver = Receiver::start(vec![None]);
    let callbacks = Callbacks::start(settings(&receiver.origin())).unwrap();
    let returned: Vec<_> = (0..1_003).map(|_| send(&callbacks, &receiver.origin()).unwrap()).collect();
    for too_many in &returned[1_000..] {
        assert_eq!(too_many.try_recv().unwrap().reason, FailedAttempt::TooMany);
    }
    callbacks.finish(Duration::from_millis(50));
    for left in &returned[..1_000] {
        assert_eq!(left.recv_timeout(WAIT).unwrap().reason, FailedAttempt::Stopped);
    }
    assert_eq!(callbacks.counts().undelivered, 1_003);
    let after = send(&callbacks, &receiver.origin()).unwrap();
    assert_eq!(after.try_recv().unwrap().reason, FailedAttempt::Stopped);
}
