use tallybus_bus::Bus;

/// Whether the collector cannot publish; logs the first failure of an outage, none after it, and its end.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    lasts: bool,
}

impl Outage {
    pub(crate) fn lasts(&self) -> bool {
        self.lasts
    }

    pub(crate) fn begin(&mut self, bus: &dyn Bus, topic: &str, error: &str) {
        if !self.lasts {
            self.lasts = true;
            tracing::warn!(bus = bus.describe(), topic, error, "cannot publish, retrying (no count is lost)");
        }
    }

    pub(crate) fn end(&mut self, bus: &dyn Bus, topic: &str) {
        if self.lasts {
            self.lasts = false;
            tracing::info!(bus = bus.describe(), topic, "publishing again: all partitions have recovered");
        }
    }
}
