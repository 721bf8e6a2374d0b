//! Another process: the test binary, started again as its own test `child_process`.
//!
//! It says one thing per line, led by a mark, because the test runner prints to the same stream; orders come on its
//! standard input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, CommitError, GroupOptions, NewRecord, TopicPartition};

use super::member::{Member, commit};
use super::{PATIENCE, Subject, publish_all};

const START: &str = "TALLYBUS_CONTRACT_CHILD";
const MARK: &str = "@@ ";

/// What a child is to do.
pub struct Start<'a> {
    /// `member` or `publisher`.
    pub role: &'a str,
    pub topic: &'a str,
    /// The group to join, or the publisher's name.
    pub name: &'a str,
    /// How many records to publish.
    pub count: u64,
}

/// A running child; killed when dropped.
pub struct Process {
    child: Child,
    orders: ChildStdin,
    said: Receiver<String>,
}

impl Process {
    pub fn start(subject: &dyn Subject, start: &Start<'_>) -> Self {
        let session_ms = subject.session_timeout().as_millis();
        let Start { role, topic, name, count } = start;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child_process", "--nocapture"])
            .env(START, format!("{role}\t{}\t{topic}\t{name}\t{session_ms}\t{count}", subject.address()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, said) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, words)) = line.split_once(MARK)
                    && tell.send(words.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self { child, orders, said }
    }

    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        self.orders.flush().unwrap();
    }

    /// What it has said since.
    pub fn heard(&self) -> Vec<String> {
        self.said.try_iter().collect()
    }

    /// Waits for a line that begins so; what it said before is lost.
    pub fn expect(&self, beginning: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.said.recv_timeout(left).unwrap_or_else(|_| panic!("the child never said {beginning:?}"));
            if line.starts_with(beginning) {
                return line;
            }
        }
    }

    /// Sends a signal by name: STOP, CONT.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it without goodbye; answers what it had said until then.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut said = Vec::new();
        // The stream ends with the process, so this does too.
        while let Ok(line) = self.said.recv_timeout(PATIENCE) {
            said.push(line);
        }
        said
    }

    pub fn finish(mut self) {
        self.expect("done");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{MARK}{words}").unwrap();
    out.flush().unwrap();
}

/// The child's side.
pub fn run(reopen: fn(&str) -> Box<dyn Bus>) {
    let start = std::env::var(START).expect("started by another test");
    let fields: Vec<&str> = start.split('\t').collect();
    let [role, address, topic, name, session_ms, count] = fields[..] else { panic!("{start:?}") };
    let bus = reopen(address);
    match role {
        "member" => run_member(&*bus, topic, name, Duration::from_millis(session_ms.parse().unwrap())),
        "publisher" => run_publisher(&*bus, topic, name, count.parse().unwrap()),
        _ => panic!("{role:?}"),
    }
}

fn run_publisher(bus: &dyn Bus, topic: &str, name: &str, count: u64) {
    let partitions = bus.observer().unwrap().partitions_of(topic).unwrap().unwrap();
    let payloads: Vec<String> = (0..count).map(|number| format!("{name}:{number}")).collect();
    let mut publisher = bus.publisher().unwrap();
    say("ready");
    for (first, part) in (0u32..).step_by(100).zip(payloads.chunks(100)) {
        let records: Vec<NewRecord<'_>> = (first..)
            .zip(part)
            .map(|(number, payload)| NewRecord {
                topic,
                partition: Some(number % partitions),
                key: Some(name.as_bytes()),
                payload: payload.as_bytes(),
                headers: &[],
            })
            .collect();
        publish_all(&mut *publisher, &records);
        say(&format!("acknowledged {}", first as usize + part.len()));
    }
    say("done");
}

/// Commits after every poll that brought records, and obeys `hold` (stop polling until the next order) and `commit`
/// (try to commit everything it holds).
fn run_member(bus: &dyn Bus, topic: &str, group: &str, session_timeout: Duration) {
    let options = GroupOptions::default().with_session_timeout(session_timeout).with_client_id("child");
    let mut member = Member::join_bus(bus, group, &[topic], &options);
    member.max = 20;
    let (tell, orders) = channel();
    thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let (mut events, mut lost) = (0, 0);
    loop {
        let order = orders.try_recv().unwrap_or_default();
        if order == "hold" {
            say("holding");
            let next = orders.recv().unwrap();
            assert_eq!(next, "commit");
            try_commit(&mut member);
        }
        let before = member.records.len();
        member.step();
        for (at, offset, _) in &member.records[before..] {
            say(&format!("got {} {offset}", at.partition));
        }
        if member.records.len() > before {
            let owned: Vec<TopicPartition> = member.owned.keys().cloned().collect();
            member.settle(&owned);
        }
        if member.lost.len() > lost {
            lost = member.lost.len();
            say(&format!("lost {lost}"));
        }
        if member.events > events {
            events = member.events;
            say(&format!("owns {}", member.owned.len()));
        }
    }
}

fn try_commit(member: &mut Member) {
    for (at, next) in member.owned.clone() {
        let answers = member.subscriber.state().compare_and_set_now(&[commit(&at, next, "late")], PATIENCE);
        let word = match &answers[..] {
            [(_, Ok(()))] => "ok",
            [(_, Err(CommitError::NotOwner(_)))] => "not-owner",
            [(_, Err(CommitError::Unanswered(_)))] => "unanswered",
            _ => "nonsense",
        };
        say(&format!("commit {} {word}", at.partition));
    }
}
