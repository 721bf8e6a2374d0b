//! Destinations that `tallybus compare` creates and removes.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::testkit::contract::Backend;
use crate::testkit::contract::ask::Ask as _;
use crate::testkit::contract::batches::{Expected, Maker, SECOND, START, series, settle_all};
use crate::{ShadowName, SinkError};

/// A name that no other case of this process has.
fn name() -> ShadowName {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("{:04x}{:04}", std::process::id() & 0xffff, COUNT.fetch_add(1, Ordering::Relaxed) % 10_000);
    ShadowName::new(&id).expect("eight digits")
}

pub async fn a_shadow_is_created_written_read_and_removed(backend: &dyn Backend) {
    let name = name();
    let Some(shadow) = backend.shadow(SECOND, &name) else { return };
    let own = backend.sink(SECOND);
    let event = |value| (series("a", &[("k", "v")]), START, value);
    let kept = Maker::new(SECOND, 0).batch(&[event(5)]);
    settle_all(&*own, &kept).await;
    assert_ne!(shadow.destination(), own.destination());
    assert!(shadow.destination().is_some_and(|text| text.contains(name.as_str())), "{:?}", shadow.destination());
    shadow.prepare().await.expect("it is created");
    Expected::default().check(&*shadow, SECOND).await;
    let batch = Maker::new(SECOND, 0).batch(&[event(7), (series("b", &[]), START, 1)]);
    settle_all(&*shadow, &batch).await;
    Expected::of([&batch]).check(&*shadow, SECOND).await;
    Expected::of([&kept]).check(&*own, SECOND).await;
    let admin = shadow.admin().expect("what creates and removes it");
    admin.remove_shadow().await.expect("it is removed");
    admin.remove_shadow().await.expect("nothing is left to remove");
    let again = backend.shadow(SECOND, &name).expect("the same once more");
    again.prepare().await.expect("it is created again");
    Expected::default().check(&*again, SECOND).await;
    again.admin().expect("what removes it").remove_shadow().await.expect("it is removed again");
    Expected::of([&kept]).check(&*own, SECOND).await;
}

pub async fn a_destination_that_is_no_shadow_is_not_removed(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let Some(admin) = sink.admin() else { return };
    let batch = Maker::new(SECOND, 0).batch(&[(series("a", &[]), START, 5)]);
    settle_all(&*sink, &batch).await;
    let refused = admin.remove_shadow().await;
    assert!(matches!(&refused, Err(SinkError::Halt(reason)) if reason.contains("removed")), "{refused:?}");
    Expected::of([&batch]).check(&*sink, SECOND).await;
}
