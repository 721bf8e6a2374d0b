//! Each role on a real broker with TLS, logins and access control lists, with exactly the rights that `tallybus acl` prints.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Place, Ran};
use serde_json::Value;
use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{Bus, NewRecord};
use tallybus_tests::{Certificates, KafkaAcl, KafkaServer};

const PASSWORD: &str = "correct-horse-battery";
const ROLES: [&str; 6] = ["topics", "producer", "worker", "observer", "replay", "operator"];

/// A broker, and a directory with a settings file for each role, whose user has the role's name.
struct Cluster {
    kafka: KafkaServer,
    place: Place,
}

impl Cluster {
    fn start() -> Option<Self> {
        let certificates = Certificates::make().unwrap();
        let kafka = tallybus_tests::secure_kafka(&certificates, &ROLES.map(|role| (role, PASSWORD)))?;
        let place = Place::new();
        place.write("ca.pem", &String::from_utf8(certificates.authority_pem().unwrap()).unwrap());
        let cluster = Self { kafka, place };
        ROLES.iter().for_each(|role| cluster.write_settings(role, role, "PLAIN", PASSWORD, &cluster.kafka.bootstrap()));
        Some(cluster)
    }

    fn write_settings(&self, file: &str, user: &str, mechanism: &str, password: &str, brokers: &str) {
        let ca = self.place.file("ca.pem");
        let text = format!(
            "[bus]\nkind = \"kafka\"\nbrokers = \"{brokers}\"\npartitions = 2\n[bus.kafka]\n\
             \"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"{mechanism}\"\n\"sasl.username\" = \"{user}\"\n\
             \"sasl.password\" = \"{password}\"\n\"ssl.ca.location\" = \"{}\"\n\
             [control]\nunsigned = true\n[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\nbatch = {{ max_delay = \"50ms\" }}\n",
            ca.display()
        );
        self.place.write(&format!("{file}.toml"), &text);
    }

    fn command(&self, role: &str, args: &[&str]) -> Command {
        let config = format!("{role}.toml");
        self.place.command(&[&["--config", &config], args].concat())
    }

    fn run(&self, role: &str, args: &[&str]) -> Ran {
        let ran = Ran::of(self.command(role, args).output().unwrap());
        assert!(!ran.out.contains(PASSWORD) && !ran.err.contains(PASSWORD), "{ran:#?}");
        ran
    }

    /// What `tallybus acl` prints for a role.
    fn block(&self, role: &str) -> Value {
        let printed = self.run(role, &["acl", "--role", role, "--principal", role, "--json"]).expect(0).json();
        printed["roles"][0].clone()
    }

    fn rights(&self, role: &str) -> Vec<KafkaAcl> {
        let block = self.block(role);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rights = block["rights"].as_array().unwrap().iter().map(|right| KafkaAcl {
            principal: text(&block["principal"]),
            resource: text(&right["resource"]),
            name: text(&right["name"]),
            operation: text(&right["operation"]),
        });
        rights.collect()
    }

    fn grant(&self, role: &str) {
        self.rights(role).iter().for_each(|right| self.kafka.set_right(right, true).unwrap());
    }

    fn doctor(&self, role: &str) -> Ran {
        self.run(role, &["doctor", "--role", role, "--json"])
    }

    /// What doctor finds of the rights of a role, as that role's user.
    fn missing(&self, role: &str) -> (bool, String) {
        let checks = self.doctor(role).json();
        let check = checks["checks"].as_array().unwrap().iter().find(|check| {
            let name = check["check"].as_str().unwrap();
            name.starts_with("rights of") || (name == "bus" && check["ok"] == false)
        });
        let check = check.unwrap_or_else(|| panic!("{role}: {checks}"));
        (check["ok"] == true, check["detail"].as_str().unwrap().to_owned())
    }

    /// Publishes a payload as it is, as another program would.
    fn publish(&self, payload: &[u8]) {
        let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let properties = [
            property("security.protocol", "SASL_SSL"),
            property("sasl.mechanism", "PLAIN"),
            property("sasl.username", "producer"),
            property("sasl.password", PASSWORD),
            property("ssl.ca.location", &self.place.file("ca.pem").display().to_string()),
        ];
        let bus = KafkaBus::new(&self.kafka.bootstrap(), &properties.into_iter().collect()).unwrap();
        let mut publisher = bus.publisher().unwrap();
        let record = NewRecord { topic: "tallybus.counters", partition: Some(0), key: None, payload, headers: &[] };
        let mut deliveries = Vec::new();
        eventually("the topic", || publisher.publish(record, 1).is_ok());
        eventually("the record's delivery", || {
            publisher.poll(Duration::from_millis(100), &mut deliveries);
            !deliveries.is_empty()
        });
        assert!(deliveries[0].outcome.is_ok(), "{deliveries:?}");
    }
}

fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(within_a_minute(holds), "{what} did not come");
}

fn within_a_minute(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    true
}

/// A worker process that runs until it is dropped, and its log.
struct Running {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Running {
    fn start(cluster: &Cluster) -> Self {
        let mut child = cluster.place.spawn(&mut cluster.command("worker", &["run"]));
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where this fails.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn each_role_works_with_its_printed_rights_and_without_any_one_of_them_doctor_names_it_and_a_worker_waits() {
    let Some(cluster) = Cluster::start() else { return };

    // Nothing is granted yet: what a user may not do is said, and for whom.
    let refused = cluster.run("producer", &["emit", "hits", "1", "--deadline", "3s"]).expect(1);
    assert!(refused.err.contains("not delivered"), "{refused:#?}");
    let (_, detail) = cluster.missing("producer");
    assert!(detail.contains("User:producer lacks Write on topic tallybus.counters (counters)"), "{detail}");
    assert!(detail.contains("`tallybus acl --role producer --principal User:producer`"), "{detail}");

    // The printed command is one that Kafka's own tool takes.
    let block = cluster.block("producer");
    for command in block["commands"].as_array().unwrap() {
        let mut words = command.as_str().unwrap().split(' ');
        assert_eq!(words.next(), Some("kafka-acls.sh"));
        cluster.kafka.run_acl_command(&words.collect::<Vec<_>>()).unwrap();
    }

    for role in ["topics", "worker", "observer", "replay", "operator"] {
        cluster.grant(role);
    }
    eventually("the rights of the creator of topics", || cluster.missing("topics").0);
    for right in cluster.rights("topics").iter().filter(|right| right.operation == "Create") {
        let partitions = if right.name == "tallybus.counters" { "2" } else { "1" };
        cluster.run("topics", &["topic", "create", &right.name, "--partitions", partitions]).expect(0);
    }
    for role in ROLES {
        let expected = format!("User:{role} has every right that it needs");
        let mut last = String::new();
        // The broker's coordinator of groups is still loading when it is asked for the first time.
        let good = within_a_minute(|| {
            let doctor = cluster.doctor(role);
            last = format!("{doctor:#?}");
            doctor.status == 0 && doctor.out.contains(&expected)
        });
        assert!(good, "{role}: {last}");
    }

    // Counts go all the way, a record that nobody can decode becomes a dead letter, and the replay sends it back.
    cluster.run("producer", &["emit", "hits", "5"]).expect(0);
    cluster.kafka.add_scram_user("producer", "another-password").unwrap();
    cluster.write_settings("scram", "producer", "SCRAM-SHA-256", "another-password", &cluster.kafka.bootstrap());
    cluster.run("scram", &["emit", "hits", "2"]).expect(0);
    cluster.publish(b"garbage");
    cluster.run("worker", &["run", "--until-caught-up"]).expect(0);
    let audit = cluster.run("observer", &["audit", "--json"]).expect(0).json();
    let total = |audit: &Value| audit["sinks"][0]["total"].clone();
    assert_eq!((total(&audit), &audit["sinks"][0]["dead_letters"]), (7.into(), &1.into()), "{audit}");
    assert_eq!(cluster.run("observer", &["count", "--json"]).expect(0).json()["total"], 7);
    cluster.run("observer", &["tap", "--from", "beginning", "--until-end", "--json"]).expect(0);
    cluster.run("observer", &["replay", "list", "--json"]).expect(0);
    let top = cluster.run("observer", &["top", "--once", "--json"]).expect(0);
    assert!(!top.err.contains("refuses access"), "{top:#?}");
    cluster.run("worker", &["group", "show", "local"]).expect(0);
    let replayed = cluster.run("replay", &["replay", "run", "--sink", "local", "--json"]).expect(1);
    assert!(replayed.out.contains("\"refused_again\":1"), "{replayed:#?}");
    assert!(!replayed.err.contains("ERROR"), "{replayed:#?}");

    // Without any one of them, doctor names it, and whose it is.
    for role in ROLES {
        for right in cluster.rights(role) {
            cluster.kafka.set_right(&right, false).unwrap();
            let named = format!("{} on {} {} (", right.operation, right.resource, right.name);
            let mut last = String::new();
            let is_named = within_a_minute(|| {
                let (ok, detail) = cluster.missing(role);
                last = detail;
                !ok && last.contains(&named) && last.contains(&format!("User:{role} lacks"))
            });
            assert!(is_named, "{role}: {named}: {last}");
            cluster.kafka.set_right(&right, true).unwrap();
        }
    }

    // An operator takes a running worker out of rotation, and puts it back.
    let mut worker = Running::start(&cluster);
    let addressed = || cluster.run("operator", &["ctl", "status", "sink/local", "--wait", "5s"]).status == 0;
    assert!(within_a_minute(addressed), "{}", worker.log());
    cluster.run("operator", &["ctl", "drain", "sink/local", "--wait", "30s"]).expect(0);
    cluster.run("operator", &["ctl", "resume", "sink/local", "--wait", "30s"]).expect(0);
    assert!(worker.is_alive());

    // A running worker that loses a right keeps trying, and goes on once it has the right again.
    let mut expected = 7;
    for lost in ["Read group tallybus.local", "Read topic tallybus.counters", "Write topic tallybus.dead.local"] {
        let rights = cluster.rights("worker");
        let is_it = |right: &&KafkaAcl| format!("{} {} {}", right.operation, right.resource, right.name) == lost;
        let right = rights.iter().find(is_it).unwrap();
        cluster.kafka.set_right(right, false).unwrap();
        if right.operation == "Write" {
            cluster.publish(b"more garbage");
        }
        let before = worker.log().len();
        let says = |log: &str| log.to_lowercase().contains("authorization failed");
        eventually(&format!("a line about {lost}"), || says(&worker.log()[before..]));
        assert!(worker.is_alive(), "{lost}: {}", worker.log());
        cluster.kafka.set_right(right, true).unwrap();
        cluster.run("producer", &["emit", "hits", "1"]).expect(0);
        expected += 1;
        eventually(&format!("{expected} after {lost}: {}", worker.log()), || {
            let audit = cluster.run("observer", &["audit", "--json"]);
            audit.status == 0 && total(&audit.json()) == expected
        });
        assert!(worker.is_alive(), "{lost}: {}", worker.log());
    }
    assert!(!worker.log().contains(PASSWORD));
}

#[test]
fn a_connection_that_fails_names_its_cause() {
    let Some(cluster) = Cluster::start() else { return };
    let bootstrap = cluster.kafka.bootstrap();
    let (_, port) = bootstrap.split_once(':').unwrap();
    let good = std::fs::read_to_string(cluster.place.file("producer.toml")).unwrap();
    let other = Certificates::make().unwrap();
    cluster.place.write("other.pem", &String::from_utf8(other.authority_pem().unwrap()).unwrap());
    let plain = &*cluster.kafka.admin_bootstrap();
    let mut running = Vec::new();
    let mechanism = good.replace("\"PLAIN\"", "\"SCRAM-SHA-512\"");
    for (what, text, expected) in [
        ("authority", good.replace("ca.pem", "other.pem"), "the broker's certificate cannot be verified"),
        ("name", good.replace(&bootstrap, &format!("localhost:{port}")), "is for another host name"),
        ("plaintext-port", good.replace(&bootstrap, plain), "the broker does not speak TLS on this port"),
        (
            "tls-port",
            good.replace("SASL_SSL", "SASL_PLAINTEXT"),
            "if it speaks TLS on this port, set `security.protocol`",
        ),
        ("password", good.replace(PASSWORD, "wrong-password"), "authentication failed: check `sasl.username`"),
        ("mechanism", mechanism, "the broker does not offer this login"),
    ] {
        cluster.place.write(&format!("{what}.toml"), &text);
        // Side by side: each waits until librdkafka gives up, for ten seconds.
        running.push((
            what,
            expected,
            ["count", "doctor"].map(|command| cluster.place.spawn(&mut cluster.command(what, &[command]))),
        ));
    }
    for (what, expected, commands) in running {
        let [count, doctor] = commands.map(|command| Ran::of(command.wait_with_output().unwrap()));
        assert!(count.status == 2 && count.err.contains(expected), "{what}: {count:#?}");
        let is_about_the_address = what.ends_with("port");
        assert_eq!(count.err.contains("is the bus running"), is_about_the_address, "{what}: {count:#?}");
        assert!(doctor.status == 1 && doctor.out.contains("FAIL  bus: "), "{what}: {doctor:#?}");
        assert!(doctor.out.contains(expected), "{what}: {doctor:#?}");
        let shown = [count.err, doctor.out, doctor.err].concat();
        assert!(!shown.contains("wrong-password") && !shown.contains(PASSWORD), "{what}: {shown}");
    }
}
