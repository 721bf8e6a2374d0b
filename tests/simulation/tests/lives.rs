//! Lives of workers: those that failed once, many more, and those of workers that are broken on purpose.
#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops at the first surprise; the numbers are for its reader"
)]

use std::time::Instant;

use tallybus_simulation::{Mutant, Report, live, shrink};

/// How many lives the tests live: some seconds, whatever the profile.
const LIVES: u64 = if cfg!(debug_assertions) { 300 } else { 4_000 };
/// Where they begin: not with the seeds on which mutants are tried.
const FIRST: u64 = 1_000_000;

fn assert_good(report: Report) {
    if report.violations.is_empty() {
        return;
    }
    let Report { seed, plan, violations, .. } = shrink(report);
    panic!("seed {seed} failed: {violations:#?}, with the faults {plan:#?}");
}

#[test]
fn lives_that_failed_once_are_good() {
    let seeds = include_str!("../corpus.txt").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for seed in seeds {
        let seed = seed.trim().parse().unwrap_or_else(|error| panic!("corpus.txt: {seed:?}: {error}"));
        assert_good(live(seed));
        count += 1;
    }
    assert!(count > 0, "corpus.txt holds no seed");
}

#[test]
fn every_life_ends_well_or_halts_as_its_faults_ask_for() {
    let began = Instant::now();
    let (mut steps, mut faults, mut recovered, mut halted, mut drains) = (0, 0, 0, 0, 0);
    for seed in FIRST..FIRST + LIVES {
        let report = live(seed);
        steps += report.steps;
        faults += report.plan.len();
        recovered += report.recovered;
        drains += report.drains;
        halted += u64::from(report.is_halted);
        assert_good(report);
    }
    let took = began.elapsed();
    println!(
        "{LIVES} lives, {steps} steps, {faults} faults, {recovered} recovered batches written, {drains} times a worker was drained, {halted} halted as their faults ask for, in {took:?}"
    );
    assert!(recovered > LIVES, "{recovered} recovered batches in {LIVES} lives");
    assert!(drains > LIVES / 10, "{drains} times a worker was drained in {LIVES} lives");
    assert!(halted > LIVES / 20 && halted < LIVES / 2, "{halted} of {LIVES} lives halted");
}

#[test]
fn a_life_is_its_seed() {
    for seed in 0..10 {
        let (first, second) = (live(seed), live(seed));
        assert_eq!(
            (first.steps, first.events, first.digest),
            (second.steps, second.events, second.digest),
            "seed {seed}"
        );
    }
}

/// Breaks the workers, and asserts that one of the first `within` lives fails, which is good when they are whole.
fn assert_found(mutant: Mutant, within: u64) {
    Mutant::set(Some(mutant));
    let found = (0..within).find(|seed| !live(*seed).violations.is_empty());
    Mutant::set(None);
    match found {
        Some(seed) => {
            println!("{mutant:?} was found by life {} of at most {within}", seed + 1);
            assert_good(live(seed));
        }
        None => panic!("{mutant:?} was not found in {within} lives"),
    }
}

/// A test for each mutant: found within so many lives, several times what it took when this was written.
macro_rules! mutants {
    ($($test:ident: $mutant:ident within $within:literal)*) => {
        $(#[test]
        fn $test() {
            assert_found(Mutant::$mutant, $within);
        })*

        #[test]
        fn every_mutant_has_its_test() {
            assert_eq!(Mutant::ALL, [$(Mutant::$mutant),*]);
        }
    };
}

mutants! {
    a_worker_that_writes_before_the_seal_is_answered_is_found: WriteBeforeTheSealIsAnswered within 60
    a_worker_that_takes_an_unanswered_commit_as_made_is_found: UnansweredMeansMade within 60
    a_worker_that_takes_an_unanswered_commit_as_not_made_is_found: UnansweredMeansNotMade within 600
    a_worker_that_seals_after_a_release_is_found: SealAfterRelease within 60
    a_worker_that_seals_after_an_eviction_is_found: SealAfterEviction within 60
    a_worker_that_leaves_and_unseals_is_found: LeavingUnseals within 40
    a_worker_that_settles_out_of_order_is_found: SettledOutOfOrder within 40
    a_worker_that_does_not_settle_markers_is_found: MarkersAreNotSettled within 200
    a_worker_that_is_drained_before_the_bus_has_shown_it_is_found: DrainedBeforeReadBack within 200
    a_worker_that_seals_after_it_was_drained_is_found: SealsAfterDrain within 100
    a_worker_that_takes_what_it_recovers_as_written_is_found: RecoveredMeansDone within 40
    a_worker_that_cuts_recovered_batches_anew_is_found: BoundariesByTheClock within 40
    a_worker_that_builds_sealed_batches_under_other_settings_is_found: SealedShapeIgnored within 40
    a_worker_that_takes_an_unknown_topic_for_its_first_is_found: UnknownTopicIsIndexZero within 150
    a_worker_that_does_not_check_the_stream_is_found: NoStreamCheck within 60
    a_worker_that_seals_an_unconfirmed_stream_is_found: StreamNotConfirmed within 60
    a_worker_that_takes_a_foreign_commit_is_found: ForeignCommitTaken within 600
    a_worker_that_begins_a_forgotten_group_at_the_start_is_found: ForgottenGroupFromTheStart within 60
    a_worker_that_begins_a_forgotten_group_at_the_end_is_found: ForgottenGroupFromTheEnd within 60
    a_worker_that_reads_no_notes_is_found: NotesNotRead within 600
    a_worker_that_passes_lost_offsets_is_found: LostOffsetsPassed within 100
    a_worker_that_claims_nothing_is_found: ClaimNotTaken within 20
    a_worker_that_claims_after_it_writes_is_found: ClaimTakenAfterTheWrite within 20
    a_worker_that_compares_no_claims_is_found: ClaimsNotCompared within 60
    a_worker_that_takes_a_ledger_ahead_is_found: LedgerAheadTaken within 100
    a_worker_that_takes_a_ledger_behind_is_found: LedgerBehindTaken within 250
    a_sink_that_does_not_notice_a_lost_ledger_is_found: LedgerLossNotNoticed within 250
    a_worker_that_writes_the_right_half_first_is_found: HalvesInTheWrongOrder within 40
    a_worker_that_drops_the_right_half_is_found: RightHalfDropped within 40
    a_worker_that_retries_in_halves_is_found: RetryInHalves within 40
    a_worker_that_retries_without_a_point_is_found: RetryWithoutAPoint within 40
    a_worker_that_settles_before_the_dead_letter_is_published_is_found: SettleBeforeTheDeadLetter within 40
    a_worker_that_drops_dead_letters_is_found: DeadLetterDropped within 20
    a_worker_that_takes_a_refused_dead_letter_as_published_is_found: RefusedDeadLetterIsPublished within 40
}
