//! The result of a comparison: what `tallybus compare run` writes, and everything else is drawn from.

use serde::{Deserialize, Serialize};

use super::rank::{Noise, Ranking};
use super::sink_result::SinkResult;
use super::{Known, Total};

/// The version of the format. Another number is written when a reader of the present one would misread it.
pub const SCHEMA_VERSION: u32 = 1;
/// What the file says that it is.
pub const RESULT_KIND: &str = "tallybus.compare";

/// The result of a comparison. Times are in seconds, sizes in bytes, unless a name says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareResult {
    /// [`RESULT_KIND`].
    pub kind: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When it began: RFC 3339.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// What the figures were measured with.
    pub environment: Environment,
    /// How it was measured.
    pub method: Method,
    /// What was written.
    pub workload: Workload,
    /// The sinks, in the order of the command line or the settings; the control comes after the sink that it repeats.
    pub sinks: Vec<SinkResult>,
    /// What the control differs by from the sink that it repeats: differences up to this are not told apart.
    pub noise: Vec<Noise>,
    /// The order of the sinks by what was measured; only of those that hold exactly what they must.
    pub rankings: Vec<Ranking>,
    /// The progress of the sinks while probes were sent.
    pub timeline: Vec<Sample>,
    /// Further notes, for people.
    pub notes: Vec<String>,
}

/// Programs and the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The version of Tallybus.
    pub tallybus: String,
    /// The host's name.
    pub host: Known<String>,
    /// The operating system with its version.
    pub system: Known<String>,
    /// The processor.
    pub cpu: Known<String>,
    /// How many processors this process may use.
    pub cpus: Known<u64>,
    /// The machine's memory.
    pub memory: Known<u64>,
}

/// Which destinations were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Destinations of the comparison's own, made and removed by it, from a copy of the stream.
    Shadow,
    /// The running workers, on the live stream.
    Live,
}

/// How it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Which destinations were measured.
    pub mode: Mode,
    /// The seed of the intervals.
    pub seed: u64,
    /// A hash of the settings that the figures depend on; secrets are not part of it. Results of equal fingerprints were measured
    /// alike.
    pub fingerprint: String,
    /// How many rounds count.
    pub rounds: u64,
    /// How many rounds came before them and are left out of every figure.
    pub warm_up_rounds: u64,
    /// The order of the sinks in each round, the warm-up first.
    pub order: Vec<Vec<String>>,
    /// How often each question was asked.
    pub asked: u64,
    /// How the probes were sent.
    pub probes: Known<ProbeMethod>,
}

/// How the probes were sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeMethod {
    /// The name of their counter.
    pub series: String,
    /// How many were due per second.
    pub rate: f64,
    /// For how long.
    pub seconds: f64,
    /// How many were sent, each once.
    pub sent: u64,
    /// How many of them were sent more than one interval after they were due. Their times count from when they were due.
    pub late: u64,
    /// The longest that one of them was late.
    pub latest: f64,
    /// How many events per second were replayed beside them; 0 without.
    pub background_rate: f64,
    /// How many were in fact.
    pub background_reached: Known<f64>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The bus that the records came from.
    pub bus: String,
    /// Which offsets.
    pub spans: Vec<Span>,
    /// How many records.
    pub messages: u64,
    /// How many bytes they have: keys and payloads.
    pub bytes: Known<u64>,
    /// How many events are in them.
    pub events: u64,
    /// The sum of their values.
    pub total: Total,
    /// How many series.
    pub series: Known<u64>,
    /// Records, or lines of one, that cannot be decoded; every sink makes dead letters of them.
    pub undecodable: u64,
    /// The time of the oldest event: RFC 3339.
    pub oldest: Known<String>,
    /// The time of the newest event: RFC 3339.
    pub newest: Known<String>,
}

/// Offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Which topic.
    pub topic: String,
    /// Which partition.
    pub partition: u32,
    /// The first offset.
    pub first: u64,
    /// One past the last offset.
    pub end: u64,
}

