//! Signatures of records and callbacks, as Standard Webhooks has them: HMAC-SHA256 over `id.timestamp.payload`
//! (<https://www.standardwebhooks.com>).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Names the message: the command's id.
pub const HEADER_ID: &str = "webhook-id";
/// Seconds since the Unix epoch.
pub const HEADER_TIMESTAMP: &str = "webhook-timestamp";
/// `v1,` and the signature in base64; several are separated by spaces.
pub const HEADER_SIGNATURE: &str = "webhook-signature";

const PREFIX: &str = "whsec_";
/// The shortest key: as many bytes as Standard Webhooks demands.
const MIN_KEY: usize = 24;
const MAX_KEY: usize = 64;

/// A key that signs. Never shown.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

/// A text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a signing key is `whsec_` and 24 to 64 random bytes in base64: `echo whsec_$(head -c 32 /dev/urandom | base64)` makes one"
)]
pub struct KeyError;

/// The headers of a signed message.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// [`HEADER_ID`]
    pub id: &'a str,
    /// [`HEADER_TIMESTAMP`]
    pub timestamp: i64,
    /// [`HEADER_SIGNATURE`]
    pub signature: &'a str,
}

impl Key {
    /// A key, from the form in which Standard Webhooks writes them.
    ///
    /// # Errors
    /// It is none; the error does not show it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(KeyError)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| KeyError)?;
        if !(MIN_KEY..=MAX_KEY).contains(&bytes.len()) {
            return Err(KeyError);
        }
        Hmac::new_from_slice(&bytes).map(Self).map_err(|_| KeyError)
    }

    /// The value of [`HEADER_SIGNATURE`].
    pub fn sign(&self, id: &str, timestamp: i64, payload: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.mac(id, timestamp, payload).finalize().into_bytes()))
    }

    /// Whether one of the signatures is of this key. Takes the same time for each signature, right or wrong.
    pub fn verify(&self, signed: &Signed<'_>, payload: &[u8]) -> bool {
        // More than a handful are of no use to anybody who is honest.
        let signatures = signed.signature.split(' ').take(8).filter_map(|signature| signature.strip_prefix("v1,"));
        let mut decoded = signatures.filter_map(|signature| STANDARD.decode(signature).ok());
        decoded.any(|bytes| self.mac(signed.id, signed.timestamp, payload).verify_slice(&bytes).is_ok())
    }

    fn mac(&self, id: &str, timestamp: i64, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(payload);
        mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn a_signature_is_the_one_of_the_specification() {
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let payload = br#"{"test": 2432232314}"#;
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, payload);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn one_of_several_signatures_is_enough_and_a_changed_message_has_none() {
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let other = Key::parse("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        let both = format!("{} v1a,xyz {}", other.sign("a", 1, b"x"), key.sign("a", 1, b"x"));
        let signed = Signed { id: "a", timestamp: 1, signature: &both };
        assert!(key.verify(&signed, b"x") && other.verify(&signed, b"x"));
        assert!(!key.verify(&signed, b"y"));
        assert!(!key.verify(&Signed { id: "b", ..signed }, b"x"));
        assert!(!key.verify(&Signed { timestamp: 2, ..signed }, b"x"));
        assert!(!key.verify(&Signed { signature: "v1,", ..signed }, b"x"));
    }

    #[test]
    fn a_text_that_is_no_key_is_refused_and_not_shown() {
        for text in ["", "whsec_", "secret", "whsec_c2hvcnQ=", "whsec_%%%"] {
            assert_eq!(Key::parse(text).unwrap_err(), KeyError);
        }
        assert_eq!(format!("{:?}", Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()), "Key(***)");
    }
}
