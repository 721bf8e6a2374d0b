//! JSON lines: one file for each batch, in a directory.
//!
//! # Why a batch written twice counts once
//! A file's name follows from its batch alone, and a batch always has the same content. A file is written aside and linked under its
//! name in one step that fails if the name is taken. So a batch is in the directory whole or not at all, and never twice. A file that
//! is there already with other content is another batch's of the same name (the topic was recreated): the sink halts.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tallybus_sdk::config::ConfigTable;
use tallybus_sdk::{
    Batch, BuildSink, DeliveryGuarantee, Encoded, Fault, Held, Kind, ReadBack, Rejection, Series, Setting, Sink, SinkError,
    VisitHeld, WindowTotal, WindowsQuery, WriteOutcome,
};

/// The row of this kind in a table of kinds.
pub const KIND: Kind = Kind {
    name: "jsonlines",
    summary: "JSON lines: a file per batch in a directory",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "a file's name follows from its batch, and a file is never overwritten",
    settings: &[Setting { key: "directory", default: None, help: "where the files are written; must exist" }],
    parse,
    questions: &[],
    storage: None,
    shadow: None,
};

fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let directory = PathBuf::from(section.required_string("directory")?);
    Some(Box::new(move |_context| Ok(Arc::new(JsonLines { directory: directory.clone() }))))
}

/// One point, as a line.
#[derive(Serialize, Deserialize)]
struct Line {
    name: String,
    tags: Vec<(String, String)>,
    time: i64,
    value: u64,
}

struct JsonLines {
    directory: PathBuf,
}

impl JsonLines {
    fn fault(&self, error: &std::io::Error) -> Fault {
        let reason = format!("{}: {error}", self.directory.display());
        match error.kind() {
            // A directory that is missing may be on a disk that is not mounted yet.
            ErrorKind::PermissionDenied | ErrorKind::NotADirectory => Fault::operator(reason),
            _ => Fault::retry(reason),
        }
    }

    /// Links the finished file under its name; the name is never taken twice.
    fn publish(&self, batch: &Batch, bytes: &[u8]) -> Result<(), Fault> {
        let path = self.directory.join(batch.key().replace('/', "_") + ".jsonl");
        let aside = path.with_extension(format!("{:?}.partial", std::thread::current().id()));
        let write = |aside: &Path| {
            let mut file = fs::File::create(aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::hard_link(aside, &path)
        };
        let written = write(&aside);
        // What is left of a failed try is no batch: only `.jsonl` files are read.
        let _removed = fs::remove_file(&aside);
        match written {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let held = fs::read(&path).map_err(|error| self.fault(&error))?;
                if held == bytes {
                    return Ok(());
                }
                Err(Fault::operator(format!(
                    "{} holds another batch of this name: was the topic recreated? Nothing was written; name a new directory to \
                     count from here",
                    path.display()
                )))
            }
            written => written.map_err(|error| self.fault(&error)),
        }
    }

    fn visit(&self, visit: &mut dyn FnMut(Line)) -> Result<(), SinkError> {
        for file in fs::read_dir(&self.directory).map_err(|error| self.fault(&error))? {
            let path = file.map_err(|error| self.fault(&error))?.path();
            if path.extension().is_none_or(|extension| extension != "jsonl") {
                continue;
            }
            for line in fs::read_to_string(&path).map_err(|error| self.fault(&error))?.lines() {
                let line = serde_json::from_str(line).map_err(|error| {
                    SinkError::Halt(format!("{}: not a line of this sink: {error}", path.display()))
                })?;
                visit(line);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for JsonLines {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    async fn check(&self) -> Result<(), SinkError> {
        match fs::metadata(&self.directory) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(SinkError::Halt(format!("{} is not a directory", self.directory.display()))),
            Err(error) => Err(self.fault(&error).into()),
        }
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let mut text = String::new();
        let mut rejected = Vec::new();
        for (index, point) in batch.points.iter().enumerate() {
            let series = batch.series.get(point.series);
            let tags = series.tags().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let line = Line { name: series.name().to_owned(), tags, time: point.time, value: point.value };
            match serde_json::to_string(&line) {
                Ok(line) => text.extend([line.as_str(), "\n"]),
                Err(error) => rejected.push(Rejection { point: index, reason: error.to_string() }),
            }
        }
        Encoded::bytes(text, rejected)
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        if encoded.is_nothing() {
            return WriteOutcome::Done;
        }
        match encoded.as_bytes() {
            Ok(bytes) => self.publish(batch, bytes).into(),
            Err(error) => Fault::from(error).into(),
        }
    }
}

#[async_trait]
impl ReadBack for JsonLines {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        self.visit(&mut |line| {
            if query.range.contains(line.time) {
                let series = Arc::new(series_of(&line));
                visit(Held::Window(WindowTotal { series, start: line.time, total: line.value.into() }));
            }
        })
    }
}

fn series_of(line: &Line) -> Series {
    let tags: Vec<(&str, &str)> = line.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Series::from_sorted(&line.name, &tags)
}
