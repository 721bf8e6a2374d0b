//! The Compose file.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::{COMPOSE, is_a_command, load, repository, sinks_of, succeed, texts};

fn keys(table: &Value) -> BTreeSet<String> {
    table.as_object().map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

/// The names that a service has under a key: a list of names or of tables, or a table.
fn names(list: &Value, key: &str) -> BTreeSet<String> {
    match list {
        Value::Array(items) => items.iter().map(|item| item[key].as_str().unwrap().to_owned()).collect(),
        other => keys(other),
    }
}

/// The model, as the reference implementation of the specification reads it.
fn model() -> Option<Value> {
    let reader = tallybus_tests::fetched(COMPOSE)?;
    let mut command = Command::new(reader);
    command.args(["-format", "json", "compose.yaml"]).current_dir(repository("deploy"));
    Some(serde_json::from_str(&succeed(&mut command)).unwrap())
}

fn settings() -> String {
    std::fs::read_to_string(repository("deploy/compose/tallybus.toml")).unwrap()
}

#[test]
fn services_refer_to_what_is_there() {
    let Some(model) = model() else { return };
    let services = model["services"].as_object().unwrap();
    let (mut secrets, mut volumes, mut networks) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (name, service) in services {
        secrets.extend(names(&service["secrets"], "source"));
        networks.extend(keys(&service["networks"]));
        for volume in service["volumes"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let source = volume["source"].as_str().unwrap();
            match volume["type"].as_str().unwrap() {
                "volume" => drop(volumes.insert(source.to_owned())),
                _ => assert!(repository(source).exists(), "{name}: {source} is not there"),
            }
        }
        for other in keys(&service["depends_on"]) {
            assert!(services.contains_key(&other), "{name} waits for {other}, which is not there");
            let comes = match service["depends_on"][&other]["condition"].as_str() {
                Some("service_healthy") => services[&other]["healthcheck"]["test"].is_array(),
                Some("service_completed_successfully") => services[&other]["restart"] == "no",
                _ => false,
            };
            assert!(comes, "{name} waits for {other} to be what it never says");
        }
        let image = service["image"].as_str().unwrap();
        assert!(image.contains(':') && !image.ends_with(":latest"), "{name}: {image} may be any version");
        for port in service["ports"].as_array().map(Vec::as_slice).unwrap_or_default() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name} is open to the network");
        }
    }
    assert_eq!(secrets, keys(&model["secrets"]));
    assert_eq!(volumes, keys(&model["volumes"]));
    assert_eq!(networks, keys(&model["networks"]));
    let script = std::fs::read_to_string(repository("deploy/compose/make-secrets.sh")).unwrap();
    for secret in secrets {
        assert!(script.contains(&secret), "make-secrets.sh does not make {secret}");
    }
    assert_eq!(services["kafka"]["image"], "apache/kafka:4.1.0", "the version that the tests run against");
}

#[test]
fn every_container_of_ours_is_confined_and_runs_a_real_command() {
    let Some(model) = model() else { return };
    let ours =
        model["services"].as_object().unwrap().iter().filter(|(_, service)| service["image"] == "tallybus:local");
    let mut count = 0;
    for (name, service) in ours {
        count += 1;
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["user"], "65532:65532", "{name}");
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(texts(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        let mut args = texts(&service["entrypoint"]);
        args.extend(texts(&service["command"]));
        let args: Vec<String> = args.into_iter().filter(|arg| arg != "tallybus").collect();
        is_a_command(&args);
        let is_worker = args[0] == "run";
        assert_eq!(service["restart"], if is_worker { "unless-stopped" } else { "no" }, "{name}");
        assert_eq!(service["healthcheck"]["disable"] == true, !is_worker, "{name}");
    }
    assert!(count >= 4);
}

#[test]
fn each_sink_has_a_worker_that_has_its_secrets_and_no_others() {
    let Some(model) = model() else { return };
    let settings = settings();
    let mut worked = BTreeSet::new();
    for (name, service) in model["services"].as_object().unwrap() {
        let command = texts(&service["command"]);
        let secrets: Vec<String> = names(&service["secrets"], "source").into_iter().collect();
        let sink = command.iter().position(|arg| arg == "--sink").map(|at| command[at + 1].as_str());
        if let Some(sink) = sink {
            load(&settings, "/run/secrets/", &secrets, &[], &[sink]);
            worked.insert(sink.to_owned());
            for secret in &secrets {
                assert!(secret.starts_with(sink), "{name} has {secret}, which is another's");
            }
        }
        if ["doctor", "audit"].contains(&name.as_str()) {
            load(&settings, "/run/secrets/", &secrets, &[], &[]);
        }
    }
    let sinks: BTreeSet<String> = sinks_of(&settings).into_iter().map(str::to_owned).collect();
    assert_eq!(worked, sinks);
}

#[test]
fn secrets_are_made_once() {
    let place = crate::common::Place::new();
    std::fs::copy(repository("deploy/compose/make-secrets.sh"), place.file("make-secrets.sh")).unwrap();
    let make = || succeed(Command::new(place.file("make-secrets.sh")).current_dir("/"));
    let read = || std::fs::read_to_string(place.file("secrets/influx-token")).unwrap();
    make();
    let first = read();
    assert_eq!(first.len(), 48);
    make();
    assert_eq!(first, read());
}
