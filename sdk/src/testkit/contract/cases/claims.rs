//! The destination's name, and the claims that it holds.

use std::sync::Arc;

use crate::testkit::contract::Backend;
use crate::testkit::contract::batches::{Expected, Maker, SECOND, START, series, settle_all};
use crate::{Claim, Claims, Sink, SinkError};

/// Workers of one sink name the same destination, whatever their topics and windows; another backend is another destination.
/// A sink that holds claims names its destination.
pub async fn a_destination_names_no_secret_and_is_the_same_for_every_worker(backend: &dyn Backend) {
    let name = backend.sink(SECOND).destination();
    for other in [backend.sink(SECOND), backend.sink_of(10 * SECOND, &["t0", "t1"])] {
        assert_eq!(other.destination(), name);
    }
    let locked_out = backend.sink_locked_out(SECOND).destination();
    assert!(locked_out.is_none_or(|name| !name.contains("wrong-secret")));
    let is_named = name.as_ref().is_some_and(|name| !name.is_empty());
    assert!(is_named || backend.sink(SECOND).claims().is_none());
    if name.is_some() {
        assert_ne!(backend.fresh().sink(SECOND).destination(), name);
    }
}

/// An entry is there for every worker once it was added, whatever its text, until it is removed. Adding it twice is adding
/// it once. Neither the counts nor the check notice it.
pub async fn a_claim_is_held_until_it_is_removed_and_changes_no_count(backend: &dyn Backend) {
    let sink = prepared(backend).await;
    let Some(claims) = sink.claims() else { return };
    assert_eq!(claims.entries().await.expect("entries"), [""; 0]);
    let batch = Maker::new(SECOND, 0).batch(&vec![(series("a", &[]), START, 1); 20]);
    settle_all(&*sink, &batch).await;
    let long = format!("{{\"long\":\"{}\"}}", "x".repeat(Claim::MAX_LENGTH - 11));
    assert_eq!(long.len(), Claim::MAX_LENGTH);
    let mut expected = vec![
        r#"{"owner":"tallybus.a","topic":"t","partition":0,"stream":"kafka:c:x"}"#.to_owned(),
        "{\"tags\":{\"a b\":\"'\\\"\\\\\\n,=% \u{fc}\u{1f980}\"}}".to_owned(),
        long,
    ];
    for (place, entry) in expected.iter().enumerate() {
        claims.add(entry).await.expect("add");
        claims.add(entry).await.expect("add again");
        let reader = backend.sink(SECOND);
        assert_eq!(entries(reader.as_ref()).await, sorted(&expected[..=place]));
    }
    Expected::of([&batch]).check(&*backend.sink(SECOND), SECOND).await;
    backend.sink(SECOND).check().await.expect("a check");
    let removed = expected.remove(1);
    let other = backend.sink(SECOND);
    let remover = other.claims().expect("the same kind");
    remover.remove(&removed).await.expect("remove");
    remover.remove(&removed).await.expect("remove again");
    assert_eq!(entries(sink.as_ref()).await, sorted(&expected));
    claims.add(&removed).await.expect("add after it was removed");
    expected.push(removed);
    assert_eq!(entries(sink.as_ref()).await, sorted(&expected));
    backend.set_away(true);
    let (read, added) = (claims.entries().await, claims.add(&expected[0]).await);
    backend.set_away(false);
    assert!(
        read.is_ok() || matches!(read, Err(SinkError::Unavailable(_))),
        "an unavailable backend says nothing about its claims: {read:?}"
    );
    assert!(added.is_ok() || matches!(added, Err(SinkError::Unavailable(_))), "{added:?}");
    assert_eq!(entries(sink.as_ref()).await, sorted(&expected));
    Expected::of([&batch]).check(&*backend.sink(SECOND), SECOND).await;
}

