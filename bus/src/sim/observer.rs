use super::SimBus;
use super::state::{Log, State};
use crate::{BusError, Committed, Observer, OffsetRange, StreamId, TopicPartition};

pub(super) struct SimObserver {
    bus: SimBus,
}

impl SimObserver {
    pub(super) fn new(bus: SimBus) -> Self {
        Self { bus }
    }

    fn each<Q, T>(
        &self,
        questions: &[Q],
        answer: impl Fn(&State, &Q) -> Result<T, BusError>,
    ) -> Result<Vec<T>, BusError> {
        let state = self.bus.ask()?;
        questions.iter().map(|question| answer(&state, question)).collect()
    }
}

impl Observer for SimObserver {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        self.each(topics, |state, topic| Ok(state.count(topic)))
    }

    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        self.each(topics, |state, topic| Ok(state.topic(topic)?.partitions.iter().map(Log::range).collect()))
    }

    fn offsets_at(&self, topics: &[&str], time_ms: i64) -> Result<Vec<Vec<u64>>, BusError> {
        let find = |log: &Log| {
            let records = log.records.iter().map(Option::as_ref);
            let before = records.take_while(|record| record.is_none_or(|stored| stored.time_ms < time_ms)).count();
            log.first + before as u64
        };
        self.each(topics, |state, topic| Ok(state.topic(topic)?.partitions.iter().map(find).collect()))
    }

    fn committed(&self, of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        self.each(of, |state, (group, topic)| {
            let partitions = (0..).take(state.topic(topic)?.partitions.len());
            let held = state.groups.get(*group).map(|group| &group.committed);
            Ok(partitions
                .map(|partition| held.and_then(|held| held.get(&TopicPartition::new(topic, partition)).cloned()))
                .collect())
        })
    }

    fn groups(&self) -> Result<Vec<String>, BusError> {
        Ok(self.bus.ask()?.groups.keys().cloned().collect())
    }

    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError> {
        self.each(topics, |state, topic| Ok(state.topic(topic)?.stream.clone()))
    }
}
