//! Services that count under load, and workers that are killed.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tallybus_tests::{KafkaServer, Rng};

use crate::{Fixture, Process, Tally};

/// A time between two numbers of milliseconds. The same seed gives the same plan.
pub fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + rng.below(to - from))
}

/// Tells whoever runs the test, also when it passes, and as it happens.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "chaos: {line}");
}

/// Of this run: from `TALLYBUS_SEED`, else from the clock.
pub fn seed() -> u64 {
    let given = std::env::var("TALLYBUS_SEED").ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    given.unwrap_or_else(|| u64::try_from(now.as_millis()).unwrap())
}

/// What each service emits.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// How many increments.
    pub increments: u64,
    /// Over how many series of its own.
    pub series: u64,
    /// Within how many seconds.
    pub seconds: u64,
}

impl Load {
    /// Starts one; `program` is the `chaos-service` of this build.
    pub fn start(&self, program: &str, kafka: &KafkaServer, number: u64, seed: u64) -> Process {
        let mut command = Command::new(program);
        command.args(["--bus", &format!("kafka://{}", kafka.bootstrap())]);
        command.args(["--service", &format!("service-{number}")]);
        command.args(["--series", &self.series.to_string(), "--increments", &self.increments.to_string()]);
        command.args(["--seconds", &self.seconds.to_string(), "--seed", &(seed ^ number).to_string()]);
        Process::start({
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            command
        })
    }

    /// What the service itself counted, by series.
    pub fn report(service: &mut Process) -> Tally {
        let mut output = service.child().stdout.take().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).unwrap();
        assert!(service.wait(Duration::from_secs(60)).success(), "the service delivers everything: {text}");
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["undelivered"], 0, "{report}");
        report["series"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(series, total)| (series.clone(), total.as_u64().unwrap()))
            .collect()
    }
}

/// Kills the sink's worker again and again, and lets a second one join and leave meanwhile.
pub fn inject_worker_faults(fixture: &Fixture, sink: &str, kills: u32, mut rng: Rng) {
    let mut worker = fixture.worker(sink, sink);
    let mut second: Option<Process> = None;
    for kill in 0..kills {
        // Some kills hit a worker that is joining, some one that writes.
        let wait = if kill % 4 == 0 { millis(&mut rng, 7_000, 11_000) } else { millis(&mut rng, 50, 5_000) };
        std::thread::sleep(wait);
        assert!(worker.is_alive(), "the {sink} worker ended by itself:\n{}", fixture.log_tail(sink));
        worker.kill();
        worker = fixture.worker(sink, sink);
        if kill % 5 == 2 {
            second = Some(fixture.worker(sink, &format!("{sink}-second")));
        }
        if kill % 5 == 4
            && let Some(mut leaving) = second.take()
        {
            let asked = Instant::now();
            let status = leaving.terminate(Duration::from_secs(30));
            say(&format!("{sink}: {kill} kills, and a second worker left in {:.1} s", asked.elapsed().as_secs_f64()));
            assert!(
                status.success(),
                "the second {sink} worker leaves well:\n{}",
                fixture.log_tail(&format!("{sink}-second"))
            );
        }
    }
    std::thread::sleep(millis(&mut rng, 100, 2_000));
    worker.kill();
}
