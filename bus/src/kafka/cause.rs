//! The cause of a connection that fails, and the property to look at, from the client library's own words.

/// What it means when a connection with TLS ends within the handshake.
const NO_TLS: &str =
    "the broker does not speak TLS on this port, or ended the handshake: check the port, and `security.protocol`";

/// Phrases of librdkafka and of the brokers, and what they mean.
const CAUSES: &[(&str, &str)] = &[
    (
        "certificate verify failed",
        "the broker's certificate cannot be verified: it is not signed by an authority in `ssl.ca.location` (by default those of \
         the system), or is for another host name than the one in `brokers`, or has expired",
    ),
    ("connecting to a PLAINTEXT broker listener", NO_TLS),
    // The same, where the connection's end is noticed before the handshake's failure.
    ("SSL connection closed by peer", NO_TLS),
    ("mechanism handshake failed", "the broker does not offer this login: set `sasl.mechanism` to one that it offers"),
    ("SASL authentication error", "authentication failed: check `sasl.username`, `sasl.password` and `sasl.mechanism`"),
    (
        "certificate required",
        "the broker demands a client certificate: set `ssl.certificate.location` and `ssl.key.location`",
    ),
    (
        "SSL handshake failed",
        "the broker and this client agree on no TLS connection: check `security.protocol` and the certificates",
    ),
];

/// What it means when a connection without TLS ends before the first answer.
const NO_ANSWER: &str = "the broker ended the connection before it answered: if it speaks TLS on this port, set `security.protocol` \
                         to \"SSL\" or \"SASL_SSL\"";

/// The reason, with its cause before it where it is known.
pub(super) fn with_cause(reason: &str) -> String {
    let is_unanswered = reason.contains("in state APIVERSION_QUERY") && !reason.contains("ssl://");
    let known = CAUSES.iter().find(|(phrase, _)| reason.contains(phrase)).map(|(_, cause)| *cause);
    match known.or(is_unanswered.then_some(NO_ANSWER)) {
        Some(cause) => format!("{cause} ({reason})"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_phrase_decides_and_the_clients_own_words_stay() {
        let reason = "sasl_ssl://b:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: \
                      broker certificate could not be verified (after 5ms in state SSL_HANDSHAKE)";
        let told = with_cause(reason);
        assert!(
            told.starts_with("the broker's certificate cannot be verified") && told.ends_with(&format!("({reason})"))
        );
        let refused = "b:9092: SASL authentication error: Authentication failed: Invalid username or password";
        assert!(with_cause(refused).starts_with("authentication failed: check `sasl.username`"));
        let closed = "ssl://b:9092: Disconnected: SSL connection closed by peer (after 0ms in state SSL_HANDSHAKE)";
        assert!(with_cause(closed).starts_with("the broker does not speak TLS on this port"));
        let plain = "b:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused";
        assert_eq!(with_cause(plain), plain);
        let ended = "b:9093/bootstrap: Disconnected: connection closed by peer (after 0ms in state APIVERSION_QUERY)";
        assert!(with_cause(ended).starts_with("the broker ended the connection before it answered"));
        let encrypted = format!("ssl://{ended}");
        assert_eq!(with_cause(&encrypted), encrypted);
    }
}
