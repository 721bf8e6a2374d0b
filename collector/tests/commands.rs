//! Commands and tasks against a service in this process, on both buses.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise, in its helpers too")]

use std::io::BufReader;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallybus::ask::{AskOutcome, Asker, Outcome, PoolState, Question, State, To};
use tallybus::commands::callbacks::{AllowList, CallbackSettings};
use tallybus::commands::{Commands, CommandsError, Key};
use tallybus::{Connection, Guard, count};
use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{Bus, NewRecord};
use tallybus_tests::http::{Response, read_body, read_head};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const WAIT: Duration = Duration::from_secs(60);

/// A process has one collector.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key() -> Key {
    Key::parse(KEY).unwrap()
}

/// A service with commands, and what asks it.
struct Service {
    guard: Guard,
    asker: Asker,
    /// The ids of tasks that were begun.
    begun: Receiver<String>,
    /// Lets a task end.
    end: Sender<()>,
    _turn: MutexGuard<'static, ()>,
}

impl Service {
    fn start(bus: &Arc<dyn Bus>, with: impl FnOnce(Commands) -> Commands) -> Self {
        let turn = turn();
        let connection = Connection::from_bus(Box::new(SharedBus(Arc::clone(bus))));
        let guard = tallybus::builder().service("orders").start(connection).unwrap();
        let (begin, begun) = channel();
        let (end, ended) = channel();
        let commands = Commands::new()
            .instance("a")
            .key(key())
            .on("double", |request| request.arguments.as_u64().map(|n| n * 2).ok_or("no number"))
            .on("panic", |_| -> Result<(), String> { panic!("secret") })
            .on("large", |_| Ok::<_, String>("x".repeat(100_000)))
            .on_task("resize", move |request| {
                begin.send(request.id.clone()).unwrap();
                ended.recv().map_err(|error| error.to_string())
            });
        guard.serve(with(commands)).unwrap();
        let mut service =
            Self { guard, asker: Asker::of_bus(Arc::clone(bus)).sign_with(key()), begun, end, _turn: turn };
        service.until(|status| status.is_some());
        service
    }

