use std::time::Instant;

/// Tells a lasting trouble once when it begins, once when it changes, and once when it is over.
#[derive(Debug)]
pub(crate) struct TroubleLog {
    sink: String,
    whose: &'static str,
    since: Option<(Instant, String)>,
    times: u64,
}

impl TroubleLog {
    pub(crate) fn new(sink: &str, whose: &'static str) -> Self {
        Self { sink: sink.to_owned(), whose, since: None, times: 0 }
    }

    pub(crate) fn note(&mut self, reason: &str) {
        self.times += 1;
        let kind = kind_of(reason);
        match &mut self.since {
            Some((_, known)) if kind_of(known) == kind => reason.clone_into(known),
            Some((_, known)) => {
                reason.clone_into(known);
                tracing::warn!(sink = self.sink, reason, "{} fails in another way", self.whose);
            }
            None => {
                self.since = Some((Instant::now(), reason.to_owned()));
                tracing::warn!(
                    sink = self.sink,
                    whose = self.whose,
                    reason,
                    "trouble; nothing is lost, it is tried again"
                );
            }
        }
    }

    pub(crate) fn over(&mut self) {
        if let Some((since, _)) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!(sink = self.sink, seconds, times = self.times, "{} works again", self.whose);
            self.times = 0;
        }
    }

    pub(crate) fn current(&self) -> Option<String> {
        self.since.as_ref().map(|(_, reason)| reason.clone())
    }
}

/// What a reason says before its figures: two reasons that differ in a number or a detail are the same trouble.
fn kind_of(reason: &str) -> &str {
    let end = reason.find(|letter: char| letter.is_ascii_digit() || letter == '(').unwrap_or(reason.len());
    &reason[..end]
}
