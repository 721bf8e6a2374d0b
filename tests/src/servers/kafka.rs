//! Apache Kafka 4.1: one process, broker and controller in one.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::kafka_acl::KafkaAcl;
use crate::Certificates;
use crate::daemon::{Daemon, Recipe};
use crate::{places, ports};

const VERSION: &str = "4.1.0";
/// Stands for the controller's port in a property.
const CONTROLLER: &str = "{controller}";
const CLUSTER: &str = "tallybusTestClusterAAA";
/// Cold page caches and two cores shared with a compiler: a start takes 2 s when nothing else runs.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// A Kafka broker of this test's own. Topics are not created by asking for them; every topic has one replica.
#[derive(Debug)]
pub struct KafkaServer {
    daemon: Daemon,
    port: u16,
    /// Where an administrator is let in without a login; the same port unless it asks others for one.
    admin_port: u16,
}

impl KafkaServer {
    /// Why it cannot be started here.
    pub(crate) fn missing() -> Option<String> {
        if places::program("java").is_none() {
            return Some("`java` is not installed (Debian: default-jre-headless)".to_owned());
        }
        if !libs_dir().exists() && places::program("mvn").is_none() {
            return Some("its jars are not there and `mvn` is not installed (Debian: maven)".to_owned());
        }
        None
    }

    /// `properties` win over those that suit tests.
    pub(crate) fn start(properties: &[(&str, &str)]) -> Result<KafkaServer> {
        let properties = owned(properties);
        Self::start_until(knows_itself, |_, port| Ok((properties.clone(), port)))
    }

    /// A broker that takes this user only, by SASL's PLAIN mechanism without TLS.
    pub(crate) fn start_with_sasl(user: &str, password: &str) -> Result<KafkaServer> {
        let jaas = jaas(&[(user, password)]);
        let properties = owned(&[
            ("listener.security.protocol.map", "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
            ("listener.name.plaintext.plain.sasl.jaas.config", &jaas),
        ]);
        Self::start_until(answers_versions, |_, port| Ok((properties.clone(), port)))
    }

    /// A broker that takes these users by SASL over TLS, and grants each only what its access control lists say: nothing at
    /// first. The mechanism is PLAIN, and SCRAM-SHA-256 for users of [`KafkaServer::add_scram_user`].
    pub(crate) fn start_secure(certificates: &Certificates, users: &[(&str, &str)]) -> Result<KafkaServer> {
        let (certificate, key) = certificates.server_pem()?;
        let jaas = jaas(users);
        Self::start_until(knows_itself, |dir, port| {
            let admin = ports::free_port()?;
            let keystore = dir.join("server.pem");
            fs::write(&keystore, [&key[..], &certificate[..]].concat())?;
            let listeners = format!("SASL_SSL://127.0.0.1:{port},PLAINTEXT://127.0.0.1:{admin}");
            let mut properties = owned(&[
                ("listener.security.protocol.map", "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
                ("advertised.listeners", &listeners),
                ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256"),
                ("listener.name.sasl_ssl.plain.sasl.jaas.config", &jaas),
                (
                    "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config",
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;",
                ),
                ("ssl.keystore.type", "PEM"),
                ("ssl.keystore.location", &keystore.display().to_string()),
                ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
                // The broker itself, and the administrator of the tests, on the listener without a login.
                ("super.users", "User:ANONYMOUS"),
            ]);
            properties.push(("listeners".to_owned(), format!("{listeners},CONTROLLER://127.0.0.1:{CONTROLLER}")));
            Ok((properties, admin))
        })
    }

    /// `make` has the properties and the administrator's port, for the server's directory and port. [`CONTROLLER`] in a value stands
    /// for the controller's port.
    fn start_until(
        is_ready: fn(u16) -> Result<bool>,
        make: impl Fn(&Path, u16) -> Result<(Vec<(String, String)>, u16)>,
    ) -> Result<KafkaServer> {
        let libs = libs()?;
        let formatted = formatted(&libs)?;
        Daemon::start_on_free_port("kafka", |dir, port| {
            let (properties, admin_port) = make(dir.path(), port)?;
            write_properties(dir.path(), port, ports::free_port()?, &properties)?;
            copy_files(&formatted, &dir.path().join("data"))?;
            let (libs, settings) = (libs.clone(), dir.path().join("server.properties"));
            let command = move || {
                let mut command = java(&libs);
                command.arg("-Xmx512m").arg("-Xms64m").arg("kafka.Kafka").arg(&settings);
                Ok(command)
            };
            let ready = move || is_ready(admin_port).unwrap_or(false);
            let recipe = Recipe {
                name: "Kafka",
                command: Box::new(command),
                ready: Box::new(ready),
                ready_within: READY_WITHIN,
            };
            Ok(KafkaServer { daemon: Daemon::start(dir, recipe)?, port, admin_port })
        })
    }

    /// Where an administrator is let in without a login: the same as [`KafkaServer::bootstrap`] unless others need one.
    pub fn admin_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.admin_port)
    }

