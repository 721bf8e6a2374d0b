//! The examples of commands, on both buses; and a pool whose instances are killed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops at the first surprise, in its helpers too, and says what it saw"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallybus::ask::{Asker, Outcome};
use tallybus_tests::{Rng, free_port};

const WAIT: Duration = Duration::from_secs(60);
const REQUEST_REPLY: &str = env!("CARGO_BIN_EXE_request-reply");
const WORKER_POOL: &str = env!("CARGO_BIN_EXE_worker-pool");
const BROADCAST: &str = env!("CARGO_BIN_EXE_broadcast");
const CALLBACK_ONLY: &str = env!("CARGO_BIN_EXE_callback-only");

/// A running example; killed when dropped.
struct Example {
    child: Child,
    lines: Receiver<String>,
    address: String,
}

impl Example {
    fn serve(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.arg("serve").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in output.lines() {
                if line.is_err() || send.send(line.unwrap_or_default()).is_err() {
                    return;
                }
            }
        });
        let address = lines.recv_timeout(WAIT).unwrap();
        Self { child, lines, address }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as an operator does; returns its report.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        let mut last = String::new();
        while let Ok(line) = self.lines.recv_timeout(WAIT) {
            last = line;
        }
        last
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

fn ask(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.arg("ask").args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until so many instances of a service say that they are there.
fn await_instances(bus: &str, service: &str, count: usize) -> Asker {
    let mut asker = Asker::open(tallybus::connect(bus).unwrap()).unwrap();
    let end = Instant::now() + WAIT;
    loop {
        // Before the first one there is no bus to read.
        let found = asker.instances(service).map_or(0, |found| found.len());
        if found == count {
            return asker;
        }
        assert!(Instant::now() < end, "{found} of {count} instances of {service} say that they are there");
        thread::sleep(Duration::from_millis(50));
    }
}

fn request_reply(bus: &str) {
    let service = Example::serve(REQUEST_REPLY, &[bus]);
    await_instances(bus, "shop", 1);
    let known = ask(REQUEST_REPLY, &[bus, "book"]);
    assert!(known.status.success() && said(&known).contains(r#"Done {"cents":1250}"#), "{}", said(&known));
    assert!(said(&known).contains(&service.address));
    let unknown = ask(REQUEST_REPLY, &[bus, "car"]);
    assert!(!unknown.status.success() && said(&unknown).contains("no price for"), "{}", said(&unknown));
    let report = service.end();
    assert!(report.contains("2 commands, 0 tasks, failed 1"), "{report}");
}

fn broadcast(bus: &str) {
    let services = [Example::serve(BROADCAST, &[bus]), Example::serve(BROADCAST, &[bus])];
    await_instances(bus, "cache", 2);
    let cleared = ask(BROADCAST, &[bus]);
    let text = said(&cleared);
    assert!(cleared.status.success(), "{text}");
    for service in &services {
        let pid = service.child.id();
        assert!(text.contains(&format!("{}: Done {{\"cleared\":{pid}}}", service.address)), "{text}");
    }
    for service in services {
        assert!(service.end().contains("1 command, 0 tasks"));
    }
    let nobody = ask(BROADCAST, &[bus]);
    assert!(!nobody.status.success(), "instances that have left are not asked");
}

fn callback_only(bus: &str) {
    let port = free_port().unwrap().to_string();
    let service = Example::serve(CALLBACK_ONLY, &[bus, &port]);
    await_instances(bus, "reports", 1);
    let report = ask(CALLBACK_ONLY, &[bus, &port]);
    assert!(report.status.success(), "{}", said(&report));
    let body: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(body["data"]["data"], json!({ "month": "2026-11", "orders": 1_234 }));
    assert_eq!(body["data"]["addressee"], json!(service.address));
    let other = free_port().unwrap().to_string();
    let refused = ask(CALLBACK_ONLY, &[bus, &other]);
    assert!(!refused.status.success() && said(&refused).contains("not accepted"), "{}", said(&refused));
}

/// An instance that is killed in the middle of a task leaves it to another one, whose answer says so.
fn killed_in_the_middle(bus: &str) {
    let mut pool: Vec<Example> = (0..2).map(|_| Example::serve(WORKER_POOL, &[bus])).collect();
    let mut asker = await_instances(bus, "thumbnails", 2);
    // Until partitions are assigned a task waits on the bus.
    let first = asker.ask_pool("thumbnails", "resize", json!({ "width": 1 }), WAIT).unwrap();
    assert!(first.is_good(), "{first:?}");
    let task = thread::spawn(move || asker.ask_pool("thumbnails", "resize", json!({ "width": 3_000 }), WAIT).unwrap());
    let end = Instant::now() + WAIT;
    let (victim, begun) = 'begun: loop {
        assert!(Instant::now() < end, "the task was not begun");
        for (number, member) in pool.iter().enumerate() {
            let line = member.lines.recv_timeout(Duration::from_millis(20));
            if let Some(line) = line.ok().filter(|line| !line.contains(&first.id)) {
                break 'begun (number, line);
            }
        }
    };
    pool[victim].kill();
    let answers = task.join().unwrap();
    let answer = answers.answers().next().unwrap();
    assert!(answers.is_good() && answer.again, "{answers:?}");
    assert_eq!(answer.answer.addressee, pool[1 - victim].address);
    assert!(begun.contains(&answers.id), "{begun}");
}

/// Instances are killed while tasks are done: each task is done at least once, and where an instance has begun one that another one
/// had begun, its answer says so.
fn pool_under_kills(bus: &str, tasks: usize) {
    let mut pool: Vec<Example> = (0..4).map(|_| Example::serve(WORKER_POOL, &[bus])).collect();
    // The one that was killed before is silent after ten seconds.
    await_instances(bus, "thumbnails", 4);
    let one = ask(WORKER_POOL, &[bus, "80"]);
    assert!(one.status.success() && said(&one).contains(r#"Done {"width":80"#), "{}", said(&one));
    let askers: Vec<_> = (0..4u64)
        .map(|part| {
            let bus = bus.to_owned();
            thread::spawn(move || {
                let mut asker = Asker::open(tallybus::connect(&bus).unwrap()).unwrap();
                let ask = |n: usize| {
                    let arguments = json!({ "width": 10 + (n as u64 * 4 + part) % 20 });
                    asker.ask_pool("thumbnails", "resize", arguments, Duration::from_secs(120)).unwrap()
                };
                (0..tasks / 4).map(ask).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut begun: Vec<String> = Vec::new();
    let (mut rng, mut kills) = (Rng::new(7), 0);
    while askers.iter().any(|asker| !asker.is_finished()) {
        thread::sleep(Duration::from_millis(1_500));
        if kills == 8 {
            continue;
        }
        let victim = usize::try_from(rng.below(4)).unwrap();
        pool[victim].kill();
        kills += 1;
        begun.extend(pool[victim].lines.iter());
        pool[victim] = Example::serve(WORKER_POOL, &[bus]);
    }
    let answers: Vec<_> = askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect();
    assert_eq!(answers.len(), tasks);
    for mut member in pool {
        drop(member.child.stdin.take());
        assert!(member.child.wait().unwrap().success());
        begun.extend(member.lines.iter());
    }
    // What was printed: the id of each task, each time that it was begun, and whether that was said to be again.
    let mut times: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for line in begun.iter().filter_map(|line| line.strip_prefix("resize ")) {
        let (id, which) = line.split_once(' ').unwrap();
        let (first, again) = times.entry(id.to_owned()).or_default();
        *(if which == "again" { again } else { first }) += 1;
    }
    let mut said_again = BTreeSet::new();
    for answers in &answers {
        let answer = answers.answers().next().unwrap_or_else(|| panic!("a task was not done: {answers:?}"));
        assert_eq!(answer.answer.outcome, Outcome::Done, "{answers:?}");
        assert!(times.contains_key(&answers.id), "{} was answered and never begun", answers.id);
        if answer.again {
            said_again.insert(answers.id.clone());
        }
    }
    for (id, (first, _)) in &times {
        assert!(*first <= 1, "task {id} was begun {first} times without saying that it was again");
    }
    let repeated = times.values().filter(|(first, again)| first + again > 1).count();
    println!("{tasks} tasks, {kills} kills, {repeated} begun twice, {} answered as again", said_again.len());
    assert!(kills > 0, "the tasks were done before an instance was killed");
}

#[test]
fn the_examples_run_on_the_embedded_bus_and_a_pool_under_kills_does_each_task() {
    let directory = tempfile::tempdir().unwrap();
    let bus = format!("embedded:{}", directory.path().join("bus.db").display());
    request_reply(&bus);
    broadcast(&bus);
    callback_only(&bus);
    killed_in_the_middle(&bus);
    pool_under_kills(&bus, 400);
}

#[test]
fn the_examples_run_on_kafka_and_a_pool_under_kills_does_each_task() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let bus = format!("kafka://{}", kafka.bootstrap());
    request_reply(&bus);
    broadcast(&bus);
    callback_only(&bus);
    killed_in_the_middle(&bus);
    pool_under_kills(&bus, 400);
}
