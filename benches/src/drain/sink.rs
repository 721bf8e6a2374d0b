use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::beside_this_program;
use crate::counting::Stats;
use crate::http;
use crate::process::{self, Cpu};
use crate::workload::{BASE_MS, Workload};

/// A running `counting-sink`. It ends with this process, however that ends: its standard input closes.
#[derive(Debug)]
pub struct SinkProcess {
    child: Child,
    address: String,
}

impl SinkProcess {
    /// Starts one that expects the workload's events.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(workload: &Workload) -> Result<Self> {
        let mut child = Command::new(beside_this_program("counting-sink")?)
            .args(["--events", &workload.events.to_string(), "--base-ms", &BASE_MS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").context("the sink does not say where it listens")?;
        Ok(Self { address: address.to_owned(), child })
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<Cpu> {
        process::cpu_of(self.child.id())
    }

    /// What has come in.
    ///
    /// # Errors
    /// It does not answer.
    pub fn stats(&self) -> Result<Stats> {
        Ok(serde_json::from_str(&http::get(&self.address, "/stats")?)?)
    }
}

impl Drop for SinkProcess {
    fn drop(&mut self) {
        // It is of no more use, and may have ended by itself.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Whether exactly the workload's events came, once each.
///
/// # Errors
/// Says everything that is wrong.
pub(super) fn audit(stats: &Stats, workload: &Workload) -> Result<()> {
    let Stats { lines, distinct, doubled, out_of_range, malformed, broken, sum, .. } = *stats;
    let (events, expected) = (workload.events, workload.sum());
    let missing = events.saturating_sub(distinct);
    ensure!(
        (lines, missing, doubled, out_of_range, malformed, broken, sum) == (events, 0, 0, 0, 0, 0, expected),
        "the drain is wrong: of {events} events {missing} are missing and {doubled} came twice; {out_of_range} lines \
         have a time of no event, {malformed} are malformed, {broken} requests broke off; the sum is {sum} instead of \
         {expected}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Input;

    #[test]
    fn anything_missing_doubled_or_off_fails() {
        let workload = Workload { input: Input::Json, events: 10, series: 2, partitions: 1 };
        let good = Stats { lines: 10, distinct: 10, sum: workload.sum(), ..Stats::default() };
        assert!(audit(&good, &workload).is_ok());
        for bad in [
            Stats { lines: 9, distinct: 9, ..good.clone() },
            Stats { lines: 11, doubled: 1, ..good.clone() },
            Stats { lines: 11, out_of_range: 1, ..good.clone() },
            Stats { lines: 11, malformed: 1, ..good.clone() },
            Stats { broken: 1, ..good.clone() },
            Stats { sum: good.sum - 1, ..good.clone() },
        ] {
            assert!(audit(&bad, &workload).is_err(), "{bad:?}");
        }
    }
}
