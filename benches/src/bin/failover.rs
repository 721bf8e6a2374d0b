//! How long a partition stands still when its worker is killed: from SIGKILL to the first new point in the backend, for the
//! slowest of the partitions that the worker had.
//!
//! Counting goes on all the while. In the end everything must be in, once.
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde::Serialize;
use tallybus_benches::drain::broker_with;
use tallybus_benches::live::backend::Backend;
use tallybus_benches::live::clock;
use tallybus_benches::live::load::{Load, Rate};
use tallybus_benches::live::observer::Observer;
use tallybus_benches::live::worker::{self, Settings, Worker};
use tallybus_benches::machine::Machine;
use tallybus_benches::report::Table;
use tallybus_benches::results;
use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{Bus, TopicOptions};
use tallybus_tests::KafkaServer;
use tempfile::TempDir;

const PARTITIONS: u32 = 4;
const ALL: usize = PARTITIONS as usize;
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_millis(100);
/// Longer than any session by default.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long all must have been well before the next worker is killed. Not a multiple of a heartbeat, so that kills come at
/// all times between two.
const QUIET: Duration = Duration::from_millis(2_370);

#[derive(Parser)]
struct Arguments {
    /// Kills in each row.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Only the rows whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Shows the ends of the workers' logs.
    #[arg(long)]
    logs: bool,
    /// A librdkafka property for the workers, as KEY=VALUE; repeatable.
    #[arg(long, value_parser = worker::property)]
    kafka: Vec<(String, String)>,
    /// A short run, for trying: two kills in each row.
    #[arg(long)]
    quick: bool,
    /// Writes the result there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One way to run workers.
struct Row {
    name: &'static str,
    workers: usize,
    /// Whether a worker that was killed is started again at once.
    again: bool,
    broker: Broker,
    kafka: &'static [(&'static str, &'static str)],
}

const ROWS: &[Row] = &[
    Row { name: "two workers", workers: 2, again: false, broker: Broker::Lowered, kafka: &[] },
    Row { name: "alone, started again", workers: 1, again: true, broker: Broker::Lowered, kafka: &[] },
    Row { name: "two workers", workers: 2, again: false, broker: Broker::Default, kafka: &[] },
    Row { name: "alone, started again", workers: 1, again: true, broker: Broker::Default, kafka: &[] },
    Row {
        name: "two workers, librdkafka's session of 45 s",
        workers: 2,
        again: false,
        broker: Broker::Lowered,
        kafka: LONG_SESSION,
    },
];

/// What librdkafka takes if nobody says otherwise.
const LONG_SESSION: &[(&str, &str)] = &[("session.timeout.ms", "45000"), ("heartbeat.interval.ms", "3000")];
/// Kills in a row that takes so long.
const FEW: usize = 2;

/// How short sessions the broker takes.
#[derive(Clone, Copy, PartialEq)]
enum Broker {
    /// `group.min.session.timeout.ms` is low enough for what workers ask for.
    Lowered,
    /// As brokers come: 6 seconds.
    Default,
}

impl Broker {
    fn start(self) -> Result<KafkaServer> {
        let shortest = match self {
            Self::Lowered => "2000",
            Self::Default => "6000",
        };
        broker_with(("group.min.session.timeout.ms", shortest))
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Lowered => "2 s",
            Self::Default => "6 s, the default",
        }
    }
}

#[derive(Serialize)]
struct Measured {
    machine: Machine,
    command: String,
    tables: Vec<Table>,
    rows: Vec<MeasuredRow>,
}

#[derive(Serialize)]
struct MeasuredRow {
    name: &'static str,
    broker: &'static str,
    gaps_ms: Vec<u64>,
    increments: u64,
    points_repeated: u64,
}

fn main() -> Result<()> {
    run(&Arguments::parse())
}

