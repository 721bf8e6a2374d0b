//! The edges of a process: forks, signals, and an end with counts that were not delivered.
//!
//! Each way is taken by a process of its own, this program run again, because a fork copies only one thread and a signal
//! ends the process.
#![allow(unsafe_code, reason = "`fork` itself, in a process made for it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers")]
#![allow(clippy::print_stdout, reason = "a test with a `main` of its own")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{output_in_time, total_of_file};
use tallybus::{Builder, Connection, Guard, InitError, count};
use tallybus_bus::embedded::EmbeddedBus;

const SOON: Duration = Duration::from_secs(20);
/// What the children of the stress test count each, and how many there are.
const EACH: u64 = 25;
const CHILDREN: u64 = 12;

type Way = (&'static str, fn(&Path), fn(&Path, &Output));

const WAYS: [Way; 9] = [
    ("fork-before-init-doubles-nothing", fork_before_init, |folder, output| {
        assert!(output.status.success(), "{}", stderr(output));
        assert_eq!(total_of_file(&folder.join("bus.db")), 100 + 2, "{}", stderr(output));
    }),
    ("a-forked-child-without-a-collector-says-so-and-ends-at-once", fork_after_init, |folder, output| {
        assert!(output.status.success(), "{}", stderr(output));
        assert_eq!(total_of_file(&folder.join("bus.db")), 100);
        let said = stderr(output);
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("tallybus: ")).collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(lines[0].contains("was forked from one that runs a collector, and has none itself"), "{said}");
        assert!(lines[1].contains("ends with undelivered counts: a sum of 50 is lost"), "{said}");
    }),
    ("a-forked-child-delivers-through-a-collector-of-its-own", fork_and_init, |folder, output| {
        assert!(output.status.success(), "{}", stderr(output));
        assert_eq!((total_of_file(&folder.join("bus.db")), total_of_file(&folder.join("child.db"))), (101, 51));
    }),
    ("forks-while-threads-count-lose-and-double-nothing", fork_while_counting, |folder, output| {
        assert!(output.status.success(), "{}", stderr(output));
        let parent: u64 = stdout(output).trim().parse().unwrap();
        assert_eq!(total_of_file(&folder.join("bus.db")), parent);
        for child in 0..CHILDREN {
            assert_eq!(total_of_file(&folder.join(format!("child{child}.db"))), EACH, "child {child}");
        }
    }),
    (
        "sigterm-delivers-and-ends-the-process",
        |folder| signalled(folder, "TERM"),
        |folder, output| {
            assert_eq!(output.status.signal(), Some(libc::SIGTERM), "{}", stderr(output));
            assert_eq!(total_of_file(&folder.join("bus.db")), 1_000);
        },
    ),
    (
        "sigint-delivers-and-ends-the-process",
        |folder| signalled(folder, "INT"),
        |folder, output| {
            assert_eq!(output.status.signal(), Some(libc::SIGINT), "{}", stderr(output));
            assert_eq!(total_of_file(&folder.join("bus.db")), 1_000);
        },
    ),
    ("a-signal-that-the-program-ignores-stays-ignored", ignored, |folder, output| {
        assert!(output.status.success(), "{}", stderr(output));
        assert_eq!(total_of_file(&folder.join("bus.db")), 7);
    }),
    ("a-signal-to-a-forked-child-is-its-own", signal_to_child, |folder, output| {
        assert!(output.status.success(), "{}", stderr(output));
        assert_eq!(total_of_file(&folder.join("bus.db")), 7);
    }),
    ("undelivered-counts-are-named-at-the-end-without-a-subscriber", undelivered, |_, output| {
        assert!(output.status.success(), "{}", stderr(output));
        let said = stderr(output);
        let line = said.lines().find(|line| line.starts_with("tallybus: the process ends")).unwrap_or_default();
        assert!(
            line.contains("a sum of 8 is lost with it; 3 of it was counted after the collector had stopped"),
            "{said}"
        );
        assert!(line.contains("; last error: ") && line.contains("127.0.0.1:1"), "{said}");
    }),
];

fn main() -> ExitCode {
    if let (Ok(way), Ok(folder)) = (std::env::var("WAY"), std::env::var("FOLDER")) {
        let (_, act, _) = WAYS.into_iter().find(|(name, ..)| *name == way).unwrap();
        act(Path::new(&folder));
        return ExitCode::SUCCESS;
    }
    for (way, _, check) in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let begun = Instant::now();
        // A test run in the background of a shell is started to ignore SIGINT, and would hand that on.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", "--default-signal=TERM"]).arg(program);
        let output = output_in_time(command.env("WAY", way).env("FOLDER", folder.path()));
        check(folder.path(), &output);
        println!("test {way} ... ok ({:.1} s)", begun.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An interval that never comes: only a flush or the end delivers.
fn builder() -> Builder {
    tallybus::builder().service("x").instance("i").flush_interval(Duration::from_secs(3_600)).create_topic(2)
}

fn start(folder: &Path) -> Guard {
    let bus = folder.join("bus.db");
    builder().start(tallybus::connect(&format!("embedded:{}", bus.display())).unwrap()).unwrap()
}

/// A collector on a file that only this process opens.
fn start_own(file: PathBuf) -> Guard {
    builder().start(Connection::from_bus(Box::new(EmbeddedBus::open(&file).unwrap()))).unwrap()
}

fn finish(guard: Guard) {
    let report = guard.shutdown(SOON);
    assert!(report.is_complete(), "{report}");
}

/// Runs `child` in a forked child, which then ends by `exit`.
fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child calls what the collector promises to work after a fork, and then ends.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        child();
        exit(0);
    }
    pid
}

