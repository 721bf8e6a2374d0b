use tallybus_schemas::checkpoint::{Checkpoint, DoubtKind, End, Mark};

use super::{CLOCK_ALLOWANCE, Known, Presence, Producer, SinkSettled, Word};

/// The most producers that hold a watermark back which are named.
const MAX_NAMED: usize = 20;

/// Up to which time a sink has everything.
#[derive(Debug, Clone)]
pub struct Watermark {
    /// The sink.
    pub sink: String,
    /// Every event that is dated before this time is in the backend or a dead letter: nanoseconds since the Unix epoch. `None`: it
    /// is not known.
    pub before: Option<i64>,
    /// The producers by which it is not later, the lowest first; at most twenty.
    pub held_by: Vec<Holder>,
    /// How many there are.
    pub holders: usize,
    /// The producers that publish to the sink's topics and count, dismissed ones left out.
    pub producers: usize,
    /// Records on the sink's dead-letter topic: settled, and not in the backend. Some may have been replayed since.
    pub dead_letters: u64,
    /// Messages on the bus that no checkpoint covers yet: of producers that are between two checkpoints, or of programs that write
    /// none.
    pub beyond_checkpoints: u64,
}

/// A producer that holds a watermark back.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Its id.
    pub producer: String,
    /// Its service; empty where its record is not understood.
    pub service: String,
    /// Which of the service's processes.
    pub instance: String,
    /// Whether it still counts.
    pub presence: Presence,
    /// Everything of it that is dated before this is in; `None`: nothing is known.
    pub before: Option<i64>,
    /// Why it is no more.
    pub cause: Cause,
}

/// Why a producer holds a watermark back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Its last checkpoint goes no further; the next one will.
    Checkpoint,
    /// It writes no checkpoints any more, and has not said that it ends.
    Silent,
    /// It ended with counts that are not on the bus.
    Incomplete,
    /// The sink has not settled what the checkpoint covers.
    Behind {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// What the group has settled; `None` when it never committed there.
        settled: Option<u64>,
        /// What it has to settle.
        needed: u64,
    },
    /// The offsets of the checkpoint and those of the sink are of different incarnations of the topic, or it is not known of which.
    Stream {
        /// The topic.
        topic: String,
    },
    /// Something of it may be missing for ever.
    Doubt {
        /// What happened.
        kind: DoubtKind,
        /// The sum of the counts concerned, where it is known.
        value: u64,
    },
    /// Its record is not understood.
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// The watermark of a sink. `read_at`: the reader's clock **before** the topic of the producers was read, in nanoseconds since the
/// Unix epoch; a producer that is not among `known` had published nothing by then.
pub fn watermark(known: &Known, sink: &SinkSettled, read_at: i64) -> Watermark {
    let allowance = i64::try_from(CLOCK_ALLOWANCE.as_nanos()).unwrap_or(i64::MAX);
    let latest = read_at.saturating_sub(allowance);
    let now_ms = read_at / 1_000_000;
    let (mut holders, mut producers, mut heard) = (Vec::new(), 0, 0);
    for (id, producer) in known.producers() {
        let presence = producer.presence(now_ms);
        let checkpoint = producer.checkpoint();
        if checkpoint.is_some_and(|checkpoint| !sink.topics.contains(&checkpoint.topic)) {
            continue;
        }
        heard += usize::from(checkpoint.is_some());
        if presence == Presence::Dismissed {
            continue;
        }
        producers += 1;
        let Some((before, cause)) = bound(producer, presence, sink) else { continue };
        if before.is_some_and(|before| before >= latest) {
            continue;
        }
        holders.push(Holder {
            producer: id.to_owned(),
            service: checkpoint.map(|checkpoint| checkpoint.service.clone()).unwrap_or_default(),
            instance: checkpoint.map(|checkpoint| checkpoint.instance.clone()).unwrap_or_default(),
            presence,
            before,
            cause,
        });
    }
    holders.sort_by(|one, other| (one.before, &one.producer).cmp(&(other.before, &other.producer)));
    let before = match holders.first() {
        Some(lowest) => lowest.before,
        // No producer has ever said anything: nothing is known.
        None if heard == 0 => None,
        None => Some(latest),
    };
    let count = holders.len();
    holders.truncate(MAX_NAMED);
    Watermark {
        sink: sink.name.clone(),
        before,
        held_by: holders,
        holders: count,
        producers,
        dead_letters: sink.dead_letters,
        beyond_checkpoints: beyond_checkpoints(known, sink),
    }
}

