//! A service logs in to Kafka, and its password shows nowhere.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tallybus::{Builder, count};
use tracing_subscriber::fmt::MakeWriter;

const USER: &str = "api";
const PASSWORD: &str = "correct-horse-battery";
const WRONG: &str = "incorrect-donkey-charger";

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn builder(password: &str) -> Builder {
    tallybus::builder()
        .service(USER)
        .flush_interval(Duration::from_millis(50))
        .kafka("security.protocol", "SASL_PLAINTEXT")
        .kafka("sasl.mechanism", "PLAIN")
        .kafka("sasl.username", USER)
        .kafka("sasl.password", password)
}

#[test]
fn a_service_with_credentials_delivers_and_its_password_never_shows() {
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .init();
    let Some(kafka) = tallybus_tests::kafka_with_sasl(USER, PASSWORD) else { return };
    let connection = || tallybus::connect(&format!("kafka://{}", kafka.bootstrap())).unwrap();

    // First with a wrong password: nothing is delivered, nothing is lost.
    count!("logins", 3);
    let guard = builder(WRONG).start(connection()).unwrap();
    assert!(!guard.flush(Duration::from_secs(3)));
    let report = guard.shutdown(Duration::from_millis(100));
    assert_eq!((report.emitted, report.delivered, report.undelivered), (3, 0, 3), "{report}");
    assert!(log.text().contains("cannot publish, retrying (no count is lost)"), "{}", log.text());

    // Then with the right one: the counts that waited come along.
    count!("logins", 4);
    let right = builder(PASSWORD).create_topic(2);
    let shown = format!("{right:?}");
    assert!(shown.contains("sasl.password") && !shown.contains(PASSWORD), "{shown}");
    let guard = right.start(connection()).unwrap();
    assert!(guard.flush(Duration::from_secs(30)), "{}", log.text());
    let report = guard.shutdown(Duration::from_secs(10));
    assert_eq!((report.emitted, report.delivered), (7, 7), "{report}");

    for secret in [PASSWORD, WRONG] {
        assert!(!log.text().contains(secret), "the log holds a password: {}", log.text());
    }
}
