//! Says where a server is of another version than the settings name: most of its refusals then have that cause.

use tallybus_sdk::SinkError;

use super::InfluxSink;

impl InfluxSink {
    /// An error that needs operator action, with the server's version where the setting `api` does not fit it.
    pub(super) async fn explained<T: Send>(&self, outcome: Result<T, SinkError>) -> Result<T, SinkError> {
        match outcome {
            Err(SinkError::Halt(reason)) => Err(SinkError::Halt(self.with_version(reason).await)),
            outcome => outcome,
        }
    }

    pub(super) async fn with_version(&self, reason: String) -> String {
        // A server that does not say its version explains nothing; the reason is complete without it.
        let Ok(Some(version)) = self.client.ping().await else { return reason };
        match wanted_api(&version).filter(|wanted| (*wanted == "v2") != self.v2.is_some()) {
            Some(wanted) => {
                format!("{reason}. The server is InfluxDB {version}: `api = \"{wanted}\"` is most likely wanted")
            }
            None => reason,
        }
    }
}

/// The value of `api` for a server that reports this version: `1.8.10`, or `v2.7.1`.
fn wanted_api(version: &str) -> Option<&'static str> {
    let major: u32 = version.trim_start_matches('v').split('.').next()?.parse().ok()?;
    Some(if major < 2 { "v1" } else { "v2" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_follows_from_the_major_version() {
        for (version, expected) in [
            ("1.6.7", Some("v1")),
            ("1.8.10", Some("v1")),
            ("v2.7.1", Some("v2")),
            ("2.0.0", Some("v2")),
            ("relay", None),
        ] {
            assert_eq!(wanted_api(version), expected, "{version}");
        }
    }
}
