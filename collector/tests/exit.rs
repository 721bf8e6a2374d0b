//! Counts are exact however a process ends, short of being killed. This program starts itself once for each way.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test, though it has a `main` of its own"
)]

mod support;

use std::path::Path;
use std::process::{Command, ExitCode, exit};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use support::{output_in_time, total_of_file};
use tallybus::{Connection, Guard, count};
use tallybus_bus::embedded::EmbeddedBus;

const THREADS: u64 = 4;
const EACH: u64 = 10_000;

/// What each way is called, whether it ends well, and what it has counted by then.
const WAYS: [(&str, bool, u64); 8] = [
    ("drop", true, THREADS * EACH),
    ("forget", true, THREADS * EACH),
    ("static", true, THREADS * EACH),
    ("exit", true, THREADS * EACH),
    ("exit-from-thread", true, THREADS * EACH + 1),
    ("panic", false, THREADS * EACH),
    ("late", true, THREADS * EACH + 3),
    ("threads-alive", true, THREADS * EACH + 5),
];

fn main() -> ExitCode {
    if let (Ok(way), Ok(path)) = (std::env::var("WAY"), std::env::var("BUS")) {
        return child(&way, &path);
    }
    for (way, ends_well, expected) in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus.db");
        let program = std::env::current_exe().unwrap();
        let output = output_in_time(Command::new(program).env("WAY", way).env("BUS", &path));
        assert_eq!(output.status.success(), ends_well, "{way}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(total_of_file(&path), expected, "{way}: {}", String::from_utf8_lossy(&output.stderr));
        println!("test {way} ... ok");
    }
    ExitCode::SUCCESS
}

fn child(way: &str, path: &str) -> ExitCode {
    static KEPT: OnceLock<Guard> = OnceLock::new();
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            count!("exits", 3, late = true);
        }
    }
    thread_local! { static LATE: Late = const { Late }; }

    let bus = Box::new(EmbeddedBus::open(Path::new(path)).unwrap());
    // An interval that never comes: only the end delivers.
    let guard = tallybus::builder()
        .flush_interval(Duration::from_secs(3_600))
        .create_topic(3)
        .start(Connection::from_bus(bus))
        .unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| thread::spawn(move || (0..EACH).for_each(|n| count!("exits", thread = thread, n = n % 50))))
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    match way {
        "drop" => drop(guard),
        "forget" => std::mem::forget(guard),
        "static" => KEPT.set(guard).unwrap(),
        "exit" => exit(0),
        "exit-from-thread" => {
            thread::spawn(|| {
                count!("exits");
                exit(0)
            });
            thread::sleep(Duration::from_secs(30));
        }
        "panic" => panic!("on purpose, with the guard on the stack"),
        "late" => {
            LATE.with(|_| ());
            std::mem::forget(guard);
        }
        "threads-alive" => {
            let (tell, told) = std::sync::mpsc::channel();
            thread::spawn(move || {
                count!("exits", 5);
                tell.send(()).unwrap();
                thread::sleep(Duration::from_secs(30));
            });
            told.recv().unwrap();
            std::mem::forget(guard);
        }
        other => panic!("no way is called {other}"),
    }
    ExitCode::SUCCESS
}