/// Up to which time everything of a producer is in, and why not further; `None` when nothing of it is open.
fn bound(producer: &Producer, presence: Presence, sink: &SinkSettled) -> Option<(Option<i64>, Cause)> {
    let checkpoint = match producer.word.as_ref()? {
        Word::Checkpoint(checkpoint) => checkpoint,
        Word::Unreadable(reason) => return Some((None, Cause::Unreadable { reason: reason.clone() })),
    };
    let unsettled: Vec<Option<Cause>> = checkpoint.marks.iter().map(|mark| unsettled(checkpoint, mark, sink)).collect();
    let reached = unsettled.iter().position(Option::is_none);
    let before = reached.and_then(|at| checkpoint.marks.get(at)).map(|mark| mark.before);
    // What may be missing for ever comes before what will come.
    if let Some(doubt) = producer.open_doubts().min_by_key(|doubt| doubt.since)
        && before.is_none_or(|before| doubt.since <= before)
    {
        let since = before.map(|before| before.min(doubt.since)).filter(|since| *since > i64::MIN);
        return Some((since, Cause::Doubt { kind: doubt.kind, value: doubt.value }));
    }
    if let Some(Some(cause)) = unsettled.first() {
        // A group without an offset, or of another incarnation of the topic: what it has written, and of what, is not known.
        let is_unknown = matches!(cause, Cause::Behind { settled: None, .. } | Cause::Stream { .. });
        return Some((before.filter(|_| !is_unknown), cause.clone()));
    }
    match (checkpoint.end, presence) {
        (Some(End::Complete), _) if before.is_some() => None,
        (Some(End::Incomplete), _) => Some((before, Cause::Incomplete)),
        (_, Presence::Silent) => Some((before, Cause::Silent)),
        _ => Some((before, Cause::Checkpoint)),
    }
}

/// Why a sink has not settled what a mark covers; `None` when it has.
fn unsettled(checkpoint: &Checkpoint, mark: &Mark, sink: &SinkSettled) -> Option<Cause> {
    let topic = &checkpoint.topic;
    let covered = (0u32..).zip(&mark.ends).filter(|(_, end)| **end > 0);
    for (partition, needed) in covered {
        let Some(settled) = sink.settled.get(&(topic.clone(), partition)) else {
            return Some(Cause::Behind { topic: topic.clone(), partition, settled: None, needed: *needed });
        };
        if checkpoint.stream.is_none() || settled.stream != checkpoint.stream {
            return Some(Cause::Stream { topic: topic.clone() });
        }
        if settled.offset < *needed {
            let settled = Some(settled.offset);
            return Some(Cause::Behind { topic: topic.clone(), partition, settled, needed: *needed });
        }
    }
    None
}

fn beyond_checkpoints(known: &Known, sink: &SinkSettled) -> u64 {
    let mut beyond = 0;
    for (topic, ends) in &sink.ends {
        let mut covered = vec![0; ends.len()];
        let of_topic = known.producers().filter_map(|(_, producer)| producer.checkpoint());
        for checkpoint in of_topic.filter(|checkpoint| checkpoint.topic == *topic) {
            for (covered, end) in covered.iter_mut().zip(checkpoint.marks.first().iter().flat_map(|mark| &mark.ends)) {
                *covered = (*covered).max(*end);
            }
        }
        beyond += ends.iter().zip(covered).map(|(end, covered)| end.saturating_sub(covered)).sum::<u64>();
    }
    beyond
}
