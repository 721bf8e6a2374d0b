//! Services that are asked from the command line.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Place, eventually};
use tallybus::commands::{Commands, Key};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn each_exit_status_says_what_came_of_a_command_to_a_service() {
    let place = Place::with_local();
    std::fs::write(place.file("key"), KEY).unwrap();
    let key = format!("file:{}", place.file("key").display());
    let ctl = |args: &[&str]| place.run(&[&["ctl", "send"], args, &["--key", &key]].concat());
    place.run(&["emit", "hits", "1"]).expect(0);
    let nobody = ctl(&["service/orders", "double", "21"]).expect(3);
    assert!(nobody.out.contains("no instance of service/orders runs"), "{nobody:?}");

    let connection = tallybus::connect(&format!("embedded:{}", place.file("bus.db").display())).unwrap();
    let guard = tallybus::builder().service("orders").start(connection).unwrap();
    let commands = Commands::new()
        .instance("a")
        .key(Key::parse(KEY).unwrap())
        .on("double", |request| request.arguments.as_u64().map(|n| n * 2).ok_or("\u{1b}[31mno number"))
        .on_task("resize", |_| Ok::<_, String>("resized"));
    guard.serve(commands).unwrap();
    eventually("the instance", || ctl(&["service/orders", "double", "1"]).status == 0);

    let done = ctl(&["service/orders", "double", "21"]).expect(0);
    assert_eq!(done.out, "service/orders@a: done 42\ndouble to service/orders: 1 of 1 addressee did it\n");
    let one = ctl(&["service/orders", "double", "21", "--one", "--json"]).expect(0).json();
    assert_eq!((&one["is_good"], &one["addressees"][0]["data"]), (&true.into(), &42.into()));
    let failed = ctl(&["service/orders@a", "double", "null"]).expect(1);
    assert!(failed.out.contains("failed: ") && !failed.out.contains('\u{1b}'), "{failed:?}");
    let unknown = ctl(&["service/orders", "melt"]).expect(1);
    assert!(unknown.out.contains("registered here: double"), "{unknown:?}");
    let silent = ctl(&["service/orders@b", "double", "1", "--wait", "1s"]).expect(3);
    assert!(silent.out.contains("service/orders@b: silent, never seen"), "{silent:?}");
    let unsigned = place.run(&["ctl", "send", "service/orders", "double", "1", "--wait", "1s"]);
    assert_eq!(unsigned.status, 1, "{unsigned:?}");

    eventually("the pool", || ctl(&["service/orders", "resize", "--pool"]).status == 0);
    let drained = ctl(&["service/orders@a", "drain"]).expect(0);
    assert!(drained.out.contains("\"pool\":\"out\""), "{drained:?}");
    let outside = ctl(&["service/orders", "resize", "--pool", "--wait", "1s"]).expect(3);
    assert!(outside.out.contains("service/orders: silent"), "{outside:?}");
    ctl(&["service/orders@a", "double", "1"]).expect(0);
    ctl(&["service/orders@a", "resume"]).expect(0);
    ctl(&["service/orders", "resize", "--pool"]).expect(0);

    for (args, part) in [
        (&["sink/local", "double"][..], "is no service"),
        (&["service/orders@a", "double", "--pool"], "an instance is named already"),
        (&["service/orders", "double", "{"], "expected JSON"),
        (&["service/orders", "double", "--wait", "25h"], "a day at most"),
    ] {
        let wrong = ctl(args).expect(2);
        assert!(wrong.err.contains(part), "{wrong:?}");
    }
    assert!(guard.shutdown(Duration::from_secs(30)).is_complete());
    ctl(&["service/orders", "double", "21"]).expect(3);
}

/// An instance that has taken a command and does not end it.
#[test]
fn a_command_that_is_not_ended_in_time_has_expired() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "1"]).expect(0);
    let bus: std::sync::Arc<dyn tallybus_bus::Bus> =
        std::sync::Arc::new(tallybus_bus::embedded::EmbeddedBus::open(&place.file("bus.db")).unwrap());
    let status = serde_json::json!({ "version": 1, "service": "slow", "instance": "a", "state": "running", "pool": "none",
        "started_ms": 1, "time_ms": 1 });
    for (topic, key, payload) in
        [("tallybus.control", "service/slow/a", status.to_string()), ("tallybus.commands", "seed", "{}".to_owned())]
    {
        bus.create_topic(topic, &tallybus_bus::TopicOptions::new(1)).unwrap();
        let mut publisher = bus.publisher().unwrap();
        let (key, payload) = (Some(key.as_bytes()), payload.as_bytes());
        publisher.publish(tallybus_bus::NewRecord { topic, partition: None, key, payload, headers: &[] }, 0).unwrap();
        let mut deliveries = Vec::new();
        eventually("the record", || {
            publisher.poll(Duration::from_millis(10), &mut deliveries);
            !deliveries.is_empty()
        });
    }
    // Accepts each command, as one for a callback is accepted, and never ends it.
    let accepting = std::thread::spawn({
        let bus = std::sync::Arc::clone(&bus);
        move || accept_one(bus.as_ref())
    });
    let expired = place.run(&["ctl", "send", "service/slow", "anything", "--wait", "5s"]);
    accepting.join().unwrap();
    assert_eq!(expired.status, 4, "{expired:?}");
    assert!(expired.out.contains("accepted, its end is not on the bus"), "{expired:?}");
}

fn accept_one(bus: &dyn tallybus_bus::Bus) {
    let mut reader = bus.reader().unwrap();
    reader.assign("tallybus.commands", &[(0, 1)]).unwrap();
    let mut id = None;
    eventually("a command", || {
        let mut each = |record: tallybus_bus::Record<'_>| {
            id = record.key.map(|key| String::from_utf8_lossy(key).into_owned());
            std::ops::ControlFlow::Break(())
        };
        reader.poll(Duration::from_millis(20), &mut each).unwrap();
        id.is_some()
    });
    let id = id.unwrap();
    let answer = serde_json::json!({ "version": 1, "answers": id, "addressee": "service/slow@a", "process": "p",
        "time_ms": 1, "outcome": "accepted" });
    let key = format!("{id}/service/slow@a");
    let payload = answer.to_string();
    let record = tallybus_bus::NewRecord {
        topic: "tallybus.commands",
        partition: None,
        key: Some(key.as_bytes()),
        payload: payload.as_bytes(),
        headers: &[],
    };
    let mut publisher = bus.publisher().unwrap();
    publisher.publish(record, 0).unwrap();
    let mut deliveries = Vec::new();
    eventually("the answer", || {
        publisher.poll(Duration::from_millis(10), &mut deliveries);
        !deliveries.is_empty()
    });
}
