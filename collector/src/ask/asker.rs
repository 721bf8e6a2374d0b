//! The client.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tallybus_bus::{Bus, BusError, NewRecord, PublishError, Publisher, Reader, Record};
use tallybus_control::{Address, Command, InstanceStatus, Key, MAX_RECORD, PoolState, Reply, VERSION, is_answer};

use super::ServiceAnswer;
use super::answers::{Addressee, Answers, State};
use super::instances::Heard;
use super::question::{Question, To};
use crate::commands::{Topics, headers_of, millis_now, random_id, signed_of};
use crate::connection::KafkaProperties;
use crate::{Connection, InitError, sys};

/// How much longer than its deadline an answer is waited for: it may be on its way.
const GRACE: Duration = Duration::from_millis(250);
/// How old the knowledge of instances may be, to ask one of them.
const FRESH: Duration = Duration::from_secs(2);
/// How long the bus may take to confirm a command.
const PUBLISH_WITHIN: Duration = Duration::from_secs(10);
/// The longest that a command may live: instances refuse one that names a later time.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 3_600);

/// Why a question was not asked, or its answers could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The bus cannot be opened with these settings.
    #[error(transparent)]
    Open(#[from] InitError),
    /// The bus did not answer, or refuses access.
    #[error("asking over the bus: {0}")]
    Bus(#[from] BusError),
    /// The command is not on the bus, and was not done.
    #[error("the command was not sent: {0}")]
    NotSent(String),
    /// The address is not one of a service.
    #[error("`{0}` is no address of a service: write service/NAME or service/NAME@INSTANCE")]
    NoService(Address),
    /// The command cannot be sent as it is.
    #[error("the command cannot be sent: {0}")]
    Wrong(String),
}

/// Asks services over the bus. Keeps its connections: a program that asks often keeps one.
pub struct Asker {
    bus: Arc<dyn Bus>,
    topics: Topics,
    key: Option<Key>,
    issuer: String,
    heard: Heard,
    publisher: Option<Box<dyn Publisher>>,
    answers: Option<Box<dyn Reader>>,
}

impl Asker {
    /// Opens the bus. Kafka is not contacted yet.
    ///
    /// # Errors
    /// [`AskError::Open`].
    pub fn open(connection: Connection) -> Result<Self, AskError> {
        Self::open_with(connection, [])
    }

    /// The same with properties of librdkafka, such as those for TLS and credentials: see `Builder::kafka`.
    ///
    /// # Errors
    /// [`AskError::Open`].
    pub fn open_with(
        connection: Connection,
        properties: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, AskError> {
        let mut kafka = KafkaProperties::default();
        properties.into_iter().for_each(|(property, value)| kafka.set(property, value));
        Ok(Self::of_bus(Arc::from(connection.open(&kafka)?)))
    }

    /// Asks over a bus that the program has opened itself; not part of the stable interface.
    #[doc(hidden)]
    pub fn of_bus(bus: Arc<dyn Bus>) -> Self {
        let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
        let host = sys::host_name().unwrap_or_default();
        Self::within(bus, "", None, format!("{user}@{host}"))
    }

    fn within(bus: Arc<dyn Bus>, namespace: &str, key: Option<Key>, issuer: String) -> Self {
        let topics = Topics::of(namespace);
        let heard = Heard::new(Arc::clone(&topics.control));
        Self { bus, topics, key, issuer, heard, publisher: None, answers: None }
    }

    /// With topics of this namespace: `namespace` in the settings of workers.
    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        Self::within(self.bus, namespace, self.key, self.issuer)
    }

    /// Signs commands with this key.
    #[must_use]
    pub fn sign_with(self, key: Key) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Who asks, for the logs of services; the user and the host unless set.
    #[must_use]
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), ..self }
    }

    /// Asks each instance that an address names, and waits for all of them until the deadline.
    ///
    /// # Errors
    /// The question was not asked, or the bus does not answer.
    pub fn ask(
        &mut self,
        target: &Address,
        name: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Result<Answers, AskError> {
        let to = match target {
            Address::Service { service, instance: None } => To::Each(service.clone()),
            Address::Service { service, instance: Some(instance) } => To::Instance(service.clone(), instance.clone()),
            other => return Err(AskError::NoService(other.clone())),
        };
        self.put(&Question::new(to, name, arguments, deadline))
    }

    /// Asks any one instance of a service that runs.
    ///
    /// # Errors
    /// As [`Asker::ask`].
    pub fn ask_one(
        &mut self,
        service: &str,
        name: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Result<Answers, AskError> {
        self.put(&Question::new(To::One(service.to_owned()), name, arguments, deadline))
    }

    /// Gives a task to the pool of a service. It stays on the bus until an instance has done it, or the deadline is over.
    ///
    /// # Errors
    /// As [`Asker::ask`].
    pub fn ask_pool(
        &mut self,
        service: &str,
        name: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Result<Answers, AskError> {
        self.put(&Question::new(To::Pool(service.to_owned()), name, arguments, deadline))
    }

    /// The instances of a service that run and read commands now.
    ///
    /// # Errors
    /// The bus did not answer.
    pub fn instances(&mut self, service: &str) -> Result<Vec<InstanceStatus>, AskError> {
        self.heard.refresh(self.bus.as_ref())?;
        let live = self.heard.instances().live(Instant::now());
        Ok(live.filter(|status| status.service == service).cloned().collect())
    }

    /// Asks, and waits until everyone has answered or the deadline is over.
    ///
    /// # Errors
    /// As [`Asker::ask`].
    pub fn put(&mut self, question: &Question) -> Result<Answers, AskError> {
        if question.deadline.is_zero() || question.deadline > MAX_DEADLINE {
            return Err(AskError::Wrong("the deadline must be more than nothing, and a day at most".to_owned()));
        }
        // For one instance no moment is spent where it is known already.
        if !matches!(question.to, To::One(_)) || self.heard.age().is_none_or(|age| age > FRESH) {
            self.heard.refresh(self.bus.as_ref())?;
        }
        let addressees = self.addressees(&question.to);
        let mut answers = Answers { id: random_id(), addressees, by_callback: question.callback.is_some() };
        if answers.addressees.is_empty() {
            return Ok(answers);
        }
        let target = match (&question.to, answers.addressees.as_slice()) {
            (To::One(_) | To::Instance(..), [one]) => {
                one.address.parse().map_err(|error| AskError::Wrong(format!("{error}")))?
            }
            (to, _) => Address::Service { service: to.service().to_owned(), instance: None },
        };
        self.listen()?;
        let asked = Instant::now();
        self.send(question, target, &answers.id)?;
        self.await_answers(&mut answers, matches!(question.to, To::Pool(_)), asked + question.deadline + GRACE)?;
        Ok(answers)
    }

    /// Those whom a question is for.
    fn addressees(&self, to: &To) -> Vec<Addressee> {
        let now = Instant::now();
        let instances = self.heard.instances();
        let of = |address: String, last_seen| Addressee { address, last_seen, state: State::Silent };
        let ages = |status: &InstanceStatus| {
            instances.all(now).find(|(other, _)| other.identity() == status.identity()).map(|(_, age)| age)
        };
        let mut live: Vec<&InstanceStatus> =
            instances.live(now).filter(|status| status.service == to.service()).collect();
        live.sort_by(|a, b| a.instance.cmp(&b.instance));
        let addressee = |status: &InstanceStatus| of(status.identity().to_string(), ages(status));
        match to {
            To::Each(_) => live.into_iter().map(addressee).collect(),
            To::One(_) => {
                let at = random_below(live.len());
                live.get(at).map(|status| addressee(status)).into_iter().collect()
            }
            To::Instance(service, instance) => {
                let address = format!("service/{service}@{instance}");
                let known = instances.all(now).find(|(status, _)| status.identity().to_string() == address);
                vec![of(address, known.map(|(_, age)| age))]
            }
            To::Pool(service) => {
                let in_pool = live.into_iter().filter(|status| status.pool == PoolState::In);
                vec![of(format!("service/{service}"), in_pool.filter_map(ages).min())]
            }
        }
    }

    /// Reads answers from now on.
    fn listen(&mut self) -> Result<(), AskError> {
        if self.answers.is_some() {
            return Ok(());
        }
        let ends = self.bus.observer()?.offsets_of(&self.topics.commands)?;
        let ends: Vec<(u32, u64)> = (0..).zip(ends.iter().map(|range| range.end)).collect();
        let mut reader = self.bus.reader()?;
        reader.assign(&self.topics.commands, &ends)?;
        self.answers = Some(reader);
        Ok(())
    }

    fn send(&mut self, question: &Question, target: Address, id: &str) -> Result<(), AskError> {
        let issued_ms = millis_now();
        let life = i64::try_from(question.deadline.as_millis()).unwrap_or(i64::MAX);
        let command = Command {
            version: VERSION,
            id: id.to_owned(),
            issuer: self.issuer.clone(),
            issued_ms,
            expires_ms: issued_ms.saturating_add(life),
            target,
            name: question.name.clone(),
            arguments: question.arguments.clone(),
            reply: question.callback.clone().map_or(Reply::Bus, Reply::Callback),
        };
        let payload = serde_json::to_vec(&command).map_err(|error| AskError::Wrong(error.to_string()))?;
        if payload.len() > MAX_RECORD {
            return Err(AskError::Wrong(format!("it has {} bytes; the limit is {MAX_RECORD}", payload.len())));
        }
        let headers = headers_of(self.key.as_ref(), id, issued_ms, &payload);
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let topic = match &question.to {
            To::Pool(service) => self.topics.tasks(service),
            To::Each(_) | To::One(_) | To::Instance(..) => Arc::clone(&self.topics.commands),
        };
        self.publish(&topic, id, &payload, &headers)
    }

    fn publish(&mut self, topic: &str, key: &str, payload: &[u8], headers: &[(&str, &[u8])]) -> Result<(), AskError> {
        let mut publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => self.bus.publisher()?,
        };
        if publisher.partitions(topic)?.is_none() {
            self.publisher = Some(publisher);
            return Err(BusError::NoTopic(topic.to_owned()).into());
        }
        publisher.publish(NewRecord { topic, partition: None, key: Some(key.as_bytes()), payload, headers }, 0)?;
        let until = Instant::now() + PUBLISH_WITHIN;
        let mut deliveries = Vec::new();
        while deliveries.is_empty() && Instant::now() < until {
            publisher.poll(Duration::from_millis(50), &mut deliveries);
        }
        if deliveries.is_empty() {
            publisher.withdraw(&mut deliveries);
        }
        let outcome = deliveries.pop().map(|delivery| delivery.outcome);
        if publisher.in_flight() == 0 {
            self.publisher = Some(publisher);
        }
        match outcome {
            // One that may be on the bus may be answered.
            Some(Ok(_) | Err(PublishError::Unknown(_))) | None => Ok(()),
            Some(Err(error)) => Err(AskError::NotSent(error.to_string())),
        }
    }

    fn await_answers(&mut self, answers: &mut Answers, is_pool: bool, until: Instant) -> Result<(), AskError> {
        let Some(reader) = &mut self.answers else { return Ok(()) };
        while !answers.are_complete() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let mut each = |record: Record<'_>| {
                if let Some(answer) = answer_of(&record, &answers.id, self.key.as_ref()) {
                    answers.take(answer, is_pool);
                }
                if answers.are_complete() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            match reader.poll(left, &mut each) {
                Ok(_) | Err(BusError::Unavailable(_)) => {}
                Err(error) => {
                    self.answers = None;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

/// The answer to a command that a record is. Who signs commands believes signed answers only.
fn answer_of(record: &Record<'_>, id: &str, key: Option<&Key>) -> Option<ServiceAnswer> {
    let record_key = record.key.filter(|key| is_answer(key) && key.starts_with(id.as_bytes()))?;
    if record.payload.len() > MAX_RECORD {
        return None;
    }
    let answer: ServiceAnswer = serde_json::from_slice(record.payload).ok()?;
    if let Some(verifying) = key {
        let signed = signed_of(record)
            .filter(|signed| signed.id == id && signed.timestamp == answer.answer.time_ms.div_euclid(1_000))?;
        if !verifying.verify(&signed, record.payload) {
            return None;
        }
    }
    let is_keyed_so = tallybus_control::answer_key(id, &answer.answer.addressee).as_bytes() == record_key;
    (answer.answer.version == VERSION && answer.answer.answers == id && is_keyed_so).then_some(answer)
}

/// A number below this one, which is not 0; otherwise 0.
fn random_below(count: usize) -> usize {
    let random = u64::from_str_radix(random_id().get(..8).unwrap_or("0"), 16).unwrap_or_default();
    usize::try_from(random).unwrap_or_default().checked_rem(count).unwrap_or_default()
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("bus", &self.bus.describe()).field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
