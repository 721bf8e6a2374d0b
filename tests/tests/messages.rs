//! Every warning and error that an operator can find in the log is explained in `docs/troubleshooting.md`.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

const PRODUCT: [&str; 8] = ["bus", "control", "collector", "sdk", "sinks", "worker", "verify", "cli"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The sources of the product without those of tests.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = PRODUCT.iter().map(|name| root().join(name).join("src")).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            if name.contains("test") || name.contains("simulation") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap();
                let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
                found.push((name, text[..end].to_owned()));
            }
        }
    }
    found
}

/// The arguments of a macro's call, from behind its opening parenthesis on.
fn arguments(text: &str) -> &str {
    let (mut depth, mut in_literal, mut is_escaped) = (1, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if in_literal => is_escaped = true,
            '"' => in_literal = !in_literal,
            '(' if !in_literal => depth += 1,
            ')' if !in_literal => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

/// The longest literal in the arguments of a call: its message. Line breaks are joined, and what is filled in is `…`.
fn message(arguments: &str) -> Option<String> {
    let (mut literals, mut current, mut is_escaped) = (Vec::new(), None::<String>, false);
    for c in arguments.chars() {
        match (&mut current, c) {
            (None, '"') => current = Some(String::new()),
            (None, _) => {}
            (Some(text), _) if is_escaped => {
                is_escaped = false;
                text.push(c);
            }
            (Some(_), '\\') => is_escaped = true,
            (Some(_), '"') => literals.extend(current.take()),
            (Some(text), _) => text.push(c),
        }
    }
    let longest = literals.into_iter().max_by_key(String::len)?;
    let joined = longest.split('\n').map(str::trim_start).collect::<String>();
    let mut message = String::new();
    let mut rest = joined.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        message.push_str(before);
        message.push('…');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    Some(message + rest)
}

/// Those of the log, each with its file.
fn messages() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in sources() {
        for level in ["warn!(", "error!("] {
            for (at, _) in text.match_indices(&format!("tracing::{level}")) {
                let call = &text[at + "tracing::".len() + level.len()..];
                if let Some(message) = message(arguments(call)) {
                    found.push((name.clone(), message));
                }
            }
        }
    }
    found
}

#[test]
fn every_warning_and_error_of_the_log_is_explained() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let found = messages();
    assert!(found.len() > 40, "only {} messages were found", found.len());
    let is_explained = |message: &str| {
        [message.to_owned(), until_variable(message)].iter().any(|line| page.contains(&format!("\n| `{line}` | ")))
    };
    let unexplained: Vec<String> = found
        .iter()
        .filter(|(_, message)| !is_explained(message))
        .map(|(name, message)| format!("{name}: {message}"))
        .collect();
    assert!(unexplained.is_empty(), "docs/troubleshooting.md does not explain:\n{}", unexplained.join("\n"));
}

#[test]
fn every_line_that_is_explained_is_one_of_the_log() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let known = messages();
    let lines = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(line, _)| line));
    let causes = ["start", "records", "group_offset", "recreated", "backend"];
    let gone: Vec<&str> = lines
        .filter(|line| !causes.iter().any(|cause| line.starts_with(cause)))
        .filter(|line| !known.iter().any(|(_, message)| message == line || until_variable(message) == *line))
        .collect();
    assert!(gone.is_empty(), "no source logs these:\n{}", gone.join("\n"));
}

/// A message up to what is filled in at the end of its first clause, as the page has the messages that end in a command.
fn until_variable(message: &str) -> String {
    match message.split_once("; `") {
        Some((before, _)) => format!("{before}; …"),
        None => message.to_owned(),
    }
}
