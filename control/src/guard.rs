//! What of the commands on the bus an addressee takes: each once, none that has expired, and where keys are set only what is
//! signed with one of them.

use std::collections::BTreeMap;

use crate::signature::{Key, Signed};
use crate::{Command, Desired, MAX_RECORD, VERSION};

/// How far ahead of this host's clock an issuer's clock may be, in milliseconds.
const MAX_AHEAD_MS: i64 = 300_000;
/// How long a command may live, in milliseconds: its id is remembered as long.
const MAX_LIFE_MS: i64 = 24 * 3_600_000;
/// The most ids that are remembered; while there are as many, no other command is taken.
const MAX_IDS: usize = 100_000;
/// The longest id, in bytes.
const MAX_ID: usize = 100;

/// Why a record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// It is no command of a known version.
    #[error("no command of a known version")]
    Malformed,
    /// Keys are set, and it has no signature.
    #[error("not signed, and this addressee takes signed commands only")]
    Unsigned,
    /// Its signature is of none of the keys, or of another message.
    #[error("signed with none of the keys that this addressee knows")]
    WrongSignature,
    /// It came after it had expired, or names no time at which it does within a day.
    #[error("expired")]
    Expired,
    /// Its time is more than five minutes ahead of this host's clock.
    #[error("issued more than five minutes ahead of this host's clock")]
    Early,
    /// It was taken before.
    #[error("taken before")]
    Repeated,
    /// Too many others are remembered.
    #[error("too many commands within a day")]
    TooMany,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::Unsigned,
        Self::WrongSignature,
        Self::Expired,
        Self::Early,
        Self::Repeated,
        Self::TooMany,
    ];

    /// The reason as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsigned => "unsigned",
            Self::WrongSignature => "wrong_signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Repeated => "repeated",
            Self::TooMany => "too_many",
        }
    }
}

/// A command that is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted(pub Command);

/// Decides which records are taken. See the module.
#[derive(Debug)]
pub struct Guard {
    keys: Vec<Key>,
    /// The ids of the commands that were taken, and when each is forgotten.
    taken: BTreeMap<String, i64>,
}

impl Guard {
    /// Takes what one of these keys has signed; without any, what comes: then only the bus decides who may write the topics.
    pub fn new(keys: Vec<Key>) -> Self {
        Self { keys, taken: BTreeMap::new() }
    }

    /// Whether only signed records are taken.
    pub fn takes_signed_only(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Takes a command, or says why not. `now_ms`: milliseconds since the Unix epoch by this host's clock.
    ///
    /// # Errors
    /// The reason for which it is refused, and the command where there is one.
    pub fn take(
        &mut self,
        payload: &[u8],
        signed: Option<Signed<'_>>,
        now_ms: i64,
    ) -> Result<Accepted, (Refusal, Option<Box<Command>>)> {
        let command: Command = parse(payload).map_err(|refusal| (refusal, None))?;
        match self.judge(&command, payload, signed, now_ms) {
            Ok(()) => {
                self.taken.insert(command.id.clone(), command.expires_ms);
                Ok(Accepted(command))
            }
            Err(refusal) => Err((refusal, Some(Box::new(command)))),
        }
    }

    /// Reads a record of desired state, which does not expire and may be read again.
    ///
    /// # Errors
    /// The reason for which it is refused.
    pub fn read_desired(&self, payload: &[u8], signed: Option<Signed<'_>>) -> Result<Desired, Refusal> {
        let desired: Desired = parse(payload)?;
        if desired.version != VERSION || !is_id(&desired.id) {
            return Err(Refusal::Malformed);
        }
        self.check_signature(&desired.id, desired.issued_ms, payload, signed)?;
        Ok(desired)
    }

    /// Checks the signature of an answer; without keys there is none to check.
    ///
    /// # Errors
    /// It is not signed with one of the keys.
    pub fn is_signed(&self, id: &str, time_ms: i64, payload: &[u8], signed: Option<Signed<'_>>) -> Result<(), Refusal> {
        self.check_signature(id, time_ms, payload, signed)
    }

    fn judge(
        &mut self,
        command: &Command,
        payload: &[u8],
        signed: Option<Signed<'_>>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        if command.version != VERSION || !is_id(&command.id) {
            return Err(Refusal::Malformed);
        }
        self.check_signature(&command.id, command.issued_ms, payload, signed)?;
        if command.issued_ms > now_ms.saturating_add(MAX_AHEAD_MS) {
            return Err(Refusal::Early);
        }
        let life = command.expires_ms.saturating_sub(command.issued_ms);
        if command.expires_ms <= now_ms || life > MAX_LIFE_MS {
            return Err(Refusal::Expired);
        }
        if self.taken.contains_key(&command.id) {
            return Err(Refusal::Repeated);
        }
        if self.taken.len() >= MAX_IDS {
            // One that has expired is refused as such when it comes again.
            self.taken.retain(|_, expires| *expires > now_ms);
        }
        if self.taken.len() >= MAX_IDS { Err(Refusal::TooMany) } else { Ok(()) }
    }