    /// Grants a right, or takes it back.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub fn set_right(&self, acl: &KafkaAcl, granted: bool) -> Result<()> {
        acl.set(self.admin_port, granted)
    }

    /// Runs the arguments of a `kafka-acls.sh` command as an administrator: those of `--bootstrap-server` and `--command-config`
    /// are replaced by this server's.
    ///
    /// # Errors
    /// As [`KafkaServer::delete_topic`].
    pub fn run_acl_command(&self, args: &[&str]) -> Result<()> {
        let is_replaced = |word: &str| matches!(word, "--bootstrap-server" | "--command-config");
        let before = std::iter::once(&"").chain(args);
        let own = args.iter().zip(before).filter(|(word, before)| !is_replaced(word) && !is_replaced(before));
        self.tool("org.apache.kafka.tools.AclCommand", &own.map(|(word, _)| *word).collect::<Vec<_>>())
    }

    /// Adds a user who logs in with the mechanism SCRAM-SHA-256.
    ///
    /// # Errors
    /// As [`KafkaServer::delete_topic`].
    pub fn add_scram_user(&self, user: &str, password: &str) -> Result<()> {
        let credential = format!("SCRAM-SHA-256=[password={password}]");
        let args = ["--alter", "--add-config", &credential, "--entity-type", "users", "--entity-name", user];
        self.tool("kafka.admin.ConfigCommand", &args)
    }

    /// `127.0.0.1:port`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Deletes a topic with Kafka's own tool, as an operator would.
    ///
    /// # Errors
    /// The tool could not be run, or it failed: its output.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        self.tool("org.apache.kafka.tools.TopicCommand", &["--delete", "--topic", topic])
    }

    /// Changes properties of a topic, as Kafka's own tool does: `name=value`, separated by commas.
    ///
    /// # Errors
    /// As [`KafkaServer::delete_topic`].
    pub fn alter_topic(&self, topic: &str, properties: &str) -> Result<()> {
        self.tool("kafka.admin.ConfigCommand", &["--alter", "--topic", topic, "--add-config", properties])
    }

    /// Sets a group's offsets of a topic to the earliest with Kafka's own tool (`kafka-consumer-groups
    /// --reset-offsets`), which commits no metadata.
    ///
    /// # Errors
    /// As [`KafkaServer::delete_topic`].
    pub fn reset_group(&self, group: &str, topic: &str) -> Result<()> {
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        self.tool(class, &["--reset-offsets", "--to-earliest", "--execute", "--group", group, "--topic", topic])
    }

    /// Deletes a group without members, as the broker does itself after `offsets.retention.minutes`.
    ///
    /// # Errors
    /// As [`KafkaServer::delete_topic`].
    pub fn delete_group(&self, group: &str) -> Result<()> {
        self.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &["--delete", "--group", group])
    }

    fn tool(&self, class: &str, args: &[&str]) -> Result<()> {
        let output = java(&libs()?).args([class, "--bootstrap-server", &self.admin_bootstrap()]).args(args).output()?;
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        ensure!(output.status.success() && !text.contains("Error:"), "{class} {args:?}: {text}");
        Ok(())
    }
}

