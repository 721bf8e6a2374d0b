//! The HTTP sink through the real binary, with workers that are killed: exactly once where the server honours the key, at least
//! once where it does not.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::Place;
use serde_json::{Value, json};
use tallybus_tests::Receiver;

#[test]
fn killed_workers_lose_nothing_and_count_once_where_the_key_is_honoured() {
    let (keyed, plain) = (Receiver::start().unwrap(), Receiver::start().unwrap());
    keyed.ask_for_token("the token");
    keyed.ask_for_signature("the secret");
    plain.ignore_keys();
    // Long enough that many a worker dies between the server's doing and its answer.
    for receiver in [&keyed, &plain] {
        receiver.set_pause(Duration::from_millis(20));
    }
    let place = Place::with_settings(&format!(
        "[sinks.keyed]\nkind = \"http\"\nurl = \"{keyed}/write\"\nread_url = \"{keyed}/rows\"\nidempotent = true\n\
         headers = {{ Authorization = \"Bearer file:token\" }}\ncompression = \"gzip\"\n\
         hmac = {{ header = \"X-Signature\", secret = \"file:secret\", signs = \"key.body\", prefix = \"sha256=\" }}\n\
         batch = {{ max_delay = \"5ms\", max_events = 50 }}\n\
         [sinks.plain]\nkind = \"http\"\nformat = \"ndjson\"\nurl = \"{plain}/write\"\nread_url = \"{plain}/rows\"\n\
         batch = {{ max_delay = \"5ms\", max_events = 50 }}\n",
        keyed = keyed.url(),
        plain = plain.url(),
    ));
    place.write("token", "the token\n");
    place.write("secret", "the secret\n");

    place.run(&["topic", "create"]).expect(0);
    let doctor = place.run(&["doctor"]).expect(0);
    assert!(doctor.out.contains("ok    sink keyed: http, exactly once"), "{}", doctor.out);
    assert!(doctor.out.contains("ok    sink plain: http, at least once"), "{}", doctor.out);

    let mut emitted = 0;
    for round in 0..8_u64 {
        // A message each, so that there are many batches to die in.
        let event = |n: u64| format!(r#"{{"name":"hits","value":{},"tags":{{"route":"/{}"}}}}"#, n % 5 + 1, n % 17);
        let events: Vec<String> = (0..1_500).map(event).collect();
        let payloads: Vec<&[u8]> = events.iter().map(String::as_bytes).collect();
        place.publish(0, &payloads);
        emitted += 300 * (1 + 2 + 3 + 4 + 5);
        let mut worker = place.spawn(&mut place.command(&["run"]));
        // The moment of the kill is what is tested.
        std::thread::sleep(Duration::from_millis(150 + 37 * round));
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(keyed.total(), emitted);
    assert!(plain.total() >= emitted, "{} of {emitted}", plain.total());
    let (taken, known) = keyed.writes();
    println!("keyed: {taken} batches, {known} of them sent again; plain: {} of {emitted}", plain.total());

    let audit = place.run(&["audit", "--json", "--sink", "keyed"]).expect(0).json();
    assert_eq!((&audit["equal"], &audit["sinks"][0]["total"]), (&json!(true), &json!(emitted)));
    let audit: Value = place.run(&["audit", "--json", "--sink", "plain"]).json();
    assert_eq!(audit["sinks"][0]["missing"], 0);
}

#[test]
fn a_wrong_token_halts_until_it_is_right() {
    let receiver = Receiver::start().unwrap();
    receiver.ask_for_token("the token");
    let place = Place::with_settings(&format!(
        "[sinks.web]\nkind = \"http\"\nurl = \"{url}/write\"\nread_url = \"{url}/rows\"\nidempotent = true\n\
         headers = {{ Authorization = \"Bearer file:token\" }}\n",
        url = receiver.url(),
    ));
    place.write("token", "wrong-secret\n");
    place.run(&["topic", "create"]).expect(0);
    place.run(&["emit", "hits", "5"]).expect(0);
    let doctor = place.run(&["doctor"]).expect(1);
    assert!(doctor.out.contains("FAIL  sink web") && doctor.out.contains("401"), "{}", doctor.out);
    assert!(!doctor.out.contains("wrong-secret") && !doctor.err.contains("wrong-secret"));
    let ran = place.run(&["run", "--until-caught-up"]);
    assert!(ran.status != 0 && !ran.err.contains("wrong-secret"), "{ran:#?}");
    assert_eq!(receiver.total(), 0);
    place.write("token", "the token\n");
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(receiver.total(), 5);
}