    fn check_signature(
        &self,
        id: &str,
        issued_ms: i64,
        payload: &[u8],
        signed: Option<Signed<'_>>,
    ) -> Result<(), Refusal> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let signed = signed.ok_or(Refusal::Unsigned)?;
        let is_of_this = signed.id == id && signed.timestamp == issued_ms.div_euclid(1_000);
        if is_of_this && self.keys.iter().any(|key| key.verify(&signed, payload)) {
            Ok(())
        } else {
            Err(Refusal::WrongSignature)
        }
    }
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn parse<T: for<'de> serde::Deserialize<'de>>(payload: &[u8]) -> Result<T, Refusal> {
    if payload.len() > MAX_RECORD {
        return Err(Refusal::Malformed);
    }
    serde_json::from_slice(payload).map_err(|_| Refusal::Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{Address, Reply};

    fn command(id: &str, issued_ms: i64, expires_ms: i64) -> Command {
        Command {
            version: VERSION,
            id: id.to_owned(),
            issuer: "ada@desk".to_owned(),
            issued_ms,
            expires_ms,
            target: Address::All,
            name: "status".to_owned(),
            arguments: Value::Null,
            reply: Reply::Bus,
        }
    }

    fn taken(guard: &mut Guard, command: &Command, now_ms: i64) -> Result<(), Refusal> {
        let payload = serde_json::to_vec(command).unwrap();
        guard.take(&payload, None, now_ms).map(drop).map_err(|(refusal, _)| refusal)
    }

    #[test]
    fn a_command_is_taken_once_and_while_it_has_not_expired() {
        let mut guard = Guard::new(Vec::new());
        assert_eq!(taken(&mut guard, &command("a", 1_000, 5_000), 4_999), Ok(()));
        assert_eq!(taken(&mut guard, &command("a", 1_000, 5_000), 4_999), Err(Refusal::Repeated));
        assert_eq!(taken(&mut guard, &command("b", 1_000, 5_000), 5_000), Err(Refusal::Expired));
        assert_eq!(taken(&mut guard, &command("c", 1_000, 1_001 + MAX_LIFE_MS), 2_000), Err(Refusal::Expired));
        assert_eq!(taken(&mut guard, &command("d", MAX_AHEAD_MS + 1, MAX_AHEAD_MS + 2), 0), Err(Refusal::Early));
        assert_eq!(taken(&mut guard, &command("with space", 0, 5_000), 0), Err(Refusal::Malformed));
        assert_eq!(taken(&mut guard, &Command { version: 2, ..command("e", 0, 5_000) }, 0), Err(Refusal::Malformed));
        assert_eq!(guard.take(b"{", None, 0), Err((Refusal::Malformed, None)));
    }

    #[test]
    fn ids_are_bounded_and_those_of_expired_commands_make_room() {
        let mut guard = Guard::new(Vec::new());
        for n in 0..MAX_IDS {
            guard.taken.insert(n.to_string(), 1_000);
        }
        assert_eq!(taken(&mut guard, &command("a", 0, 5_000), 999), Err(Refusal::TooMany));
        assert_eq!(taken(&mut guard, &command("a", 0, 5_000), 1_000), Ok(()));
        assert_eq!(guard.taken.len(), 1);
    }

    #[test]
    fn with_keys_only_what_one_of_them_signed_is_taken() {
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mut guard = Guard::new(vec![key.clone()]);
        let command = command("a", 1_500, 9_000);
        let payload = serde_json::to_vec(&command).unwrap();
        let refused = |guard: &mut Guard, signed| guard.take(&payload, signed, 2_000).unwrap_err().0;
        assert_eq!(refused(&mut guard, None), Refusal::Unsigned);
        let signature = key.sign("a", 1, &payload);
        let signed = Signed { id: "a", timestamp: 1, signature: &signature };
        let of_another_id = key.sign("b", 1, &payload);
        let wrong = Signed { id: "b", signature: &of_another_id, ..signed };
        assert_eq!(refused(&mut guard, Some(wrong)), Refusal::WrongSignature);
        let later = key.sign("a", 2, &payload);
        assert_eq!(
            refused(&mut guard, Some(Signed { timestamp: 2, signature: &later, ..signed })),
            Refusal::WrongSignature
        );
        assert!(guard.take(&payload, Some(signed), 2_000).is_ok());
    }

    #[test]
    fn desired_state_is_read_again_and_never_expires() {
        let desired = Desired {
            version: VERSION,
            id: "a".to_owned(),
            issuer: "ada@desk".to_owned(),
            issued_ms: 1_000,
            target: Address::All,
            state: crate::DesiredState::Drained,
            reason: String::new(),
        };
        let payload = serde_json::to_vec(&desired).unwrap();
        let guard = Guard::new(Vec::new());
        for _ in 0..2 {
            assert_eq!(guard.read_desired(&payload, None), Ok(desired.clone()));
        }
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(Guard::new(vec![key]).read_desired(&payload, None), Err(Refusal::Unsigned));
    }
}
