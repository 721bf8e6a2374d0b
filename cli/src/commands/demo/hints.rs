//! What to try after the demo: commands that need no other program.

use std::path::Path;

/// A command, and what it is for.
pub(super) struct Hint {
    pub(super) command: String,
    pub(super) what: &'static str,
}

/// The commands, in the order in which they make sense; the first one goes into the demo's directory.
pub(super) fn hints(directory: &Path) -> Vec<Hint> {
    let mut hints = vec![hint(&format!("cd {}", shown(directory)), "its tallybus.toml is found there")];
    if let Some(program) = program_off_path() {
        // On a line of its own: the path may be long.
        hints.push(hint(&format!("alias tallybus={program}"), ""));
    }
    hints.extend([
        hint("tallybus emit demo.mine 42 --tag who=me", "count something yourself"),
        hint("tallybus run --until-caught-up", "write it into all three backends"),
        hint("tallybus audit", "compare them with the bus again"),
        hint("tallybus count --by status", "ask the bus itself"),
        hint("tallybus tap", "follow the bus; Ctrl-C ends it"),
        hint("tallybus compare run --shadow --page c.html", "what each can do; takes minutes"),
        hint("tallybus sinks", "the backends that there are"),
        hint("tallybus init --output mine.toml", "settings of your own: it asks"),
    ]);
    hints
}

fn hint(command: &str, what: &'static str) -> Hint {
    Hint { command: command.to_owned(), what }
}

/// One line for each, with what it is for behind it.
pub(super) fn lines(hints: &[Hint]) -> Vec<String> {
    /// The longest of the commands that are the same everywhere.
    const WIDTH: usize = 43;
    let line = |hint: &Hint| match hint.what {
        "" => hint.command.clone(),
        what if hint.command.chars().count() > WIDTH => format!("{}   {what}", hint.command),
        what => format!("{:<WIDTH$}   {what}", hint.command),
    };
    hints.iter().map(line).collect()
}

/// The shortest form of a path here, for a shell.
pub(super) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).ok();
    let path = here.as_deref().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).display().to_string();
    quoted(&path)
}

fn quoted(path: &str) -> String {
    let plain = path.chars().all(|character| character.is_ascii_alphanumeric() || "/._-".contains(character));
    if plain { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// The path of this program, for a shell, unless the search path contains it.
fn program_off_path() -> Option<String> {
    let program = std::env::current_exe().and_then(|program| program.canonicalize()).ok()?;
    let is_on_path = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .any(|place| place.join("tallybus").canonicalize().is_ok_and(|found| found == program))
    });
    // From the root: the commands are given in another directory.
    (!is_on_path).then(|| quoted(&program.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal_of_80_columns_but_for_long_paths() {
        let lines = lines(&hints(Path::new("/tmp/my demo's")));
        assert!(lines.iter().any(|line| line.starts_with(r"cd '/tmp/my demo'\''s'")), "{lines:?}");
        // Two spaces come before each.
        let wide = |line: &&String| line.chars().count() > 78 && !line.starts_with("alias ");
        assert_eq!(lines.iter().filter(wide).count(), 0, "{lines:?}");
    }
}
