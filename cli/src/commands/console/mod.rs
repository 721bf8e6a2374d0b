//! `tallybus console`: the stream in a browser. It looks, and changes nothing.

mod dead_letters;
mod guard;
mod looks;
mod pages;
mod reports;
mod routes;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tallybus_sdk::config::Secret;
use tallybus_worker::http::{Server, is_loopback};
use tokio::sync::Semaphore;

use self::dead_letters::DeadLetters;
use self::guard::Guard;
use self::looks::{Begin, IDLE_AFTER, Looks};
use self::server::{Console, MOST_FOLLOWERS};
use super::top::interval;
use super::top::watch::{Target, Watcher};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::{Global, config, interrupt, page};

const SCRIPT: &str = include_str!("console.js");
const ICON: &str = include_str!("icon.svg");

/// The style sheet of all pages, that of written reports included.
fn style() -> String {
    format!("{}{}", page::STYLE, include_str!("console.css"))
}

/// How soon a signal ends the command.
const WAIT: Duration = Duration::from_millis(100);

/// Watch the stream in a browser: the flow, each sink, audits, comparisons; without side effects.
///
/// It shows what `tallybus top` shows, joins no group and moves no offset. All browsers together ask the bus as much as one does, and
/// nothing while there is none. docs/console.md says how to put it behind a proxy.
#[derive(Debug, Args)]
pub(crate) struct ConsoleCommand {
    /// Where to listen. An address that other machines reach needs --token.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9465")]
    listen: SocketAddr,
    /// Where the token is that browsers and programs need: env:NAME or file:PATH.
    #[arg(long, value_name = "env:NAME|file:PATH", value_parser = token_place)]
    token: Option<TokenPlace>,
    /// Also show the reports in this directory, as `audit --json` and `compare run --out` write them to files *.json.
    #[arg(long, value_name = "DIRECTORY")]
    reports: Option<PathBuf>,
    /// How often to look at the bus.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

/// Where a token is.
#[derive(Debug, Clone)]
struct TokenPlace(String);

fn token_place(text: &str) -> Result<TokenPlace, String> {
    if text.starts_with("env:") || text.starts_with("file:") {
        return Ok(TokenPlace(text.to_owned()));
    }
    Err("expected env:NAME or file:PATH: other users of this machine see the arguments of a command".to_owned())
}

impl ConsoleCommand {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        if !is_loopback(self.listen.ip()) && self.token.is_none() {
            return Err(Failure::could_not_look(format!(
                "--listen {}: other machines reach this address, and could read topics, hosts, offsets and error texts: add --token \
                 env:NAME or file:PATH, or listen on 127.0.0.1",
                self.listen
            )));
        }
        let token = self.token.as_ref().map(|place| Secret::resolve(&place.0)).transpose();
        let token = token.map_err(|reason| Failure::could_not_look(format!("--token: {reason}")))?;
        if let Some(directory) = self.reports.as_ref().filter(|directory| !directory.is_dir()) {
            return Err(Failure::could_not_look(format!("--reports: {} is not a directory", directory.display())));
        }
        let settings = config::load_without_secrets(global)?;
        let bus = config::open_bus(&settings)?;
        let interrupted = interrupt::listen()?;
        let (target, namespace) = (Target::of(&settings), settings.bus.namespace.clone());
        let dead_letters = DeadLetters::start(Arc::clone(&bus)).map_err(no_thread)?;
        let begin: Begin = Box::new(move || Box::new(Watcher::new(Arc::clone(&bus), target.clone(), &namespace)));
        let looks = Looks::start(begin, self.interval, IDLE_AFTER).map_err(no_thread)?;
        let console = Arc::new(Console {
            guard: Guard::new(token, self.listen.port())
                .map_err(|error| Failure::failed(format!("no random numbers: {error}")))?,
            looks,
            dead_letters,
            reports: self.reports.clone(),
            places: Arc::new(Semaphore::new(MOST_FOLLOWERS)),
        });
        let server = Server::start("console", self.listen, Arc::<Console>::clone(&console)).map_err(|error| {
            Failure::could_not_look(format!("--listen {}: {error}; choose another address or port", self.listen))
        })?;
        let url = format!("http://{}/", server.address());
        if output.json {
            output.print(&json!({ "url": url }).to_string())?;
        } else {
            output.print(&format!("console: {url}"))?;
            output.say("Ctrl-C ends it");
        }
        while !interrupted.is_set() {
            if !console.looks.is_running() {
                return Err(Failure::failed("the thread that looks at the bus has ended; this is a fault of tallybus"));
            }
            thread::sleep(WAIT);
        }
        Ok(Verdict::Good)
    }
}

fn no_thread(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot start a thread: {error}"))
}
