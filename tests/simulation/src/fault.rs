//! What goes wrong in a life, and when: determined by its seed.

use std::ops::Range;
use std::time::Duration;

use tallybus_bus::sim::{CommitFault, Offsets};
use tallybus_control::DesiredState;
use tallybus_sdk::Rng;

/// Longer than a session.
pub(crate) const SESSION: Duration = Duration::from_secs(7);

/// What the wall clock may show, in seconds after the Unix epoch: 1980 to 2096; the events of a life are of 2023.
const WALL_CLOCKS: Range<u64> = 315_532_800..4_000_000_000;

/// Something that goes wrong. A number chooses the process, sink or partition among those that there are then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A worker is killed without a final commit.
    Kill(u64),
    /// A worker is ended in good order, and another one started later.
    Stop(u64),
    /// Another worker joins.
    Join(u64),
    /// A worker neither runs nor sends heartbeats for so many steps, in which at least so much time passes, and then goes on
    /// as if nothing had happened.
    Freeze(u64, u32, Duration),
    /// A worker runs on, but is cut off from the bus for so many steps.
    CutOff(u64, u32),
    /// The coordinator evicts a worker that lives.
    Evict(u64),
    /// The next commits of a worker go wrong, so many of them.
    Commits(u64, CommitFault, u32),
    /// The bus is unavailable for so many steps.
    BusAway(u32),
    /// A backend is unavailable for so many steps.
    BackendAway(u64, u32),
    /// A backend denies access for so many steps.
    BackendLocked(u64, u32),
    /// Writes are lost, delayed, and answered late or never for so many steps.
    FlakyBackend(u64, u32),
    /// Dead-letter topics refuse every record for so many steps.
    DeadLettersRefused(u32),
    /// The acknowledgements of so many dead letters are lost.
    DeadLettersUnacknowledged(u64),
    /// The window is another one for workers that start from now on.
    OtherWindow(u64),
    /// The limits of batches are other ones for workers that start from now on.
    OtherLimits(u64),
    /// Everything is suspended for so long.
    Jump(Duration),
    /// The wall clock is set to so many seconds after the Unix epoch.
    WallClock(u64),
    /// The bus forgets acknowledged records of a partition that nobody has read yet.
    TailForgotten(u64),
    /// A partition ends with so many offsets that hold no record.
    Markers(u64, u32),
    /// Retention deletes records that every group has settled.
    TrimSettled(u64),
    /// The group is assigned a topic that it did not ask for, for so many steps.
    Misassign(u64, u32),
    /// Retention deletes records that were not settled.
    TrimUnsettled(u64),
    /// The topic is deleted and created again.
    Recreate(Offsets),
    /// Another program sets a group's offset.
    OffsetSet(u64),
    /// The bus forgets a group.
    GroupForgotten(u64),
    /// An operator sets a group's offset to an earlier one, as `tallybus group reset` does.
    OffsetReset(u64),
    /// A backend is replaced by an earlier copy of itself.
    BackupRestored(u64),
    /// A second sink writes to the same destination.
    SecondSink(u64),
    /// An operator wants a worker paused or drained, and resumes it after so many steps.
    Rest(u64, DesiredState, u32),
    /// The same for all workers of a sink, those among them that start meanwhile.
    RestOfSink(u64, DesiredState, u32),
}

impl Fault {
    /// What a halt says that this fault asks for; empty for a fault that heals by itself.
    pub fn halts(&self) -> &'static [&'static str] {
        match self {
            Self::TrimUnsettled(_) => &["are gone from the bus"],
            Self::Recreate(offsets) => match offsets {
                Offsets::Kept => &["was recreated", "was the topic deleted and recreated", "another incarnation"],
                // Whichever a worker notices first: the other incarnation, or that the group's offset went with the old one.
                Offsets::Deleted => {
                    &["was recreated", "another incarnation", "was changed by another program: it is gone"]
                }
            },
            Self::OffsetSet(_) => &["another program has set", "was changed by another program"],
            Self::GroupForgotten(_) => &["the group was deleted", "was changed by another program"],
            Self::OffsetReset(_) => &[
                "is past this group",
                "the group's offsets were reset",
                "was changed by another program",
                "inside batch",
            ],
            Self::BackupRestored(_) => RESTORED,
            Self::SecondSink(_) => &["is claimed by another sink"],
            _ => &[],
        }
    }
}

