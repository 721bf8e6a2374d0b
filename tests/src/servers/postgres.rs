//! PostgreSQL, as Debian packages it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::daemon::{Daemon, Recipe};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// The administrator, let in from loopback by password.
const USER: &str = "tallybus";
const PASSWORD: &str = "a passw:rd";

/// A PostgreSQL of this test's own, with one database, `counters`.
#[derive(Debug)]
pub struct PostgresServer {
    daemon: Daemon,
    port: u16,
}

impl PostgresServer {
    /// Why it cannot be started here.
    pub(crate) fn missing() -> Option<String> {
        bin_dir().is_none().then(|| "`postgres` is not installed (Debian: postgresql)".to_owned())
    }

    pub(crate) fn start() -> Result<PostgresServer> {
        let bin = bin_dir().context("`postgres` is not installed")?;
        Daemon::start_on_free_port("postgres", |dir, port| {
            let owner = owner()?;
            let (data, password) = (dir.path().join("data"), dir.path().join("password"));
            fs::create_dir(&data)?;
            fs::write(&password, PASSWORD)?;
            if let Some((uid, gid)) = owner {
                chown(&data, Some(uid), Some(gid))?;
                chown(&password, Some(uid), Some(gid))?;
            }
            initialise(&bin, &data, &password, owner)?;
            let program = bin.join("postgres");
            let command = move || {
                let mut command = as_owner(&program, owner);
                command.arg("-D").arg(&data).args(["-p", &port.to_string()]).args([
                    "-c",
                    "listen_addresses=127.0.0.1",
                    "-c",
                    "unix_socket_directories=",
                    "-c",
                    "max_connections=200",
                    "-c",
                    "shared_buffers=64MB",
                    // What survives a crash of the machine is not what tests are about; a killed server loses nothing by it.
                    "-c",
                    "fsync=off",
                    "-c",
                    "full_page_writes=off",
                ]);
                Ok(command)
            };
            let ready = move || lets_in(port).unwrap_or(false);
            let recipe = Recipe {
                name: "PostgreSQL",
                command: Box::new(command),
                ready: Box::new(ready),
                ready_within: READY_WITHIN,
            };
            Ok(PostgresServer { daemon: Daemon::start(dir, recipe)?, port })
        })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The administrator's name.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// The administrator's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }
}

impl Deref for PostgresServer {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for PostgresServer {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// Whether it asks for the password: while it starts up it takes connections already, and turns them away.
fn lets_in(port: u16) -> Result<bool> {
    const PROTOCOL_3: i32 = 196_608;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let parameters = format!("user\0{USER}\0database\0counters\0\0");
    let length = i32::try_from(8 + parameters.len())?;
    stream.write_all(&[&length.to_be_bytes()[..], &PROTOCOL_3.to_be_bytes(), parameters.as_bytes()].concat())?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    Ok(kind == *b"R")
}

/// The newest version that Debian's packages have put here.
fn bin_dir() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
    found.retain(|bin| bin.join("postgres").is_file());
    found.sort();
    found.pop()
}

/// The server refuses to run as root: then it runs as the user that its package made.
fn owner() -> Result<Option<(u32, u32)>> {
    #[allow(unsafe_code)]
    // SAFETY: geteuid(2) has no arguments and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let postgres = fields.into_iter().find(|fields| fields.first() == Some(&"postgres") && fields.len() > 3);
    let postgres = postgres.context("there is no user `postgres`, and the server refuses to run as root")?;
    Ok(Some((postgres[2].parse()?, postgres[3].parse()?)))
}

fn as_owner(program: &Path, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    command
}

fn initialise(bin: &Path, data: &Path, password: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let output = as_owner(&bin.join("initdb"), owner)
        .arg("-D")
        .arg(data)
        .args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
        .arg(format!("--pwfile={}", password.display()))
        .current_dir(data)
        .output()?;
    ensure!(
        output.status.success(),
        "initdb failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let single = as_owner(&bin.join("postgres"), owner)
        .args(["--single", "-F", "-D"])
        .arg(data)
        .arg("postgres")
        .current_dir(data)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut single = single?;
    if let Some(mut input) = single.stdin.take() {
        std::io::Write::write_all(&mut input, b"CREATE DATABASE counters\n")?;
    }
    let output = single.wait_with_output()?;
    ensure!(output.status.success(), "no database: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
