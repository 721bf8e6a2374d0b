//! An answer that arrives in pieces, taken line by line.

use tallybus_sdk::SinkError;

type Each<'e> = dyn FnMut(&[u8]) -> Result<(), SinkError> + Send + 'e;

/// What has arrived of a line that has not ended.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Hands over every line that has ended, without its end; empty lines are left out.
    pub(crate) fn push(&mut self, bytes: &[u8], each: &mut Each<'_>) -> Result<(), SinkError> {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        // The last part has not ended.
        let unended = parts.next_back().unwrap_or_default();
        for part in parts {
            self.rest.extend_from_slice(part);
            if !self.rest.is_empty() {
                each(&self.rest)?;
                self.rest.clear();
            }
        }
        self.rest.extend_from_slice(unended);
        Ok(())
    }

    /// Hands over a last line without an end.
    pub(crate) fn finish(self, each: &mut Each<'_>) -> Result<(), SinkError> {
        if self.rest.is_empty() { Ok(()) } else { each(&self.rest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let text = b"one\n\ntwo\nthree";
        for size in 1..=text.len() {
            let mut found = Vec::new();
            let mut lines = Lines::default();
            let mut each = |line: &[u8]| {
                found.push(String::from_utf8_lossy(line).into_owned());
                Ok(())
            };
            for piece in text.chunks(size) {
                lines.push(piece, &mut each).unwrap();
            }
            lines.finish(&mut each).unwrap();
            assert_eq!(found, ["one", "two", "three"], "in pieces of {size}");
        }
    }
}
