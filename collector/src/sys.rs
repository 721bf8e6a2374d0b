//! Calls into the C library.
#![allow(unsafe_code, reason = "two calls into the C library, each with its proof")]

/// Calls `hook` when the process ends by returning from `main` or by `exit`. Hooks run in the reverse order of their
/// registration. Returns whether it was registered.
pub(crate) fn at_exit(hook: extern "C" fn()) -> bool {
    // SAFETY: `atexit` may be called from any thread and keeps only the pointer of a function that takes and returns
    // nothing by the C convention, as the type of `hook` says; functions live as long as the process.
    unsafe { libc::atexit(hook) == 0 }
}

/// This machine's name, if it has one.
pub(crate) fn host_name() -> Option<String> {
    let mut name = [0u8; 256];
    // SAFETY: the pointer and the length describe `name`, which outlives the call; the last byte is kept back so that
    // a name cut short still ends with a zero.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) } != 0;
    let end = name.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&name[..end]).ok()?;
    (!failed && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_a_name() {
        let name = super::host_name().unwrap();
        assert!(!name.contains('\0') && name.len() < 256, "{name:?}");
    }
}