fn run(arguments: &Arguments) -> Result<()> {
    clock::begin();
    let mut measured = Measured {
        machine: Machine::this(),
        command: "cargo xtask bench failover".to_owned(),
        tables: Vec::new(),
        rows: Vec::new(),
    };
    let rounds = if arguments.quick { 2 } else { arguments.rounds };
    let mut broker: Option<(Broker, KafkaServer)> = None;
    let chosen = |row: &&Row| row.name.contains(&arguments.only);
    for (number, row) in ROWS.iter().enumerate().filter(|(_, row)| chosen(row)) {
        let kafka = match broker.take() {
            Some((kind, kafka)) if kind == row.broker => kafka,
            _ => row.broker.start()?,
        };
        let rounds = if row.kafka == LONG_SESSION { FEW } else { rounds };
        let result = Run::start(&kafka, number, row, &arguments.kafka)?.measure(rounds, arguments.logs)?;
        broker = Some((row.broker, kafka));
        let mut sorted = result.gaps_ms.clone();
        sorted.sort_unstable();
        println!("{}: {sorted:?} ms; {} points written again", row.name, result.points_repeated);
        measured.rows.push(result);
    }
    let shown = shown(&measured.rows);
    println!("{}", shown.markdown());
    measured.tables.push(shown);
    match &arguments.json {
        Some(file) => results::write(file, &measured),
        None => Ok(()),
    }
}

fn shown(rows: &[MeasuredRow]) -> Table {
    let columns = ["seconds", "shortest session the broker takes", "kills", "min", "median", "max"];
    let mut shown = Table::new("failover", &columns);
    for row in rows {
        let mut sorted = row.gaps_ms.clone();
        sorted.sort_unstable();
        let seconds = |at: usize| {
            let ms = sorted.get(at).copied().unwrap_or(0);
            format!("{}.{:02}", ms / 1000, ms % 1000 / 10)
        };
        let last = sorted.len().saturating_sub(1);
        let [least, middle, most] = [0, sorted.len() / 2, last].map(seconds);
        shown.row([row.name.to_owned(), row.broker.to_owned(), sorted.len().to_string(), least, middle, most]);
    }
    shown.note =
        "From SIGKILL to the first new point of the slowest partition that the worker had; after the kills every \
                  increment was in, once."
            .to_owned();
    shown
}

/// Workers, and what they work on.
struct Run<'a> {
    row: &'a Row,
    _folder: TempDir,
    workers: Vec<Worker>,
    backend: Backend,
    observer: Option<Observer>,
    /// The partition of each series.
    partitions: HashMap<u32, u32>,
    collector: tallybus::Guard,
    load: Load,
}

impl<'a> Run<'a> {
    fn start(kafka: &KafkaServer, number: usize, row: &'a Row, properties: &[(String, String)]) -> Result<Self> {
        let folder = TempDir::new()?;
        let topic = format!("bench.failover.{number}");
        let bus = KafkaBus::new(&kafka.bootstrap(), &BTreeMap::new())?;
        bus.create_topic(&topic, &TopicOptions::new(PARTITIONS))?;
        let observer = Observer::start(&bus, &topic, PARTITIONS)?;
        let backend = Backend::default();
        let mut workers = Vec::new();
        for door in 0..row.workers {
            let name = format!("worker-{door}");
            let own = |(key, value): &(&str, &str)| ((*key).to_owned(), value.replace("{name}", &name));
            let settings = Settings {
                brokers: kafka.bootstrap(),
                topic: topic.clone(),
                sink: format!("failover{number}"),
                partitions: PARTITIONS,
                url: backend.open(door)?,
                max_delay: MAX_DELAY,
                kafka: row.kafka.iter().map(own).chain(properties.iter().cloned()).collect(),
            };
            workers.push(Worker::start(&name, folder.path(), &settings)?);
        }
        let collector = tallybus::builder().service("failover").instance("bench").topic(&topic);
        let collector =
            collector.flush_interval(FLUSH_INTERVAL).start(tallybus::Connection::from_bus(Box::new(bus)))?;
        let load = Load::start(Rate { per_second: 5_000, threads: 2, series: 32 });
        let partitions = HashMap::new();
        let mut run =
            Self { row, _folder: folder, workers, backend, observer: Some(observer), partitions, collector, load };
        thread::sleep(Duration::from_secs(1));
        run.partitions = run.witnessed()?;
        Ok(run)
    }

