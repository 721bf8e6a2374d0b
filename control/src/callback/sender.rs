//! The thread that delivers callbacks.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Certificate;
use tokio::sync::{Semaphore, mpsc as queue, watch};
use tokio::task::JoinSet;
use url::Url;

use super::Callback;
use super::allow::{AllowList, UrlRefusal};
use super::attempt::{Attempted, Attempts, FailedAttempt, millis_now};
use super::body::body;
use super::resolve::{Resolve, SystemResolver};
use super::schedule::Schedule;
use crate::signature::Key;

/// The most callbacks that are under way, those that wait for their next attempt included.
const MAX_CALLBACKS: usize = 1_000;
/// The most bytes of their bodies.
const MAX_BYTES: usize = 16 << 20;
/// The most requests at a time.
const MAX_REQUESTS: usize = 8;
/// How long an attempt may take unless set, from the look-up of the name to the status.
const TIMEOUT: Duration = Duration::from_secs(15);
/// After how long a callback is given up unless set.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// How callbacks are delivered.
#[derive(Clone)]
pub struct CallbackSettings {
    /// Where they may go.
    pub allowed: AllowList,
    /// The keys that sign them: one, or the old and the new one while keys are replaced. Without any they are not signed.
    pub keys: Vec<Key>,
    /// When a failed attempt is repeated.
    pub schedule: Schedule,
    /// After how long a callback is given up: no attempt begins later.
    pub give_up_after: Duration,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// What finds the addresses of names.
    pub resolver: Arc<dyn Resolve>,
    /// The only authorities that are trusted, if any; otherwise those of the system.
    pub authorities: Vec<Authority>,
}

/// A certificate of an authority.
#[derive(Clone)]
pub struct Authority(Certificate);

impl CallbackSettings {
    /// The defaults: 15 seconds for an attempt, repeated after 1 second and growing waits of up to 10 minutes, given up after a day.
    pub fn new(allowed: AllowList) -> Self {
        Self {
            allowed,
            keys: Vec::new(),
            schedule: Schedule::default(),
            give_up_after: GIVE_UP_AFTER,
            timeout: TIMEOUT,
            resolver: Arc::new(SystemResolver),
            authorities: Vec::new(),
        }
    }

    /// Signs with one more key.
    #[must_use]
    pub fn sign_with(mut self, key: Key) -> Self {
        self.keys.push(key);
        self
    }

    /// Trusts only this authority's certificate, in PEM, and others that are added alike.
    ///
    /// # Errors
    /// The text is no certificate.
    pub fn trust_only(mut self, pem: &[u8]) -> Result<Self, io::Error> {
        let certificate = Certificate::from_pem(pem);
        let certificate = certificate
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not the certificate of an authority in PEM"))?;
        self.authorities.push(Authority(certificate));
        Ok(self)
    }
}

impl fmt::Debug for CallbackSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackSettings").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// A callback that was given up.
#[derive(Debug, Clone)]
pub struct Undelivered {
    /// The callback.
    pub callback: Callback,
    /// Why the last attempt failed.
    pub reason: FailedAttempt,
    /// How many attempts there were.
    pub attempts: u32,
}

/// What gets a callback back that was given up. Called on the thread that delivers callbacks; must not block.
pub type OnUndelivered = Box<dyn FnOnce(Undelivered) + Send>;

/// How many callbacks there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallbackCounts {
    /// Delivered.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Given up, and given back to the caller.
    pub undelivered: u64,
    /// Refused before anything was sent, because of their URL.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Shared {
    under_way: AtomicUsize,
    bytes: AtomicUsize,
    delivered: AtomicU64,
    failed_attempts: AtomicU64,
    undelivered: AtomicU64,
    refused: AtomicU64,
}

/// Delivers callbacks on a thread of its own, until dropped.
pub struct Callbacks {
    allowed: AllowList,
    shared: Arc<Shared>,
    /// `None` once it takes no more.
    jobs: Mutex<Option<queue::UnboundedSender<Job>>>,
    stop: watch::Sender<Option<Instant>>,
    ended: Mutex<mpsc::Receiver<()>>,
}

struct Job {
    callback: Callback,
    url: Url,
    body: Vec<u8>,
    on_undelivered: OnUndelivered,
}

