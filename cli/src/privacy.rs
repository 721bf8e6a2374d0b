//! Who may read the files that this process creates: by default nobody but its own user.

use rustix::fs::Mode;
use rustix::process::umask;

/// The environment variable with another umask, in octal digits.
pub(crate) const VARIABLE: &str = "TALLYBUS_UMASK";

/// Group and others get no rights.
const PRIVATE: Mode = Mode::RWXG.union(Mode::RWXO);

/// From now on, files and directories are created without rights for group and others, or as the environment variable says.
/// Nothing that exists is changed.
///
/// # Errors
/// The variable holds no umask.
pub(crate) fn apply() -> Result<(), String> {
    match std::env::var(VARIABLE) {
        Ok(text) => drop(umask(parse(&text)?)),
        Err(std::env::VarError::NotPresent) => {
            // One that is stricter already stays so.
            let inherited = umask(PRIVATE);
            umask(inherited.union(PRIVATE));
        }
        Err(std::env::VarError::NotUnicode(_)) => return Err(expected()),
    }
    Ok(())
}

fn parse(text: &str) -> Result<Mode, String> {
    let is_octal = !text.is_empty() && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| is_octal && *bits <= 0o777);
    bits.map(|bits| Mode::from_bits_truncate(bits as _)).ok_or_else(expected)
}

fn expected() -> String {
    format!("the environment variable {VARIABLE} is not a umask: expected octal digits such as 027, up to 777")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_umask_is_octal_and_covers_no_more_than_the_rights() {
        assert_eq!(parse("027"), Ok(Mode::WGRP | Mode::RWXO));
        assert_eq!(parse("0"), Ok(Mode::empty()));
        assert_eq!(PRIVATE, Mode::from_bits_truncate(0o077));
        for wrong in ["", "8", "+27", "1000", "27 ", "0o27"] {
            assert!(parse(wrong).unwrap_err().contains(VARIABLE), "{wrong:?}");
        }
    }
}