    /// Waits until what the instance says of its place in the pool is so.
    fn until(&mut self, condition: impl Fn(Option<PoolState>) -> bool) {
        let end = Instant::now() + WAIT;
        loop {
            let states = self.asker.instances("orders").unwrap();
            if condition(states.first().map(|status| status.pool)) {
                return;
            }
            assert!(Instant::now() < end, "the instance did not say so within {WAIT:?}: {states:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the instance answers to a command.
    fn answer(&mut self, name: &str, arguments: Value) -> (Outcome, String, Value) {
        let answers = self.asker.ask(&"service/orders@a".parse().unwrap(), name, arguments, WAIT).unwrap();
        let answer = answers.answers().next().unwrap_or_else(|| panic!("no answer to {name}: {answers:?}"));
        (answer.answer.outcome, answer.answer.text.clone(), answer.answer.data.clone())
    }
}

/// The test and the collector use one bus.
struct SharedBus(Arc<dyn Bus>);

impl Bus for SharedBus {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn create_topic(&self, topic: &str, options: &tallybus_bus::TopicOptions) -> Result<bool, tallybus_bus::BusError> {
        self.0.create_topic(topic, options)
    }
    fn observer(&self) -> Result<Box<dyn tallybus_bus::Observer>, tallybus_bus::BusError> {
        self.0.observer()
    }
    fn publisher(&self) -> Result<Box<dyn tallybus_bus::Publisher>, tallybus_bus::BusError> {
        self.0.publisher()
    }
    fn subscriber(
        &self,
        group: &str,
        topics: &[String],
        options: &tallybus_bus::GroupOptions,
    ) -> Result<Box<dyn tallybus_bus::Subscriber>, tallybus_bus::BusError> {
        self.0.subscriber(group, topics, options)
    }
    fn reset_group(
        &self,
        group: &str,
        to: &[(tallybus_bus::TopicPartition, tallybus_bus::Committed)],
    ) -> Result<(), tallybus_bus::BusError> {
        self.0.reset_group(group, to)
    }
    fn reader(&self) -> Result<Box<dyn tallybus_bus::Reader>, tallybus_bus::BusError> {
        self.0.reader()
    }
}

fn publish(bus: &dyn Bus, topic: &str, payload: &[u8]) {
    let mut publisher = bus.publisher().unwrap();
    let record = NewRecord { topic, partition: None, key: Some(b"forged"), payload, headers: &[] };
    publisher.publish(record, 0).unwrap();
    let (end, mut deliveries) = (Instant::now() + WAIT, Vec::new());
    while deliveries.is_empty() {
        assert!(Instant::now() < end);
        publisher.poll(Duration::from_millis(20), &mut deliveries);
    }
    deliveries.pop().unwrap().outcome.unwrap();
}

/// Commands that are done, that fail and that are refused; each is counted, and the counter of the service is exact all the same.
fn answers_and_refusals(bus: &Arc<dyn Bus>) {
    let mut service = Service::start(bus, |commands| commands);
    count!("commands.test");
    assert_eq!(service.guard.address().as_deref(), Some("service/orders@a"));
    assert_eq!(service.answer("double", json!(21)), (Outcome::Done, String::new(), json!(42)));
    assert_eq!(service.answer("double", Value::Null), (Outcome::Failed, "no number".to_owned(), Value::Null));
    let (outcome, text, _) = service.answer("panic", Value::Null);
    assert!(outcome == Outcome::Failed && text.contains("panicked") && !text.contains("secret"), "{text}");
    let (outcome, text, _) = service.answer("large", Value::Null);
    assert!(outcome == Outcome::Failed && text.contains("larger"), "{text}");
    let (outcome, text, _) = service.answer("melt", Value::Null);
    assert!(outcome == Outcome::Refused && text.contains("double, large, panic"), "{text}");

    let each = service.asker.ask(&"service/orders".parse().unwrap(), "double", json!(1), WAIT).unwrap();
    assert!(each.is_good() && each.addressees.len() == 1, "{each:?}");
    assert!(service.asker.ask_one("orders", "double", json!(1), WAIT).unwrap().is_good());
    let nobody = service.asker.ask_one("nobody", "double", json!(1), WAIT).unwrap();
    assert_eq!(nobody.outcome(), AskOutcome::Silent);
    let other = service.asker.ask(&"service/orders@b".parse().unwrap(), "double", json!(1), Duration::from_secs(1));
    assert_eq!(other.unwrap().outcome(), AskOutcome::Silent);
    assert!(service.asker.ask(&"all".parse().unwrap(), "double", json!(1), WAIT).is_err(), "no service");

    let mut unsigned = Asker::of_bus(Arc::clone(bus));
    let refused = unsigned.ask_one("orders", "double", json!(1), WAIT).unwrap();
    assert_eq!(refused.outcome(), AskOutcome::Failed);
    let other_key = Key::parse("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
    let mut forged = Asker::of_bus(Arc::clone(bus)).sign_with(other_key);
    // It is refused too, by an answer that is not signed with that key.
    let silent = forged.ask_one("orders", "double", json!(1), Duration::from_secs(1)).unwrap();
    assert_eq!(silent.outcome(), AskOutcome::Silent);
    publish(bus.as_ref(), "tallybus.commands", b"{");
    let by_callback =
        Question::new(To::One("orders".to_owned()), "double", json!(1), WAIT).with_callback("https://a.example");
    let refused = service.asker.put(&by_callback).unwrap();
    assert!(
        matches!(&refused.addressees[0].state, State::Answered(answer) if answer.answer.outcome == Outcome::Refused)
    );

    assert!(matches!(service.guard.serve(Commands::new().allow_unsigned()), Err(CommandsError::Serving)));
    let report = service.guard.shutdown(WAIT);
    let counts = report.commands;
    assert_eq!((counts.commands, counts.done, counts.failed), (6, 3, 3), "{counts:?}");
    assert_eq!((counts.unknown, counts.unsigned, counts.wrong_signature), (1, 1, 1));
    assert_eq!((counts.malformed, counts.callbacks_refused, counts.refused()), (1, 1, 5));
    assert!(report.to_string().contains("6 commands, 0 tasks, failed 3, refused 5"), "{report}");
    assert!(report.is_complete() && report.emitted >= 1);
    assert!(service.asker.instances("orders").unwrap().is_empty(), "it has said that it leaves");
}

/// An instance leaves the pool once the task in hand has ended, keeps answering, and comes back.
fn drain_and_resume(bus: &Arc<dyn Bus>) {
    let mut service = Service::start(bus, |commands| commands);
    let mut other = Asker::of_bus(Arc::clone(bus)).sign_with(key());
    // The topic of tasks is there once the pool has begun.
    let begin = |asker: &mut Asker| {
        let end = Instant::now() + WAIT;
        loop {
            match asker.ask_pool("orders", "resize", json!({ "width": 80 }), Duration::from_millis(300)) {
                Ok(answers) => return answers,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
        }
    };
    let expired = begin(&mut other);
    // Under way or not begun at all: nobody lets it end before it has expired.
    assert_ne!(expired.outcome(), AskOutcome::Good);
    let task = thread::spawn(move || other.ask_pool("orders", "resize", Value::Null, WAIT).unwrap());
    // The first one may have expired before the partitions were assigned.
    let mut id = service.begun.recv_timeout(WAIT).unwrap();
    if id == expired.id {
        service.end.send(()).unwrap();
        id = service.begun.recv_timeout(WAIT).unwrap();
    }
    let drain = thread::spawn({
        let bus = Arc::clone(bus);
        move || {
            let mut asker = Asker::of_bus(bus).sign_with(key());
            asker.ask(&"service/orders@a".parse().unwrap(), "drain", Value::Null, WAIT).unwrap()
        }
    });
    service.until(|pool| pool == Some(PoolState::Draining));
    assert!(!drain.is_finished(), "it is not drained while a task is in hand");
    assert_eq!(service.answer("double", json!(4)).2, json!(8), "it answers while it drains");
    service.end.send(()).unwrap();
    let drained = drain.join().unwrap();
    assert!(drained.is_good(), "{drained:?}");
    let partitions = drained.answers().next().unwrap().answer.data["partitions"].as_array().unwrap().len();
    assert_eq!(partitions, 8, "it names each partition that it has released");
    let task = task.join().unwrap();
    assert!(task.is_good() && task.id == id && !task.answers().next().unwrap().again, "{task:?}");

    service.until(|pool| pool == Some(PoolState::Out));
    assert_eq!(service.answer("double", json!(4)).2, json!(8), "it keeps running");
    let undone = service.asker.ask_pool("orders", "resize", Value::Null, Duration::from_secs(1)).unwrap();
    assert_eq!(undone.outcome(), AskOutcome::Silent);
    assert!(service.begun.try_recv().is_err(), "nothing is begun outside the pool");
    assert_eq!(service.answer("resume", Value::Null).0, Outcome::Done);
    service.until(|pool| pool == Some(PoolState::In));
    service.end.send(()).unwrap();
    let done = service.asker.ask_pool("orders", "resize", Value::Null, WAIT).unwrap();
    assert!(done.is_good(), "{done:?}");
    // What expired while it was outside the pool is refused, once it gets there.
    let end = Instant::now() + WAIT;
    while service.guard.command_counts().expired == 0 {
        assert!(Instant::now() < end, "{:?}", service.guard.command_counts());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(service.guard.shutdown(WAIT).commands.again, 0);
}

/// The end of a command is posted to the caller; the bus says only that it was accepted, or why it was not posted.
fn callbacks(bus: &Arc<dyn Bus>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let origin = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (post, posted) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let Ok(Some(mut request)) = read_head(&mut reader) else { continue };
            read_body(&mut reader, &mut request).unwrap();
            let status = if request.path() == "/gone" { 410 } else { 200 };
            drop(Response::empty(status).write(reader.get_mut()));
            if post.send(request).is_err() {
                return;
            }
        }
    });
    let allowed = AllowList::default().allow_origin(&origin).unwrap().allow_network("127.0.0.0/8").unwrap();
    let settings = CallbackSettings::new(allowed).sign_with(key());
    let mut service = Service::start(bus, |commands| commands.callbacks(settings));
    let question = |path: &str| {
        let question = Question::new(To::One("orders".to_owned()), "double", json!(21), WAIT);
        question.with_callback(format!("{origin}{path}"))
    };
    let accepted = service.asker.put(&question("/answer")).unwrap();
    assert!(accepted.is_good(), "{accepted:?}");
    assert_eq!(accepted.answers().next().unwrap().answer.outcome, Outcome::Accepted);
    let request = posted.recv_timeout(WAIT).unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["type"], "tallybus.answer");
    assert_eq!((&body["data"]["outcome"], &body["data"]["data"]), (&json!("done"), &json!(42)));
    assert_eq!(body["data"]["answers"], json!(accepted.id));
    assert!(request.header("webhook-id").unwrap().starts_with(&accepted.id));

    let gone = service.asker.put(&question("/gone")).unwrap();
    assert!(gone.is_good(), "{gone:?}");
    posted.recv_timeout(WAIT).unwrap();
    let end = Instant::now() + WAIT;
    while service.guard.command_counts().callbacks_undelivered == 0 {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(10));
    }
    let elsewhere = service.asker.put(&question("").with_callback("https://a.example/")).unwrap();
    assert_eq!(elsewhere.outcome(), AskOutcome::Failed);
    assert_eq!(service.guard.shutdown(WAIT).commands.callbacks_refused, 1);
}

fn embedded(test: impl FnOnce(&Arc<dyn Bus>)) {
    let directory = tempfile::tempdir().unwrap();
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::open(&directory.path().join("bus.db")).unwrap());
    test(&bus);
}

#[test]
fn on_the_embedded_bus_commands_are_answered_or_refused_and_counted() {
    embedded(answers_and_refusals);
}

#[test]
fn on_the_embedded_bus_an_instance_leaves_the_pool_and_comes_back() {
    embedded(drain_and_resume);
}

#[test]
fn on_the_embedded_bus_answers_go_to_a_callback() {
    embedded(callbacks);
}

/// One broker for all of them.
#[test]
fn on_kafka_commands_are_answered_an_instance_leaves_the_pool_and_answers_go_to_a_callback() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let bus: Arc<dyn Bus> = Arc::new(KafkaBus::new(&kafka.bootstrap(), &Default::default()).unwrap());
    answers_and_refusals(&bus);
    drain_and_resume(&bus);
    callbacks(&bus);
}