/// A claim is made before the first batch: reading and adding one creates what the settings allow to be created.
pub async fn a_claim_is_held_before_anything_is_written(backend: &dyn Backend) {
    let sink = prepared(backend).await;
    let Some(claims) = sink.claims() else { return };
    let fresh = backend.fresh();
    let unprepared = fresh.sink(SECOND);
    let before = unprepared.claims().expect("the same kind").entries().await;
    assert!(
        matches!(&before, Ok(entries) if entries.is_empty()) || matches!(before, Err(SinkError::Halt(_))),
        "{before:?}"
    );
    claims.add("{}").await.expect("add");
    assert_eq!(entries(backend.sink(SECOND).as_ref()).await, ["{}"]);
    let batch = Maker::new(SECOND, 0).batch(&vec![(series("a", &[]), START, 1); 3]);
    settle_all(&*sink, &batch).await;
    assert_eq!(entries(backend.sink(SECOND).as_ref()).await, ["{}"]);
    Expected::of([&batch]).check(&*backend.sink(SECOND), SECOND).await;
}

/// A destination either keeps a ledger or holds marks, which rise, change no claim and no count, and are gone with the claim
/// or harmless after it.
pub async fn a_destination_without_a_ledger_holds_the_last_mark_of_each_claim(backend: &dyn Backend) {
    let sink = prepared(backend).await;
    let Some(claims) = sink.claims() else { return };
    let batch = Maker::new(SECOND, 0).batch(&vec![(series("a", &[]), START, 1); 20]);
    settle_all(&*sink, &batch).await;
    let ledger = sink.ledger_end(&batch.id.topic, batch.id.partition).await.expect("the ledger");
    assert_eq!(claims.marks_every().is_some(), ledger.is_none(), "a ledger or marks");
    if ledger.is_some() {
        return;
    }
    assert_eq!(claims.marks().await.expect("marks"), []);
    let (one, other) = (r#"{"owner":"a b","topic":"t\\n\"'","partition":0}"#.to_owned(), "{}".to_owned());
    claims.add(&one).await.expect("add");
    claims.add(&other).await.expect("add");
    for offset in [7, 8, u64::MAX / 2] {
        claims.mark(&one, offset).await.expect("mark");
        claims.mark(&one, offset).await.expect("mark again");
        assert_eq!(marks(backend.sink(SECOND).as_ref()).await, [(one.clone(), offset)]);
    }
    claims.mark(&other, 1).await.expect("mark");
    claims.add(&one).await.expect("add again");
    let expected = [(one.clone(), u64::MAX / 2), (other.clone(), 1)];
    assert_eq!(marks(backend.sink(SECOND).as_ref()).await, expected);
    assert_eq!(entries(backend.sink(SECOND).as_ref()).await, sorted(&[one, other]));
    Expected::of([&batch]).check(&*backend.sink(SECOND), SECOND).await;
    backend.sink(SECOND).check().await.expect("a check");
    backend.set_away(true);
    let (read, made) = (claims.marks().await, claims.mark("{}", 2).await);
    backend.set_away(false);
    assert!(read.is_ok() || matches!(read, Err(SinkError::Unavailable(_))), "{read:?}");
    assert!(made.is_ok() || matches!(made, Err(SinkError::Unavailable(_))), "{made:?}");
}

async fn marks(sink: &dyn Sink) -> Vec<(String, u64)> {
    let mut marks = sink.claims().expect("the same kind").marks().await.expect("marks");
    marks.sort();
    marks
}

async fn prepared(backend: &dyn Backend) -> Arc<dyn Sink> {
    let sink = backend.sink(SECOND);
    if let Some(admin) = sink.admin() {
        admin.prepare().await.expect("prepare");
    }
    sink
}

async fn entries(sink: &dyn Sink) -> Vec<String> {
    let claims: &dyn Claims = sink.claims().expect("the same kind");
    sorted(&claims.entries().await.expect("entries"))
}

fn sorted(entries: &[String]) -> Vec<String> {
    let mut sorted = entries.to_vec();
    sorted.sort();
    sorted
}
