//! How far a long command has come: one line on a terminal, redrawn in place and erased at the end.

use std::time::{Duration, Instant};

use crate::output::Output;
use crate::text::{duration, grouped};

/// A command that is done by then shows nothing.
const QUIET: Duration = Duration::from_millis(300);
/// The line is redrawn at most so often.
const EVERY: Duration = Duration::from_millis(100);
/// How long the past has to be before the rest is estimated from it.
const ESTIMATED_AFTER: Duration = Duration::from_secs(1);

/// Draws a line in place of the last one.
type Draw<'o> = Box<dyn FnMut(&str) + 'o>;

/// The line; erased when dropped.
pub(crate) struct Progress<'o> {
    /// Draws the line; `None` where none is shown: in a pipe, and beside JSON.
    draw: Option<Draw<'o>>,
    /// What is counted, in the plural.
    what: &'static str,
    /// When the command began, for the first line.
    began: Instant,
    /// When what is counted now began, and the last count.
    counting: (Instant, u64),
    drawn: Option<Instant>,
}

impl<'o> Progress<'o> {
    pub(crate) fn new(output: &'o Output, what: &'static str) -> Self {
        let is_shown = output.is_terminal() && !output.json;
        let draw = move |text: &str| output.redraw(text);
        Self::drawn_by(is_shown.then(|| Box::new(draw) as _), what, Instant::now())
    }

    fn drawn_by(draw: Option<Draw<'o>>, what: &'static str, now: Instant) -> Self {
        Self { draw, what, began: now, counting: (now, 0), drawn: None }
    }

    /// Shows how many are done, of how many, and for how long the rest will take at the same rate.
    pub(crate) fn at(&mut self, done: u64, whole: u64) {
        self.at_time(Instant::now(), done, whole, "");
    }

    /// As [`Progress::at`], with a text behind it.
    pub(crate) fn at_with(&mut self, done: u64, whole: u64, more: &str) {
        self.at_time(Instant::now(), done, whole, more);
    }

    fn at_time(&mut self, now: Instant, done: u64, whole: u64, more: &str) {
        // Counting has begun again, as with another pass over the topic.
        if done < self.counting.1 {
            self.counting.0 = now;
        }
        self.counting.1 = done;
        if self.is_due(now) {
            let text = line(done, whole, now.duration_since(self.counting.0), self.what);
            self.draw(now, &format!("{text}{more}"));
        }
    }

    /// Shows what the command does while there is nothing to count, at once: it may take long. What is counted begins after it.
    pub(crate) fn says(&mut self, text: &str) {
        let now = Instant::now();
        self.draw(now, text);
        self.counting = (now, 0);
    }

    /// Whether the line may be drawn now.
    fn is_due(&self, now: Instant) -> bool {
        self.draw.is_some()
            && now.duration_since(self.began) >= QUIET
            && self.drawn.is_none_or(|drawn| now.duration_since(drawn) >= EVERY)
    }

    fn draw(&mut self, now: Instant, text: &str) {
        if let Some(draw) = &mut self.draw {
            draw(text);
            self.drawn = Some(now);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(draw) = self.draw.as_mut().filter(|_| self.drawn.is_some()) {
            draw("");
        }
    }
}

/// `1,200 of 5,000 messages, 24%, about 3m 20s left`.
fn line(done: u64, whole: u64, elapsed: Duration, what: &str) -> String {
    // More than there were when it began: how much is left is not known.
    if done > whole {
        return format!("{} {what}", grouped(done));
    }
    let mut text = format!("{} of {} {what}", grouped(done), grouped(whole));
    if let Some(percent) = (u128::from(done) * 100).checked_div(u128::from(whole)) {
        text.push_str(&format!(", {percent}%"));
    }
    if done > 0 && done < whole && elapsed >= ESTIMATED_AFTER {
        let seconds = elapsed.as_secs_f64() / done as f64 * (whole - done) as f64;
        // A rate so low that the rest would take longer than a duration can be says nothing.
        if let Ok(left) = Duration::try_from_secs_f64(seconds.ceil()) {
            text.push_str(&format!(", about {} left", duration(left)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_line_has_count_share_and_the_time_that_is_left() {
        let seconds = Duration::from_secs;
        for (done, whole, elapsed, expected) in [
            (1_200, 5_000, seconds(60), "1,200 of 5,000 messages, 24%, about 3m 10s left"),
            (1, 3, seconds(1), "1 of 3 messages, 33%, about 2s left"),
            (1_200, 5_000, Duration::from_millis(900), "1,200 of 5,000 messages, 24%"),
            (0, 5, seconds(60), "0 of 5 messages, 0%"),
            (5, 5, seconds(60), "5 of 5 messages, 100%"),
            (0, 0, seconds(60), "0 of 0 messages"),
            (6, 5, seconds(60), "6 messages"),
            (
                u64::MAX - 1,
                u64::MAX,
                seconds(60),
                "18,446,744,073,709,551,614 of 18,446,744,073,709,551,615 messages, 99%, about 1s left",
            ),
        ] {
            assert_eq!(line(done, whole, elapsed, "messages"), expected);
        }
    }

    #[test]
    fn the_line_is_drawn_late_seldom_and_erased_at_the_end() {
        let lines = RefCell::new(Vec::new());
        let begin = Instant::now();
        let after = |milliseconds| begin + Duration::from_millis(milliseconds);
        {
            let draw = |text: &str| lines.borrow_mut().push(text.to_owned());
            let mut progress = Progress::drawn_by(Some(Box::new(draw)), "messages", begin);
            progress.at_time(after(200), 1, 100, "");
            progress.at_time(after(400), 2, 100, "");
            progress.at_time(after(450), 3, 100, "");
            progress.at_time(after(2_000), 50, 100, "; more");
            // Another pass: its own rate counts.
            progress.at_time(after(4_000), 1, 100, "");
            progress.at_time(after(5_000), 50, 100, "");
        }
        assert_eq!(
            lines.into_inner(),
            [
                "2 of 100 messages, 2%",
                "50 of 100 messages, 50%, about 2s left; more",
                "1 of 100 messages, 1%",
                "50 of 100 messages, 50%, about 1s left",
                "",
            ]
        );
    }

    #[test]
    fn nothing_is_erased_where_nothing_was_drawn() {
        let lines = RefCell::new(Vec::new());
        let draw = |text: &str| lines.borrow_mut().push(text.to_owned());
        drop(Progress::drawn_by(Some(Box::new(draw)), "messages", Instant::now()));
        assert!(lines.into_inner().is_empty());
        // Where there is no terminal.
        Progress::drawn_by(None, "messages", Instant::now()).says("reading");
    }
}
