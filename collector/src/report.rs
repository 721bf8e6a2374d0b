use std::fmt;

/// What became of everything counted, from the collector's start to its end. All numbers are sums of counts, except
/// `messages`.
///
/// `emitted = delivered + undelivered + unknown`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Counted by this process; what waited in the counters when the collector started included.
    pub emitted: u64,
    /// Acknowledged by the bus.
    pub delivered: u64,
    /// Certainly not on the bus. It is in the counters still: a collector started later delivers it.
    pub undelivered: u64,
    /// Perhaps on the bus: handed over, and not answered. It is not sent again, since that could count it twice.
    pub unknown: u64,
    /// Messages acknowledged.
    pub messages: u64,
}

impl Report {
    /// Whether everything was delivered.
    pub fn is_complete(&self) -> bool {
        self.delivered == self.emitted
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "emitted {}, delivered {} in {} messages", self.emitted, self.delivered, self.messages)?;
        if self.undelivered > 0 {
            write!(f, ", undelivered {}", self.undelivered)?;
        }
        if self.unknown > 0 {
            write!(f, ", unknown {}", self.unknown)?;
        }
        Ok(())
    }
}

/// How a running collector fares. Sums of counts unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Counted, as in [`Report::emitted`].
    pub emitted: u64,
    /// Acknowledged by the bus.
    pub delivered: u64,
    /// Handed to the bus and not answered yet.
    pub in_flight: u64,
    /// In the counters, to be sent.
    pub waiting: u64,
    /// Perhaps on the bus, as in [`Report::unknown`].
    pub unknown: u64,
    /// Messages acknowledged.
    pub messages: u64,
    /// Messages refused, whose counts went back into the counters.
    pub give_backs: u64,
    /// Calls to the bus that failed, and messages refused or lost sight of.
    pub flush_errors: u64,
    /// Series there are, the overflow series included.
    pub series: u64,
    /// Counted in overflow series, because of the cap on series.
    pub overflowed: u64,
    /// Names and tags that had to be made to fit; each distinct one counts once, as long as there are not too many.
    pub sanitised: u64,
}
