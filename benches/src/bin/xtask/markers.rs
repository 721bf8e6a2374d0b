//! The parts of a document that are generated: from `<!-- generated: NAME -->` to `<!-- end -->`.

use anyhow::{Context, Result, ensure};

const BEGIN: &str = "<!-- generated: ";
const BEGIN_END: &str = " -->";
const END: &str = "<!-- end -->";

/// The document with every generated part written anew: `write` gives the text of a part by its name.
///
/// # Errors
/// A part without an end or within another one, and whatever `write` answers.
pub(crate) fn fill(document: &str, write: &mut dyn FnMut(&str) -> Result<String>) -> Result<String> {
    let mut filled = String::with_capacity(document.len());
    let mut rest = document;
    while let Some((before, part)) = rest.split_once(BEGIN) {
        let (name, part) = part.split_once(BEGIN_END).with_context(|| format!("a line {BEGIN:?} has no end"))?;
        let (old, after) = part.split_once(END).with_context(|| format!("{name:?} has no {END:?}"))?;
        ensure!(!old.contains(BEGIN), "{name:?} has no {END:?} before the next part");
        filled.push_str(&format!("{before}{BEGIN}{name}{BEGIN_END}\n{}{END}", write(name)?));
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(document: &str) -> Result<String> {
        fill(document, &mut |name| Ok(format!("[{name}]\n")))
    }

    #[test]
    fn only_what_is_generated_changes() {
        let document = "a\n<!-- generated: x -->\nold\nold\n<!-- end -->\nb <!-- generated: y --><!-- end --> c\n";
        let expected = "a\n<!-- generated: x -->\n[x]\n<!-- end -->\nb <!-- generated: y -->\n[y]\n<!-- end --> c\n";
        assert_eq!(filled(document).unwrap(), expected);
        assert_eq!(filled(expected).unwrap(), expected);
        assert_eq!(filled("nothing\n").unwrap(), "nothing\n");
    }

    #[test]
    fn a_part_without_end_is_reported() {
        for document in
            ["<!-- generated: x", "<!-- generated: x -->", "<!-- generated: x --><!-- generated: y --><!-- end -->"]
        {
            filled(document).unwrap_err();
        }
    }
}
