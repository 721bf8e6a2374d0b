use super::*;

#[test]
fn a_requested_wait_lengthens_the_backoff_and_never_shortens_it() {
    let backoff = || Backoff::new(Duration::from_millis(100), Duration::from_secs(5), 7);
    let waits = |requested: Option<Duration>| {
        let mut backoff = backoff();
        (0..6).map(|_| wait_before_retry(&mut backoff, requested)).collect::<Vec<_>>()
    };
    let own = waits(None);
    assert!(own[0] >= Duration::from_millis(100) && own[5] >= Duration::from_millis(3_200), "{own:?}");
    assert_eq!(waits(Some(Duration::ZERO)), own);
    assert_eq!(waits(Some(Duration::from_secs(9))), vec![Duration::from_secs(9); 6]);
    assert_eq!(waits(Some(Duration::from_secs(86_400))), vec![LONGEST_WAIT; 6]);
}
