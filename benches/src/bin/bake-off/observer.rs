//! The times from emit to queryable, against an observer that has nothing of the comparison: it asks InfluxDB itself, on
//! connections of its own, for the probes' points, each of which has the time at which it was due. And a pause of three
//! seconds, put between worker and backend, which must show in every time that it is in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tallybus_benches::results::median;
use tallybus_tests::{FaultProxy, InfluxServer, Mode};

use crate::comparing::{Workplace, sinks};
use crate::servers::{Servers, influx};

const POLL_EVERY: Duration = Duration::from_millis(5);
/// How long the writes of a moment are held back.
const STALL: Duration = Duration::from_secs(3);
/// After the first probe was seen.
const STALL_AFTER: Duration = Duration::from_secs(5);
/// How long writes that come are held back: a worker with few events writes once a second.
const STALL_FOR: Duration = Duration::from_millis(1_200);
/// Digits of a point's time that InfluxDB's sink uses for the batch's slot.
const SLOT: f64 = 0.001;

/// What the observer saw.
struct Seen {
    /// From when each probe was due until the answer that first had it; sorted, in seconds.
    times: Vec<f64>,
    /// Until the start of the last query that did not have it: it took at least so long. Sorted, in seconds.
    least: Vec<f64>,
    /// From the start of one query to the answer of the next: the median, in seconds.
    resolution: f64,
}

impl Seen {
    /// What this share of the probes did not exceed: at least, and at most.
    fn quantile(&self, share: f64) -> (f64, f64) {
        let reached = (0..self.times.len()).find(|at| (at + 1) as f64 >= share * self.times.len() as f64);
        reached.map_or((f64::INFINITY, f64::INFINITY), |at| (self.least[at], self.times[at]))
    }
}

/// Compares the reported times with the observer's, without and with a pause.
///
/// # Errors
/// They are further apart than the resolutions, or the pause does not show.
pub(super) fn agrees(place: &Workplace, servers: &Servers) -> Result<()> {
    measure(place, servers, "undisturbed", false)?;
    let (p99, max) = measure(place, servers, "paused", true)?;
    ensure!(p99 >= 0.9 * STALL.as_secs_f64() && max >= STALL.as_secs_f64(), "a pause of {STALL:?} does not show");
    Ok(())
}

/// Reported p99 and maximum.
fn measure(place: &Workplace, servers: &Servers, name: &str, stalls: bool) -> Result<(f64, f64)> {
    let proxy = FaultProxy::start(&servers.influx.url())?;
    servers.influx.create_database(name)?;
    let mut sink = influx(&proxy.url(), name);
    // Each probe is a point of its own, with its own time.
    sink["window"] = json!("0s");
    let is_over = AtomicBool::new(false);
    let (result, seen) = std::thread::scope(|scope| {
        let observing = scope.spawn(|| observe(&servers.influx, &is_over, stalls.then_some(&proxy)));
        let more = ["--rounds", "3", "--asks", "1", "--probe-time", "30s", "--no-control", "--last", "20000"];
        let result = place.compare(name, &json!({ "probed": sink }), &more);
        is_over.store(true, Ordering::Release);
        (result, observing.join())
    });
    let (result, seen) = (result?, seen.map_err(|_| anyhow::anyhow!("the observer ended early"))??);
    let reported = &sinks(&result).next().context("no sink")?["latency"]["value"];
    let figure = |key: &str| reported[key].as_f64().with_context(|| format!("no {key} was reported: {reported}"));
    let count = seen.times.len();
    ensure!(reported["n"].as_u64() == Some(count as u64), "{} probes reported, {count} seen", reported["n"]);
    let resolution = figure("resolution")?;
    println!(
        "{name}: {} probes; resolution {:.1} ms reported, {:.1} ms of the observer",
        seen.times.len(),
        resolution * 1e3,
        seen.resolution * 1e3
    );
    for (key, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
        let (theirs, (least, most)) = (figure(key)?, seen.quantile(share));
        println!(
            "{name}: {key}: {:.1} ms reported, {:.1} to {:.1} ms by the observer",
            theirs * 1e3,
            least * 1e3,
            most * 1e3
        );
        // Times are kept with three significant digits.
        let digits = SLOT + most * 0.001;
        ensure!(theirs >= least - digits, "{name}: {key} is shorter than the observer saw");
        // The resolution is the median of the queries'. The longest times may come from those few that were answered later.
        let is_bounded = key == "p50" || (key != "max" && !stalls);
        ensure!(!is_bounded || theirs <= most + resolution + digits, "{name}: {key} is longer than the observer saw");
    }
    Ok((figure("p99")?, figure("max")?))
}

/// Asks for the probes until the comparison is over; holds back writes once, when there is a proxy to do it.
fn observe(server: &InfluxServer, is_over: &AtomicBool, stall: Option<&FaultProxy>) -> Result<Seen> {
    let mut first_seen: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
    let mut asked_before = 0;
    let (mut intervals, mut last): (Vec<f64>, Option<Instant>) = (Vec::new(), None);
    let (mut began, mut stalled): (Option<Instant>, Option<Instant>) = (None, None);
    while !is_over.load(Ordering::Acquire) {
        let (asked, asked_at) = (Instant::now(), wall()?);
        for database in shadows(server)? {
            // The database may be removed in between: then it has no probes.
            let Ok(answer) = server.query(&database, r#"SELECT "value" FROM "tallybus.probe""#) else { continue };
            let answered = wall()?;
            for due in points(&answer)? {
                let since = |at: i64| (at - due) as f64 / 1e9;
                first_seen.entry(due).or_insert((since(asked_before).max(0.0), since(answered)));
            }
        }
        asked_before = asked_at;
        if !first_seen.is_empty() {
            let began = *began.get_or_insert(asked);
            intervals.extend(last.map(|last| last.elapsed().as_secs_f64()));
            last = Some(asked);
            match (stall, stalled) {
                (Some(proxy), None) if began.elapsed() >= STALL_AFTER => {
                    proxy.set(Mode::DelayPath("/write", STALL));
                    stalled = Some(Instant::now());
                }
                (Some(proxy), Some(since)) if since.elapsed() >= STALL_FOR => proxy.set(Mode::Pass),
                _ => {}
            }
        }
        std::thread::sleep(POLL_EVERY.saturating_sub(asked.elapsed()));
    }
    let (mut least, mut times): (Vec<f64>, Vec<f64>) = first_seen.into_values().unzip();
    ensure!(!times.is_empty(), "the observer saw no probe");
    least.sort_by(f64::total_cmp);
    times.sort_by(f64::total_cmp);
    Ok(Seen { times, least, resolution: median(intervals) })
}

/// Nanoseconds since the Unix epoch.
fn wall() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// The databases that comparisons have created.
fn shadows(server: &InfluxServer) -> Result<Vec<String>> {
    let names = rows(&server.query("", "SHOW DATABASES")?)?;
    let names = names.iter().filter_map(|row| row[0].as_str());
    Ok(names.filter(|name| name.starts_with("tallybus_compare_")).map(str::to_owned).collect())
}

/// The times of the points of an answer.
fn points(answer: &str) -> Result<Vec<i64>> {
    rows(answer)?.iter().map(|row| row[0].as_i64().context("a point without a time")).collect()
}

fn rows(answer: &str) -> Result<Vec<Value>> {
    let answer: Value = serde_json::from_str(answer)?;
    let series = answer["results"][0]["series"].as_array().cloned().unwrap_or_default();
    Ok(series.iter().flat_map(|series| series["values"].as_array().cloned().unwrap_or_default()).collect())
}
