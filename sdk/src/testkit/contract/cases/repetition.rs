//! Batches that are written more than once, by several workers, and concurrently.

use std::sync::Arc;

use crate::testkit::contract::Backend;
use crate::testkit::contract::batches::{Expected, Maker, SECOND, START, recovered, series, settle_all};
use crate::{Batch, Rng, Sink};

pub async fn a_batch_written_twice_counts_once(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let batch = maker.batch(&[(series("a", &[]), START, 5), (series("a", &[("k", "v")]), START, 7)]);
    for _ in 0..3 {
        // The first attempt of this worker, and further ones after a lost answer.
        settle_all(&*sink, &batch).await;
    }
    for _ in 0..2 {
        settle_all(&*backend.sink(SECOND), &recovered(&batch)).await;
    }
    Expected::of([&batch]).check(&*sink, SECOND).await;
}

pub async fn a_batch_written_by_two_workers_at_once_counts_once(backend: &dyn Backend) {
    let (one, two) = (backend.sink(SECOND), backend.sink(SECOND));
    let mut maker = Maker::new(SECOND, 0);
    let mut all = Vec::new();
    for round in 0..20 {
        let events: Vec<_> = (0..50).map(|n| (series("a", &[("n", &n.to_string())]), START, n + round + 1)).collect();
        let batch = recovered(&maker.batch(&events));
        tokio::join!(settle_all(&*one, &batch), settle_all(&*two, &batch));
        all.push(batch);
    }
    Expected::of(&all).check(&*one, SECOND).await;
}

pub async fn partitions_written_at_once_count_beside_each_other(backend: &dyn Backend) {
    let sink = backend.sink_of(SECOND, &["t0", "t1"]);
    let partitions = (0..2).flat_map(|topic| (0..4).map(move |partition| (topic, partition)));
    let mut tasks = Vec::new();
    for (topic, partition) in partitions {
        let sink: Arc<dyn Sink> = Arc::clone(&sink);
        tasks.push(tokio::spawn(async move {
            let mut maker = Maker::new(SECOND, partition).of_topic(&format!("t{topic}"), topic);
            let mut written = Vec::new();
            for round in 0..8 {
                // The same series and window everywhere: only the batches differ.
                let batch =
                    maker.batch(&[(series("a", &[("k", "v")]), START, 1 + round), (series("b", &[]), START, 1)]);
                settle_all(&*sink, &batch).await;
                written.push(batch);
            }
            written
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a partition"));
    }
    Expected::of(&all).check(&*sink, SECOND).await;
}

/// Replayed dead letters come from one more topic, whose index is the number of the sink's topics; they have the same
/// series, windows and offsets as the other batches and must not collide with them.
pub async fn replayed_dead_letters_count_beside_ordinary_batches(backend: &dyn Backend) {
    for window in [SECOND, 0] {
        let backend = backend.fresh();
        let topics = ["t0", "t1"];
        let mut all = Vec::new();
        let mut makers: Vec<Maker> = (0..2)
            .flat_map(|topic| (0..3).map(move |partition| (topic, partition)))
            .map(|(topic, partition)| Maker::new(window, partition).of_topic(topics[topic as usize], topic))
            .collect();
        makers.push(Maker::new(window, 0).of_topic("tallybus.replay.a", 2));
        for round in 0..6 {
            // Each round uses another worker, which writes the previous round's batches once more before its own.
            let sink = backend.sink_of(window, &topics);
            sink.has_place(2, 0).expect("a place for dead letters");
            for batch in all.iter().rev().take(makers.len()).rev() {
                settle_all(&*sink, &recovered(batch)).await;
            }
            for maker in &mut makers {
                let count = if round == 5 { 40 } else { 1 + round };
                let mut events = Vec::new();
                for n in 0..count {
                    events.push((series("a", &[("k", "v")]), START, 1 + n));
                    events.push((series("b", &[]), START + 1_000 * (n as i64 % 3), 1));
                }
                let batch = maker.batch(&events);
                settle_all(&*sink, &batch).await;
                all.push(batch);
            }
        }
        Expected::of(&all).check(&*backend.sink_of(window, &topics), window).await;
    }
}

pub async fn a_batch_written_before_a_crash_counts_once(backend: &dyn Backend) {
    let mut maker = Maker::new(SECOND, 0);
    let mut all = Vec::new();
    let mut unsettled: Option<Batch> = None;
    for round in 0..6 {
        // Each worker writes the batches that it finds sealed, then two more, and is killed before it settles the
        // second.
        let worker = backend.sink(SECOND);
        if let Some(batch) = unsettled.take() {
            settle_all(&*worker, &recovered(&batch)).await;
        }
        for _ in 0..2 {
            let batch = maker.batch(&[(series("a", &[]), START, 1 << round), (series("b", &[]), START + SECOND, 1)]);
            settle_all(&*worker, &batch).await;
            all.push(batch.clone());
            unsettled = Some(batch);
        }
    }
    Expected::of(&all).check(&*backend.sink(SECOND), SECOND).await;
}

/// Batches of several partitions, written again, out of order between partitions, by workers that come and go.
pub async fn a_long_history_of_workers_and_retries_adds_up(backend: &dyn Backend) {
    let mut rng = Rng::new(0x9E37_79B9_7F4A_7C15);
    let mut random = |bound: u64| rng.below(bound);
    let mut makers: Vec<Maker> = (0..4).map(|partition| Maker::new(SECOND, partition).from(1_000_000)).collect();
    let mut last: Vec<Option<Batch>> = vec![None; 4];
    let mut sink = backend.sink(SECOND);
    let mut all = Vec::new();
    for _ in 0..150 {
        let partition = random(4) as usize;
        match random(10) {
            0 => sink = backend.sink(SECOND),
            1 | 2 => {
                if let Some(batch) = &last[partition] {
                    settle_all(&*sink, &recovered(batch)).await;
                }
            }
            _ => {
                let events: Vec<_> = (0..random(40))
                    .map(|_| {
                        let tag = random(5).to_string();
                        let name = if random(2) == 0 { "a" } else { "b" };
                        (series(name, &[("k", &tag)]), START + random(5) as i64 * SECOND, 1 + random(1_000))
                    })
                    .collect();
                let batch = makers[partition].batch(&events);
                settle_all(&*sink, &batch).await;
                last[partition] = Some(batch.clone());
                all.push(batch);
            }
        }
    }
    Expected::of(&all).check(&*sink, SECOND).await;
}