impl Deref for KafkaServer {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for KafkaServer {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

fn owned(properties: &[(&str, &str)]) -> Vec<(String, String)> {
    properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The users of the mechanism PLAIN; the broker itself is the first of them.
fn jaas(users: &[(&str, &str)]) -> String {
    let first = users.first().map(|(user, password)| format!(" username=\"{user}\" password=\"{password}\""));
    let each: String = users.iter().map(|(user, password)| format!(" user_{user}=\"{password}\"")).collect();
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    format!("{module} required{}{each};", first.unwrap_or_default())
}

fn libs_dir() -> PathBuf {
    places::servers_dir().join(format!("kafka-{VERSION}"))
}

/// The jars, fetched through Maven the first time. Several test processes may come here at once.
fn libs() -> Result<PathBuf> {
    let libs = libs_dir();
    if libs.exists() {
        return Ok(libs);
    }
    let _alone = exclusive()?;
    if libs.exists() {
        return Ok(libs);
    }
    eprintln!("fetching Kafka {VERSION} into {}", libs.display());
    let partial = places::servers_dir().join(format!("kafka-{VERSION}.partial"));
    let _old = fs::remove_dir_all(&partial);
    let output = Command::new(places::program("mvn").context("`mvn` is not installed")?)
        .args(["-q", "-B", "-f"])
        .arg(places::crate_dir().join("servers/kafka-pom.xml"))
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .output()?;
    ensure!(
        output.status.success(),
        "mvn could not fetch Kafka: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&partial, &libs)?;
    Ok(libs)
}

/// A formatted, empty data folder: formatting takes a JVM of its own, so that it is done once and copied.
fn formatted(libs: &Path) -> Result<PathBuf> {
    let formatted = places::servers_dir().join(format!("kafka-{VERSION}-formatted"));
    if formatted.exists() {
        return Ok(formatted);
    }
    let _alone = exclusive()?;
    if formatted.exists() {
        return Ok(formatted);
    }
    let dir = places::run_dir("kafka-format")?;
    write_properties(dir.path(), ports::free_port()?, ports::free_port()?, &[])?;
    let output = java(libs)
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"])
        .arg(dir.path().join("server.properties"))
        .output()?;
    ensure!(
        output.status.success(),
        "Kafka's storage tool failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(dir.path().join("data"), &formatted)?;
    Ok(formatted)
}

/// One process at a time prepares what all share; released when dropped.
fn exclusive() -> Result<File> {
    fs::create_dir_all(places::servers_dir())?;
    let file = File::create(places::servers_dir().join(".lock"))?;
    file.lock()?;
    Ok(file)
}

fn java(libs: &Path) -> Command {
    let mut command = Command::new(places::program("java").unwrap_or_else(|| PathBuf::from("java")));
    command
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Djava.awt.headless=true"])
        .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
        .arg("-cp")
        .arg(libs.join("*"));
    command
}

/// Small, quick and reachable from this machine only. Commits are not gathered (by default for 5 ms), because tests make
/// thousands of them one after the other; everything else that a client meets is as in production.
fn write_properties(dir: &Path, port: u16, controller: u16, more: &[(String, String)]) -> Result<()> {
    let mut properties = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={data}\n\
         default.replication.factor=1\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         share.coordinator.state.topic.num.partitions=1\n\
         group.initial.rebalance.delay.ms=0\n\
         group.coordinator.append.linger.ms=0\n\
         group.min.session.timeout.ms=500\n\
         auto.create.topics.enable=false\n\
         num.network.threads=2\n\
         num.io.threads=4\n\
         log.cleaner.dedupe.buffer.size=4194304\n",
        data = dir.join("data").display()
    );
    // Of a property that stands there twice the last counts.
    let controller = controller.to_string();
    properties.extend(more.iter().map(|(key, value)| format!("{key}={}\n", value.replace(CONTROLLER, &controller))));
    fs::write(dir.join("server.properties"), properties)?;
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Asks the broker for its metadata (version 1, no topics); ready once it lists a broker.
fn knows_itself(port: u16) -> Result<bool> {
    const METADATA: i16 = 3;
    let head: [u8; 12] = ask(port, METADATA, 1, &0i32.to_be_bytes())?;
    let brokers = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    Ok(brokers > 0)
}

/// Asks the broker for the versions of its protocol, which it tells before a client has logged in.
fn answers_versions(port: u16) -> Result<bool> {
    const API_VERSIONS: i16 = 18;
    let head: [u8; 10] = ask(port, API_VERSIONS, 0, &[])?;
    Ok(head[8..] == [0, 0])
}

/// Sends one request and reads the beginning of the answer: its size, the request's number, then the answer itself.
pub(super) fn ask<const N: usize>(port: u16, api: i16, version: i16, body: &[u8]) -> Result<[u8; N]> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(7i32.to_be_bytes());
    request.extend((-1i16).to_be_bytes());
    request.extend(body);
    stream.write_all(&u32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let mut head = [0; N];
    stream.read_exact(&mut head)?;
    Ok(head)
}