impl Callbacks {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn start(settings: CallbackSettings) -> io::Result<Self> {
        let (jobs, receiver) = queue::unbounded_channel();
        let (stop, stopped) = watch::channel(None);
        let (end, ended) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let allowed = settings.allowed.clone();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MAX_REQUESTS).build()?;
        let sender = Sender {
            attempts: Attempts {
                allowed: settings.allowed,
                keys: settings.keys,
                resolver: settings.resolver,
                timeout: settings.timeout,
                trusted: settings.authorities.into_iter().map(|authority| authority.0).collect(),
            },
            schedule: settings.schedule,
            give_up_after: settings.give_up_after,
            requests: Semaphore::new(MAX_REQUESTS),
            shared: Arc::clone(&shared),
        };
        let run = move || {
            runtime.block_on(run(Arc::new(sender), receiver, stopped));
            // A look-up of a name that does not return is left behind.
            runtime.shutdown_background();
            let _gone = end.send(());
        };
        thread::Builder::new().name("tallybus-callback".to_owned()).spawn(run)?;
        Ok(Self { allowed, shared, jobs: Mutex::new(Some(jobs)), stop, ended: Mutex::new(ended) })
    }

    /// Whether a callback may go to this URL.
    ///
    /// # Errors
    /// Why not; it is counted.
    pub fn check(&self, url: &str) -> Result<(), UrlRefusal> {
        let checked = self.allowed.check(url);
        if checked.is_err() {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        checked.map(drop)
    }

    /// Delivers a callback. Does not wait. Where there are too many, `on_undelivered` is called at once.
    ///
    /// # Errors
    /// It may not go to this URL: it is counted, and `on_undelivered` is not called.
    pub fn send(&self, callback: Callback, on_undelivered: OnUndelivered) -> Result<(), UrlRefusal> {
        self.check(&callback.url)?;
        let url = self.allowed.check(&callback.url)?;
        let body = body(&callback.event, millis_now(), &callback.data);
        let bytes = body.len();
        let job = Job { callback, url, body, on_undelivered };
        let others = self.shared.under_way.fetch_add(1, Ordering::Relaxed);
        let held = self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        if others >= MAX_CALLBACKS || held + bytes > MAX_BYTES {
            self.shared.give_back(job, FailedAttempt::TooMany, 0);
            return Ok(());
        }
        let left = match &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(jobs) => jobs.send(job).err().map(|unsent| unsent.0),
            None => Some(job),
        };
        if let Some(job) = left {
            self.shared.give_back(job, FailedAttempt::Stopped, 0);
        }
        Ok(())
    }

    /// How many there were up to now.
    pub fn counts(&self) -> CallbackCounts {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        CallbackCounts {
            delivered: read(&self.shared.delivered),
            failed_attempts: read(&self.shared.failed_attempts),
            undelivered: read(&self.shared.undelivered),
            refused: read(&self.shared.refused),
        }
    }

    /// Takes no more, and waits until those under way have ended; those that have not within this time are given back.
    pub fn finish(&self, within: Duration) {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        if jobs.is_none() {
            return;
        }
        drop(jobs);
        self.stop.send_replace(Some(Instant::now() + within));
        // The thread gives back what is left before it ends. Should a caller's closure block, it is left behind.
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ended = ended.recv_timeout(within + Duration::from_secs(1));
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").field("allowed", &self.allowed).field("counts", &self.counts()).finish()
    }
}

impl Shared {
    fn release(&self, bytes: usize) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, job: Job, reason: FailedAttempt, attempts: u32) {
        self.release(job.body.len());
        self.undelivered.fetch_add(1, Ordering::Relaxed);
        (job.on_undelivered)(Undelivered { callback: job.callback, reason, attempts });
    }
}

struct Sender {
    attempts: Attempts,
    schedule: Schedule,
    give_up_after: Duration,
    requests: Semaphore,
    shared: Arc<Shared>,
}

async fn run(sender: Arc<Sender>, mut jobs: queue::UnboundedReceiver<Job>, stop: watch::Receiver<Option<Instant>>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => drop(running.spawn(Arc::clone(&sender).deliver(job, stop.clone()))),
                None => break,
            },
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    }
    while running.join_next().await.is_some() {}
}

impl Sender {
    async fn deliver(self: Arc<Self>, job: Job, mut stop: watch::Receiver<Option<Instant>>) {
        let mut attempts = 0;
        let ended = tokio::select! {
            ended = self.attempt_until_ended(&job.callback.id, &job.url, &job.body, &mut attempts) => ended,
            () = stopped(&mut stop) => Err(FailedAttempt::Stopped),
        };
        match ended {
            Ok(()) => {
                self.shared.release(job.body.len());
                self.shared.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err(reason) => self.shared.give_back(job, reason, attempts),
        }
    }

    async fn attempt_until_ended(
        &self,
        id: &str,
        url: &Url,
        body: &[u8],
        attempts: &mut u32,
    ) -> Result<(), FailedAttempt> {
        let until = Instant::now() + self.give_up_after;
        loop {
            // The semaphore is never closed.
            let permit = self.requests.acquire().await.map_err(|_| FailedAttempt::Stopped)?;
            *attempts += 1;
            let attempted = self.attempts.post(id, url, body).await;
            drop(permit);
            let (reason, asked) = match attempted {
                Attempted::Delivered => return Ok(()),
                Attempted::Repeat { reason, asked } => (reason, asked),
                Attempted::End(reason) => {
                    self.shared.failed_attempts.fetch_add(1, Ordering::Relaxed);
                    return Err(reason);
                }
            };
            self.shared.failed_attempts.fetch_add(1, Ordering::Relaxed);
            let left = until.saturating_duration_since(Instant::now());
            let wait = self.schedule.next(*attempts, asked, spread(), left).ok_or(reason)?;
            tokio::time::sleep(wait).await;
        }
    }
}

/// Returns when the callbacks that are left have to be given back.
async fn stopped(stop: &mut watch::Receiver<Option<Instant>>) {
    let until = match stop.wait_for(Option::is_some).await {
        Ok(until) => *until,
        // The owner is gone without a deadline: there is none to wait for.
        Err(_) => None,
    };
    if let Some(until) = until {
        tokio::time::sleep_until(until.into()).await;
    }
}

/// A number from 0 to 1 that differs each time.
fn spread() -> f64 {
    let random = RandomState::new().hash_one(0) >> 32;
    random as f64 / f64::from(u32::MAX)
}
