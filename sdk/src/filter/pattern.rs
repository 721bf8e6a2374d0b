use globset::{Glob, GlobMatcher};

/// How deep `{…}` may be nested: the compiler of globs recurses.
const MOST_NESTED: usize = 60;

/// Compiles a glob, which matches a whole text, in time that is linear in the text.
///
/// # Errors
/// It is not a valid glob.
pub(super) fn compile(pattern: &str) -> Result<GlobMatcher, String> {
    let mut depth = 0_usize;
    for byte in pattern.bytes() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST_NESTED {
            return Err(format!("the glob nests more than {MOST_NESTED} pairs of {{}}"));
        }
    }
    Glob::new(pattern).map(|glob| glob.compile_matcher()).map_err(|error| error.to_string())
}