/// How far a sink had come at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the probes began.
    pub seconds: f64,
    /// Which sink.
    pub sink: String,
    /// Messages settled since the probes began.
    pub settled: Known<u64>,
    /// Messages on the bus that are not settled.
    pub lag: Known<u64>,
    /// Probes visible in the backend.
    pub visible: Known<u64>,
}

/// Why a file is not a result that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// It is not JSON, or a field is missing or has another type.
    #[error("not a result of `tallybus compare run`: {0}")]
    Json(#[from] serde_json::Error),
    /// It is the result of something else.
    #[error("not a result of `tallybus compare run`: its kind is not {RESULT_KIND:?}")]
    Kind,
    /// It has another format.
    #[error("this result has schema version {0}, and this version of tallybus reads {SCHEMA_VERSION}")]
    Schema(u64),
}

impl CompareResult {
    /// Reads a result that was written as JSON.
    ///
    /// # Errors
    /// It is not one, or of another schema version.
    pub fn from_json(text: &str) -> Result<Self, ResultError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        if value["kind"] != RESULT_KIND {
            return Err(ResultError::Kind);
        }
        match value["schema_version"].as_u64() {
            Some(version) if version == u64::from(SCHEMA_VERSION) => Ok(serde_json::from_value(value)?),
            Some(version) => Err(ResultError::Schema(version)),
            None => Err(ResultError::Kind),
        }
    }

    /// Whether every sink holds exactly what it must.
    pub fn all_equal(&self) -> bool {
        self.sinks.iter().all(SinkResult::is_complete)
    }

    /// The sink of this name.
    pub fn sink(&self, name: &str) -> Option<&SinkResult> {
        self.sinks.iter().find(|sink| sink.name == name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result() -> CompareResult {
        let environment = Environment {
            tallybus: "1.2.3".to_owned(),
            host: Known::Is("h".to_owned()),
            system: Known::unknown("not a Linux"),
            cpu: Known::unknown("no /proc/cpuinfo"),
            cpus: Known::Is(2),
            memory: Known::unknown("no /proc/meminfo"),
        };
        let method = Method {
            mode: Mode::Shadow,
            seed: 7,
            fingerprint: "f".to_owned(),
            rounds: 5,
            warm_up_rounds: 1,
            order: vec![vec!["a".to_owned()]],
            asked: 3,
            probes: Known::unknown("--probe-time 0"),
        };
        let workload = Workload {
            bus: "b".to_owned(),
            spans: vec![Span { topic: "t".to_owned(), partition: 0, first: 1, end: 2 }],
            messages: 1,
            bytes: Known::Is(2),
            events: 3,
            total: Total(u128::MAX),
            series: Known::Is(4),
            undecodable: 0,
            oldest: Known::unknown("no events"),
            newest: Known::unknown("no events"),
        };
        CompareResult {
            kind: RESULT_KIND.to_owned(),
            schema_version: SCHEMA_VERSION,
            started: "2026-01-01T00:00:00Z".to_owned(),
            seconds: 1.5,
            environment,
            method,
            workload,
            sinks: Vec::new(),
            noise: Vec::new(),
            rankings: Vec::new(),
            timeline: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_result_is_read_back_as_it_was_written() {
        let result = result();
        let text = serde_json::to_string(&result).unwrap();
        assert_eq!(CompareResult::from_json(&text).unwrap(), result);
    }

    #[test]
    fn another_file_or_another_schema_version_is_an_error_that_says_so() {
        let error = |value: serde_json::Value| CompareResult::from_json(&value.to_string()).unwrap_err().to_string();
        let mut written = serde_json::to_value(result()).unwrap();
        written["schema_version"] = json!(2);
        let said = error(written.clone());
        assert!(said.contains("schema version 2") && said.contains("reads 1"), "{said}");
        written["kind"] = json!("something else");
        assert!(error(written).contains(RESULT_KIND));
        assert!(error(json!({ "kind": RESULT_KIND, "schema_version": 1 })).contains("missing field"));
        assert!(error(json!([])).contains(RESULT_KIND));
    }
}
