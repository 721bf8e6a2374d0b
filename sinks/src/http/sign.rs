//! The signature of a request. Pure, and the same on every attempt: it uses neither a clock nor randomness.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};
use tallybus_sdk::text::hex;

use super::config::{Algorithm, Signing, Signs};

/// The value of the signature's header.
pub(super) fn signature(signing: &Signing, key: &str, body: &[u8]) -> String {
    let parts: &[&[u8]] = match signing.signs {
        Signs::Body => &[body],
        Signs::KeyAndBody => &[key.as_bytes(), b".", body],
    };
    let secret = signing.secret.expose().as_bytes();
    let digest = match signing.algorithm {
        Algorithm::Sha256 => mac::<Hmac<Sha256>>(secret, parts),
        Algorithm::Sha512 => mac::<Hmac<Sha512>>(secret, parts),
    };
    format!("{}{}", signing.prefix, hex(&digest))
}

fn mac<M: Mac + KeyInit>(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC accepts a key of any length; without a signature the server would refuse the request.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret) else { return Vec::new() };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderName;
    use tallybus_sdk::config::Secret;

    use super::*;

    fn signing(algorithm: Algorithm, signs: Signs, prefix: &str) -> Signing {
        let header = HeaderName::from_static("x-signature");
        Signing { header, secret: Secret::new("Jefe"), algorithm, signs, prefix: prefix.to_owned() }
    }

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        let body = b"what do ya want for nothing?";
        assert_eq!(
            signature(&signing(Algorithm::Sha256, Signs::Body, "sha256="), "key", body),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            signature(&signing(Algorithm::Sha512, Signs::Body, ""), "key", body),
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a\
             6b4b636e070a38bce737"
        );
        let with_key = signature(&signing(Algorithm::Sha256, Signs::KeyAndBody, ""), "what do ya", b"x");
        assert_eq!(with_key, signature(&signing(Algorithm::Sha256, Signs::Body, ""), "", b"what do ya.x"));
    }
}