/// What a halt says of a destination that was restored from a backup.
pub(crate) const RESTORED: &[&str] =
    &["was restored from an older backup", "was restored from a backup", "has lost the claim"];

/// The faults of a life: at which step which.
pub type Plan = Vec<(u32, Fault)>;

/// The plan of a seed for a life of so many steps.
pub(crate) fn plan(rng: &mut Rng, steps: u32) -> Plan {
    // Some lives are hard.
    let count = if rng.below(4) == 0 { 10 + rng.below(30) } else { 2 + rng.below(7) };
    let mut plan: Plan = (0..count).map(|_| (step(rng, steps), passing(rng))).collect();
    // At most one that needs an operator: what it does is then attributed to it.
    if rng.below(2) == 0 {
        plan.push((step(rng, steps), lasting(rng)));
    }
    // Drawn last, so that lives of earlier versions keep their other faults.
    if rng.below(3) == 0 {
        let count = 1 + rng.below(4);
        plan.extend((0..count).map(|_| (step(rng, steps), rest(rng))));
    }
    plan.sort_by_key(|(step, _)| *step);
    plan
}

fn step(rng: &mut Rng, steps: u32) -> u32 {
    small(rng, steps.into())
}

fn small(rng: &mut Rng, bound: u64) -> u32 {
    u32::try_from(rng.below(bound)).unwrap_or(u32::MAX)
}

fn passing(rng: &mut Rng) -> Fault {
    let who = rng.number() >> 32;
    let steps = 5 + small(rng, 60);
    match rng.below(30) {
        0..=3 => Fault::Kill(who),
        4 => Fault::Stop(who),
        5 | 6 => Fault::Join(who),
        7 | 8 => Fault::Freeze(who, steps, silence(rng)),
        9 => Fault::CutOff(who, steps),
        10 => Fault::Evict(who),
        11..=13 => Fault::Commits(who, commit(rng), 1 + small(rng, 3)),
        14 => Fault::BusAway(steps),
        15 => Fault::BackendAway(who, steps),
        16 => Fault::BackendLocked(who, steps),
        17 | 18 => Fault::FlakyBackend(who, steps * 2),
        19 => Fault::DeadLettersRefused(steps * 2),
        20 => Fault::DeadLettersUnacknowledged(1 + rng.below(3)),
        21 => Fault::OtherWindow(who),
        22 => Fault::Jump(Duration::from_secs(1 + rng.below(600))),
        23 => Fault::TrimSettled(who),
        24 => Fault::Misassign(who, steps),
        25 => Fault::OtherLimits(who),
        26 => Fault::WallClock(WALL_CLOCKS.start + rng.below(WALL_CLOCKS.end - WALL_CLOCKS.start)),
        27 => Fault::TailForgotten(who),
        _ => Fault::Markers(who, 1 + small(rng, 3)),
    }
}

fn rest(rng: &mut Rng) -> Fault {
    let who = rng.number() >> 32;
    let state = if rng.below(3) == 0 { DesiredState::Paused } else { DesiredState::Drained };
    let steps = 20 + small(rng, 120);
    if rng.below(2) == 0 { Fault::Rest(who, state, steps) } else { Fault::RestOfSink(who, state, steps) }
}

/// How long a frozen worker is silent for at least: nothing, longer than a session, or minutes.
fn silence(rng: &mut Rng) -> Duration {
    match rng.below(4) {
        0 | 1 => Duration::ZERO,
        2 => SESSION,
        _ => Duration::from_secs(60 + rng.below(900)),
    }
}

fn commit(rng: &mut Rng) -> CommitFault {
    let polls = 1 + small(rng, 8);
    match rng.below(4) {
        0 => CommitFault::LoseTheAnswer,
        1 => CommitFault::Drop,
        2 => CommitFault::AnswerLate(polls),
        _ => CommitFault::MakeLate(polls),
    }
}

fn lasting(rng: &mut Rng) -> Fault {
    let who = rng.number() >> 32;
    match rng.below(9) {
        0 => Fault::TrimUnsettled(who),
        1 => Fault::Recreate(Offsets::Kept),
        2 => Fault::Recreate(Offsets::Deleted),
        3 => Fault::OffsetSet(who),
        4 => Fault::GroupForgotten(who),
        5 | 6 => Fault::BackupRestored(who),
        7 => Fault::OffsetReset(who),
        _ => Fault::SecondSink(who),
    }
}
