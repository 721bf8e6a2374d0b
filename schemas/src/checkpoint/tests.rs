use super::*;

fn checkpoint() -> Checkpoint {
    Checkpoint {
        producer: "0123456789abcdef0123456789abcdef".to_owned(),
        number: 7,
        service: "api".to_owned(),
        instance: "api-1".to_owned(),
        host: "host".to_owned(),
        pid: 42,
        version: "1.0.0".to_owned(),
        topic: "tallybus.counters".to_owned(),
        stream: Some("kafka:a:b".to_owned()),
        started: 1,
        time: 100,
        interval_ms: 10_000,
        marks: vec![
            Mark { before: 90, ends: vec![100, 0, 7] },
            Mark { before: 80, ends: vec![90, 0, 7] },
            Mark { before: 1, ends: vec![0, 0, 0] },
        ],
        doubts: vec![Doubt { kind: DoubtKind::InDoubt, since: 85, number: 7, value: 3 }],
        end: Some(End::Complete),
        emitted: 10,
        delivered: 7,
        unknown: 3,
        messages: 4,
        give_backs: 1,
        series: 5,
        overflowed: 0,
        previous: Some((50, 5)),
    }
}

#[test]
fn a_checkpoint_is_read_back_as_written_and_offsets_are_written_once() {
    let written = checkpoint().encode().unwrap();
    assert_eq!(Checkpoint::decode(&written).unwrap(), checkpoint());
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains(r#""marks":[[90,[100,0,7]],[80,[10,0,0]],[1,[90,0,7]]]"#), "{text}");
    let none = Checkpoint { stream: None, doubts: vec![], end: None, previous: None, marks: vec![], ..checkpoint() };
    assert_eq!(Checkpoint::decode(&none.encode().unwrap()).unwrap(), none);
}

#[test]
fn an_older_mark_that_knew_fewer_partitions_has_none_of_the_others() {
    let marks = vec![Mark { before: 9, ends: vec![4, 5] }, Mark { before: 8, ends: vec![3] }];
    let written = Checkpoint { marks, ..checkpoint() }.encode().unwrap();
    assert_eq!(Checkpoint::decode(&written).unwrap().marks[1].ends, [3, 0]);
}

#[test]
fn what_contradicts_itself_is_no_checkpoint() {
    let text = String::from_utf8(checkpoint().encode().unwrap()).unwrap();
    for (from, to) in [
        ("[80,[10,0,0]]", "[80,[101,0,0]]"),
        ("[80,[10,0,0]]", "[90,[10,0,0]]"),
        ("[80,[10,0,0]]", "[80,[10,0,0,1]]"),
        ("[80,[10,0,0]]", "[80,[-1,0,0]]"),
        ("0123456789abcdef", "0123456789ABCDEF"),
        (r#""number":7,"service""#, r#""number":0,"service""#),
        (r#""number":7,"value""#, r#""number":8,"value""#),
        ("api-1", &"x".repeat(300)),
    ] {
        let changed = text.replacen(from, to, 1);
        assert!(matches!(Checkpoint::decode(changed.as_bytes()), Err(CheckpointError::Form(_))), "{to}");
    }
    for payload in [b"".as_slice(), b"{}", b"[[[", b"\xff"] {
        assert!(matches!(Checkpoint::decode(payload), Err(CheckpointError::Form(_))));
    }
    assert_eq!(Checkpoint::decode(br#"{"v":2,"else":1}"#), Err(CheckpointError::Version(2)));
}

#[test]
fn keys_tell_checkpoints_dismissals_and_others_apart() {
    let dismissal = Dismissal::new(&checkpoint().producer, 7, 5);
    assert_eq!(Dismissal::decode(&dismissal.encode().unwrap()).unwrap(), dismissal);
    let (id, key) = (checkpoint().producer, dismissal.key());
    assert_eq!(CheckpointKey::parse(id.as_bytes()), Some(CheckpointKey::Checkpoint(&id)));
    assert_eq!(CheckpointKey::parse(key.as_bytes()), Some(CheckpointKey::Dismissal(&id)));
    for other in [b"".as_slice(), b"0123", b"\xff", b"0123456789ABCDEF0123456789ABCDEF", b"/dismissed"] {
        assert_eq!(CheckpointKey::parse(other), None);
    }
}