/// Waits for a child, and returns its raw status.
fn wait_for(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` outlives the call, and the child is this process's own.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}

fn send(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}

fn fork_before_init(folder: &Path) {
    (0..100).for_each(|_| count!("before"));
    let act = || {
        let guard = start(folder);
        count!("own");
        finish(guard);
    };
    let child = fork(act);
    act();
    assert_eq!(wait_for(child), 0);
}

fn fork_after_init(folder: &Path) {
    let guard = start(folder);
    (0..100).for_each(|_| count!("counted", by = "parent"));
    let begun = Instant::now();
    let child = fork(|| {
        (0..50).for_each(|_| count!("counted", by = "parent"));
        let bus = format!("embedded:{}", folder.join("bus.db").display());
        let again = builder().start(tallybus::connect(&bus).unwrap());
        assert!(matches!(again, Err(InitError::Forked)), "{again:?}");
        assert!(!guard.flush(SOON));
    });
    assert_eq!(wait_for(child), 0);
    assert!(begun.elapsed() < Duration::from_secs(2), "the child took {:?} to end", begun.elapsed());
    finish(guard);
}

fn fork_and_init(folder: &Path) {
    let guard = start_own(folder.join("bus.db"));
    (0..100).for_each(|_| count!("counted"));
    let child = fork(|| {
        (0..50).for_each(|_| count!("counted"));
        let own = start_own(folder.join("child.db"));
        count!("counted");
        let report = own.shutdown(SOON);
        assert_eq!((report.emitted, report.before_start, report.delivered), (51, 50, 51));
        // The parent's guard, in the child: nothing is left for it.
        assert_eq!(guard.stats().emitted, 0);
    });
    assert_eq!(wait_for(child), 0);
    count!("counted");
    finish(guard);
}

fn fork_while_counting(folder: &Path) {
    let bus = Box::new(EmbeddedBus::open(&folder.join("bus.db")).unwrap());
    let often = builder().flush_interval(Duration::from_millis(10));
    let guard = often.start(Connection::from_bus(bus)).unwrap();
    let stop = AtomicBool::new(false);
    let sum: u64 = thread::scope(|scope| {
        let count = |thread: u64| {
            let mut sum = 0;
            while !stop.load(Ordering::Relaxed) {
                count!("stress", 1, thread = thread, n = sum % 300);
                sum += 1;
            }
            sum
        };
        let threads: Vec<_> = (0..3).map(|thread| scope.spawn(move || count(thread))).collect();
        for number in 0..CHILDREN {
            thread::sleep(Duration::from_millis(15));
            let child = fork(|| {
                // Series that the parent knows, and a new one.
                (0..EACH - 1).for_each(|n| count!("stress", 1, thread = 1, n = n));
                count!("stress.child", 1, number = number);
                finish(start_own(folder.join(format!("child{number}.db"))));
            });
            assert_eq!(wait_for(child), 0);
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    finish(guard);
    println!("{sum}");
}

fn signalled(folder: &Path, signal: &str) {
    let bus = Box::new(EmbeddedBus::open(&folder.join("bus.db")).unwrap());
    let guard = builder().flush_on_signals().start(Connection::from_bus(bus)).unwrap();
    (0..1_000).for_each(|_| count!("counted"));
    send(signal, std::process::id());
    thread::sleep(Duration::from_secs(30));
    drop(guard);
}

fn ignored(folder: &Path) {
    // SAFETY: sets a disposition that needs no handler.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    let bus = Box::new(EmbeddedBus::open(&folder.join("bus.db")).unwrap());
    let guard = builder().flush_on_signals().start(Connection::from_bus(bus)).unwrap();
    send("TERM", std::process::id());
    thread::sleep(Duration::from_millis(200));
    count!("counted", 7);
    finish(guard);
}

fn signal_to_child(folder: &Path) {
    let bus = Box::new(EmbeddedBus::open(&folder.join("bus.db")).unwrap());
    let guard = builder().flush_on_signals().start(Connection::from_bus(bus)).unwrap();
    let child = fork(|| thread::sleep(Duration::from_secs(30)));
    send("TERM", u32::try_from(child).unwrap());
    assert_eq!(wait_for(child), libc::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    count!("counted", 7);
    finish(guard);
}

fn undelivered(_: &Path) {
    let guard = builder().start(tallybus::connect("kafka://127.0.0.1:1").unwrap()).unwrap();
    count!("counted", 5);
    let report = guard.shutdown(Duration::from_millis(1_500));
    assert_eq!((report.emitted, report.undelivered), (5, 5));
    assert!(report.last_error.is_some(), "{report}");
    count!("counted", 3);
}
