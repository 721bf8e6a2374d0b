//! A real Kafka under the contract.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod contract;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use tallybus_bus::Bus;
use tallybus_bus::kafka::KafkaBus;
use tallybus_tests::KafkaServer;

/// One broker for all cases, so that they also meet each other as strangers do.
struct Kafka {
    server: KafkaServer,
}

impl contract::Subject for Kafka {
    fn bus(&self) -> Box<dyn Bus> {
        reopen(&self.address())
    }

    fn address(&self) -> String {
        self.server.bootstrap()
    }

    fn session_timeout(&self) -> Duration {
        Duration::from_secs(3)
    }
}

fn reopen(address: &str) -> Box<dyn Bus> {
    Box::new(KafkaBus::new(address, &BTreeMap::new()).unwrap())
}

/// The broker ends with the process.
fn subject() -> Option<&'static Kafka> {
    static SUBJECT: OnceLock<Option<Kafka>> = OnceLock::new();
    SUBJECT.get_or_init(|| Some(Kafka { server: tallybus_tests::kafka()? })).as_ref()
}

contract::suite!(
    match subject() {
        Some(subject) => subject,
        None => return,
    },
    reopen
);
