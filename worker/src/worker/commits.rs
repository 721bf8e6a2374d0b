//! Sealing and settling: the commits.
//!
//! # Why sealing costs next to nothing
//! A commit takes some 6 ms with a broker's defaults (it gathers commits for 5), and nothing of a batch may be sent before
//! its seal is answered. Three things keep that time from being waited for:
//!
//! - **One commit does everything.** It settles what was written and seals what is closed, of all partitions at once; so there
//!   is a commit each few milliseconds however many batches there are, and never one for a batch alone.
//! - **Sealing runs ahead.** While a commit travels, each lane writes what earlier ones sealed and collects the next batches:
//!   up to [`SEAL_AHEAD`](tallybus_sdk::SEAL_AHEAD) are closed, sealed or being written at a time.
//! - **Nobody looks at a clock.** A batch that is complete ends the poll, an answer and a written batch end the wait for
//!   records; whatever can be committed then is.
//!
//! There is one commit at a time. A second one behind it could be made although the first was given up, and with both under
//! way nobody could tell from what the group holds which batches are sealed.

use std::collections::HashMap;
use std::time::Instant;

use tallybus_bus::{Commit, CommitError, TopicPartition};

use super::{InFlight, READ_BACK_AFTER, Worker, WorkerError};

impl Worker {
    /// One commit for all lanes that have something to say; one at a time.
    pub(super) fn commit(&mut self) -> Result<(), WorkerError> {
        if self.in_flight.is_some() || self.doubtful.is_some() {
            return Ok(());
        }
        let planned: Vec<InFlight> = self
            .lanes
            .iter_mut()
            .filter_map(|lane| lane.plan_commit().map(|commit| InFlight { epoch: lane.epoch, commit, refused: false }))
            .collect();
        if planned.is_empty() {
            return Ok(());
        }
        let commits: Vec<Commit> = planned.iter().map(|in_flight| in_flight.commit.clone()).collect();
        self.in_flight = Some(planned);
        match self.subscriber.commit(&commits) {
            Ok(()) => Ok(()),
            Err(error) if error.is_transient() => {
                self.bus_trouble.note(&error.to_string());
                let unsent = self.in_flight.take().unwrap_or_default();
                self.doubt(unsent);
                Ok(())
            }
            Err(error) => self.rejoin(&error.to_string()),
        }
    }

    pub(super) fn committed(&mut self, answers: Vec<(TopicPartition, Result<(), CommitError>)>) {
        let Some(in_flight) = self.in_flight.take() else { return };
        let mut answers: HashMap<TopicPartition, Result<(), CommitError>> = answers.into_iter().collect();
        let mut doubtful = Vec::new();
        for mut sent in in_flight {
            match answers.remove(&sent.commit.at) {
                Some(Ok(())) => self.commit_made(sent),
                // Refused or unanswered: what the group holds decides. A partition that is lost is announced as such.
                Some(Err(error)) => {
                    self.handle.status.update(|status| status.failed_commits += 1);
                    self.bus_trouble.note(&error.to_string());
                    sent.refused = matches!(error, CommitError::NotOwner(_));
                    doubtful.push(sent);
                }
                None => doubtful.push(sent),
            }
        }
        self.doubt(doubtful);
    }

    pub(super) fn commit_made(&mut self, sent: InFlight) {
        if let Some(slot) = self.lanes.by_epoch(sent.epoch) {
            let writable = slot.lane.commit_made(sent.commit.offset, sent.commit.metadata);
            slot.write_last(writable);
        }
    }

    pub(super) fn doubt(&mut self, commits: Vec<InFlight>) {
        if !commits.is_empty() {
            self.doubtful = Some((Instant::now() + READ_BACK_AFTER, commits));
        }
    }

    /// A commit that was not answered was made or not: the group knows.
    pub(super) fn read_back(&mut self) {
        if self.doubtful.as_ref().is_none_or(|(at, _)| Instant::now() < *at) {
            return;
        }
        let Some((_, doubtful)) = self.doubtful.take() else { return };
        let partitions: Vec<TopicPartition> = doubtful.iter().map(|sent| sent.commit.at.clone()).collect();
        let held = match self.subscriber.committed(&partitions) {
            Ok(held) if held.len() == doubtful.len() => held,
            Ok(_) => return self.doubt(doubtful),
            Err(error) => {
                self.bus_trouble.note(&error.to_string());
                return self.doubt(doubtful);
            }
        };
        for (sent, held) in doubtful.into_iter().zip(held) {
            let Some(slot) = self.lanes.by_epoch(sent.epoch) else { continue };
            let made = held
                .as_ref()
                .is_some_and(|held| held.offset == sent.commit.offset && held.metadata == sent.commit.metadata);
            if made {
                self.commit_made(sent);
                continue;
            }
            let unchanged = held.as_ref() == slot.lane.committed_before();
            if unchanged {
                slot.lane.commit_not_made();
                continue;
            }
            // Somebody else committed: the partition is theirs, whatever this member believes.
            let at = slot.lane.at.clone();
            if sent.refused {
                // The bus announces the loss, or makes this member join anew.
                tracing::warn!(sink = self.options.sink, partition = %at, "another worker has gone on with the partition");
                self.drop_lane(&at);
                continue;
            }
            self.stop_lane(
                &at,
                format!("the group's offset for {at} was changed by somebody else; restart this worker"),
            );
        }
    }
}