    /// Which series stands where.
    fn witnessed(&mut self) -> Result<HashMap<u32, u32>> {
        let sightings = self.observer.take().context("asked once")?.stop()?;
        let each = sightings.iter().flat_map(|seen| seen.sums.iter().map(|(series, _)| (*series, seen.partition)));
        Ok(each.collect())
    }

    fn measure(mut self, rounds: usize, logs: bool) -> Result<MeasuredRow> {
        let mut gaps_ms = Vec::new();
        for round in 0..rounds {
            self.wait_until_well().context("before a kill")?;
            thread::sleep(QUIET + Duration::from_millis(u64::try_from(round * 83 % 500)?));
            let victim = round % self.workers.len();
            let gap = self.kill(victim)?;
            gaps_ms.push(gap);
        }
        if logs {
            println!("{}", self.log_tails());
        }
        let Self { workers, backend, collector, load, row, .. } = self;
        let emitted: u64 = load.stop()?.iter().map(|(_, times)| times.len() as u64).sum();
        let report = collector.shutdown(Duration::from_secs(10));
        ensure!(report.is_complete(), "the collector did not deliver everything: {report}");
        let until = Instant::now() + PATIENCE;
        while backend.book().total < emitted && Instant::now() < until {
            thread::sleep(Duration::from_millis(100));
        }
        drop(workers);
        let book = backend.book();
        ensure!(
            book.total == emitted && book.changed == 0,
            "{} of {emitted} increments are in, {} points were overwritten",
            book.total,
            book.changed
        );
        Ok(MeasuredRow {
            name: row.name,
            broker: row.broker.describe(),
            gaps_ms,
            increments: emitted,
            points_repeated: book.repeated,
        })
    }

    /// Kills a worker and answers for how many milliseconds its partitions stood still, at most.
    fn kill(&mut self, victim: usize) -> Result<u64> {
        let owned: Vec<u32> = self.owners().into_iter().filter(|(_, door)| *door == victim).map(|(at, _)| at).collect();
        ensure!(!owned.is_empty(), "worker {victim} has no partition");
        let killed = clock::now();
        self.workers[victim].kill()?;
        if self.row.again {
            self.workers[victim].spawn()?;
        }
        let until = Instant::now() + PATIENCE;
        let first = loop {
            // What had reached the backend before its worker died is no new point.
            let first = self.first_after(killed + 5_000_000);
            if owned.iter().all(|at| first.contains_key(at)) {
                break owned.iter().filter_map(|at| first.get(at)).max().copied().unwrap_or(killed);
            }
            if Instant::now() > until {
                bail!("partitions {owned:?} stood still for {PATIENCE:?}\n{}", self.log_tails());
            }
            thread::sleep(Duration::from_millis(5));
        };
        if !self.row.again {
            self.workers[victim].spawn()?;
        }
        Ok((first - killed) / 1_000_000)
    }

    /// When each partition had its first new point after a moment.
    fn first_after(&self, moment: u64) -> BTreeMap<u32, u64> {
        let mut first = BTreeMap::new();
        for write in self.backend.book().writes.iter().rev().take_while(|write| write.answered > moment) {
            for at in write.added.iter().filter_map(|(series, _)| self.partitions.get(series)) {
                first.insert(*at, write.answered);
            }
        }
        first
    }

    /// Which worker has written each partition last, of those written within the last second.
    fn owners(&self) -> BTreeMap<u32, usize> {
        let recent = clock::now().saturating_sub(1_000_000_000);
        let mut owners = BTreeMap::new();
        for write in self.backend.book().writes.iter().rev().take_while(|write| write.answered > recent) {
            for at in write.added.iter().filter_map(|(series, _)| self.partitions.get(series)) {
                owners.entry(*at).or_insert(write.door);
            }
        }
        owners
    }

    /// Waits until every partition is written, and every worker has its share.
    fn wait_until_well(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let owners = self.owners();
            let all = owners.len() == ALL;
            let shares = (0..self.workers.len())
                .all(|door| owners.values().filter(|owner| **owner == door).count() == ALL / self.workers.len());
            if all && shares {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("partitions are owned like this: {owners:?}\n{}", self.log_tails());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn log_tails(&self) -> String {
        self.workers.iter().map(Worker::log_tail).collect::<Vec<_>>().join("\n--\n")
    }
}
