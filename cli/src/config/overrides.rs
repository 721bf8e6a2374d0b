//! Settings that the environment overrides, and which of the problems are theirs.

use serde_json::{Map, Value};
use tallybus_sdk::Kind;
use tallybus_sdk::config::{Problem, key_path};
use tallybus_worker::settings::COMMON_SETTINGS;

use super::Source;

/// The prefix of overriding variables: `TALLYBUS__BUS__BROKERS`.
pub(super) const PREFIX: &str = "TALLYBUS__";

/// A setting that is not the file's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    /// The outermost setting or table that is there, or has its value, only because of this override.
    path: String,
    /// The last key of the path.
    key: String,
    by: By,
}

/// What overrides a setting. In the order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    /// The environment variable of this name.
    Variable(String),
    /// The option `--bus`.
    BusOption,
}

impl By {
    fn describe(&self) -> String {
        match self {
            Self::Variable(name) => format!("the environment variable {name}"),
            Self::BusOption => "--bus".to_owned(),
        }
    }

    /// As the place of problems, beside a file.
    fn place(&self) -> &'static str {
        match self {
            Self::Variable(_) => "the environment",
            Self::BusOption => "--bus",
        }
    }
}

impl Override {
    /// The override of a key of `[bus]` by `--bus`.
    pub(super) fn of_bus_option(key: &str) -> Self {
        Self { path: key_path(["bus", key]), key: key.to_owned(), by: By::BusOption }
    }

    /// Whether the setting with this path is there, or has its value, because of this override.
    fn has_set(&self, path: &str) -> bool {
        below(path, &self.path)
    }

    fn is_of(&self, problem: &Problem) -> bool {
        // Problems of librdkafka's properties are those of their table, and name the property.
        self.has_set(&problem.path)
            || below(&self.path, &problem.path) && problem.message.contains(&format!("`{}`", self.key))
    }
}

/// Whether a path is another one, or below it.
fn below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What overrides a setting; `None` when the file's own value holds.
pub(super) fn overriding<'o>(overrides: &'o [Override], path: &str) -> Option<&'o By> {
    innermost(overrides.iter().filter(|with| with.has_set(path))).map(|with| &with.by)
}

/// Of two with one path, the later one has precedence.
fn innermost<'o>(overrides: impl Iterator<Item = &'o Override>) -> Option<&'o Override> {
    overrides.max_by_key(|with| with.path.len())
}

/// Applies the environment's overrides, and returns them. Keys are matched regardless of case, and with `_` for
/// characters that a variable's name cannot have: `TALLYBUS__SINKS__MY_SINK__URL` is the key `url` of the sink
/// `my-sink`, if that sink exists.
pub(super) fn apply(value: &mut Value, variables: impl IntoIterator<Item = (String, String)>) -> Vec<Override> {
    let is_override = |(name, text): &(String, String)| name.starts_with(PREFIX) && !text.is_empty();
    let mut variables: Vec<_> = variables.into_iter().filter(is_override).collect();
    variables.sort();
    let mut overrides = Vec::new();
    for (name, text) in variables {
        let parts: Vec<&str> = name[PREFIX.len()..].split("__").collect();
        if parts.iter().all(|part| !part.is_empty()) {
            let keys = set(value, &parts, text);
            let path = key_path(keys.iter().map(String::as_str));
            overrides.push(Override { path, key: keys.last().cloned().unwrap_or_default(), by: By::Variable(name) });
        }
    }
    overrides
}

/// Why a variable that looks like an override is none, with the name that it should probably have; `None` for all others.
pub(super) fn why_ignored(name: &str, kinds: &[Kind]) -> Option<String> {
    let upper = name.to_uppercase();
    let is_ignored = match name.strip_prefix(PREFIX) {
        Some(rest) => rest.split("__").any(str::is_empty),
        None => {
            let is_near = |rest: &str| {
                let mut tables = ["BUS", "SINKS", "STATUS", "CONTROL"].iter();
                tables
                    .any(|table| rest.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
            };
            upper.starts_with(PREFIX) || upper.strip_prefix("TALLYBUS_").is_some_and(is_near)
        }
    };
    if !is_ignored {
        return None;
    }
    let form = "names of overriding variables begin with TALLYBUS__, and two underscores separate their parts";
    Some(match probable(&upper, kinds) {
        Some(right) => format!("did you mean {right}? {form}"),
        None => format!("{form}, as in TALLYBUS__BUS__PATH"),
    })
}

/// The name that a variable should probably have.
fn probable(upper: &str, kinds: &[Kind]) -> Option<String> {
    let rest = upper.strip_prefix("TALLYBUS")?.trim_matches('_');
    let (table, rest) = rest.split_once('_')?;
    let rest = rest.trim_start_matches('_');
    let parts: Vec<String> = match table {
        _ if rest.contains("__") => rest.split("__").map(|part| part.trim_matches('_').to_owned()).collect(),
        "BUS" => match rest.strip_prefix("KAFKA_") {
            Some(property) => vec!["KAFKA".to_owned(), property.to_owned()],
            None => vec![rest.to_owned()],
        },
        "STATUS" | "CONTROL" => vec![rest.to_owned()],
        "SINKS" => {
            let settings = COMMON_SETTINGS.iter().chain(kinds.iter().flat_map(|kind| kind.settings));
            let keys = settings.map(|setting| setting.key.to_uppercase());
            // The longest: `batch.max_events` ends a name that no setting `max_events` does.
            let of_sink = |key: &String| {
                let sink = rest.strip_suffix(&key.replace('.', "_"))?.strip_suffix('_')?;
                (!sink.is_empty()).then(|| vec![sink.to_owned(), key.replace('.', "__")])
            };
            keys.filter(|key| of_sink(key).is_some()).max_by_key(String::len).as_ref().and_then(of_sink)?
        }
        _ => return None,
    };
    let is_sound = !parts.iter().any(String::is_empty);
    is_sound.then(|| format!("{PREFIX}{table}__{}", parts.join("__")))
}

/// Sets a value, and returns the keys down to the outermost one that was not there before, or else all of them.
fn set(value: &mut Value, parts: &[&str], text: String) -> Vec<String> {
    let mut keys: Vec<String> = Vec::with_capacity(parts.len());
    let mut made_at = None;
    let mut here = value;
    for part in parts {
        if !here.is_object() {
            made_at = made_at.or(Some(keys.len()));
            *here = Value::Object(Map::new());
        }
        let Value::Object(table) = here else { break };
        let wanted = normal(part);
        let key = table.keys().find(|key| normal(key) == wanted).cloned();
        if key.is_none() {
            made_at = made_at.or(Some(keys.len() + 1));
        }
        let key = key.unwrap_or_else(|| new_key(part, &keys));
        keys.push(key.clone());
        here = table.entry(key).or_insert(Value::Null);
    }
    *here = Value::String(text);
    keys.truncate(made_at.unwrap_or(keys.len()).max(1));
    keys
}

fn new_key(part: &str, above: &[String]) -> String {
    let key = part.to_lowercase();
    // librdkafka's properties have dots, which the name of a variable cannot have.
    if above == ["bus", "kafka"] { key.replace('_', ".") } else { key }
}

fn normal(key: &str) -> String {
    key.to_lowercase().replace(['-', '.'], "_")
}

/// Adds to each problem of an overridden setting what overrides it, and to the others their place in the file; returns
/// where the problems are, and the problems.
pub(super) fn attribute(problems: Vec<Problem>, overrides: &[Override], file: &Source) -> (String, Vec<Problem>) {
    let mut places: Vec<String> = Vec::new();
    let mut attributed = Vec::with_capacity(problems.len());
    for mut problem in problems {
        let by = innermost(overrides.iter().filter(|with| with.is_of(&problem)));
        let place = match by {
            None => {
                if let Some(place) = file.places.find(&problem.path) {
                    problem.message = format!("{} ({}:{place})", problem.message, file.name);
                }
                file.name.clone()
            }
            Some(by) => {
                let what = if by.path == problem.path { String::new() } else { format!("`{}` ", by.path) };
                problem.message = format!("{} ({what}from {})", problem.message, by.by.describe());
                by.by.place().to_owned()
            }
        };
        if !places.contains(&place) {
            places.push(place);
        }
        attributed.push(problem);
    }
    // The file first.
    places.sort_by_key(|place| *place != file.name);
    (places.join(" and "), attributed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::places::Places;
    use super::*;

    fn file(text: &str) -> Source {
        Source { name: "t.toml".to_owned(), places: Places::of(text).unwrap() }
    }

    fn overridden(mut value: Value, variables: &[(&str, &str)]) -> (Value, Vec<Override>) {
        let variables = variables.iter().map(|&(name, text)| (name.to_owned(), text.to_owned()));
        let overrides = apply(&mut value, variables);
        (value, overrides)
    }

    #[test]
    fn variables_find_keys_whatever_their_case() {
        let value = json!({ "bus": { "kind": "kafka" }, "sinks": { "my-sink": { "url": "a" } } });
        let (got, _) = overridden(
            value,
            &[
                ("TALLYBUS__BUS__BROKERS", "b:1"),
                ("TALLYBUS__SINKS__MY_SINK__URL", "c"),
                ("TALLYBUS__SINKS__my-sink__batch__Max_Events", "7"),
                ("TALLYBUS__BUS__KAFKA__SECURITY_PROTOCOL", "SSL"),
                ("TALLYBUS__BUS__TOPIC", ""),
                ("TALLYBUS_BUS", "ignored"),
                ("TALLYBUS__", "ignored"),
                ("TALLYBUS__BUS____X", "ignored"),
            ],
        );
        let expected = json!({
            "bus": { "kind": "kafka", "brokers": "b:1", "kafka": { "security.protocol": "SSL" } },
            "sinks": { "my-sink": { "url": "c", "batch": { "max_events": "7" } } },
        });
        assert_eq!(got, expected);
    }

    #[test]
    fn a_variable_that_looks_like_an_override_and_is_none_is_reported_with_the_probable_name() {
        for (name, right) in [
            ("TALLYBUS_BUS__PATH", "did you mean TALLYBUS__BUS__PATH? "),
            ("TALLYBUS_BUS_PATH", "did you mean TALLYBUS__BUS__PATH? "),
            ("TALLYBUS_BUS_TIME_UNITS", "did you mean TALLYBUS__BUS__TIME_UNITS? "),
            ("TALLYBUS_BUS_KAFKA_SASL_PASSWORD", "did you mean TALLYBUS__BUS__KAFKA__SASL_PASSWORD? "),
            ("TALLYBUS_SINKS_MY_SINK_WINDOW", "did you mean TALLYBUS__SINKS__MY_SINK__WINDOW? "),
            ("TALLYBUS_SINKS_A_BATCH_MAX_EVENTS", "did you mean TALLYBUS__SINKS__A__BATCH__MAX_EVENTS? "),
            ("TALLYBUS_SINKS__A__URL", "did you mean TALLYBUS__SINKS__A__URL? "),
            ("TALLYBUS_STATUS_LISTEN", "did you mean TALLYBUS__STATUS__LISTEN? "),
            ("tallybus__bus__path", "did you mean TALLYBUS__BUS__PATH? "),
            ("TALLYBUS__BUS____X", "did you mean TALLYBUS__BUS__X? "),
            ("TALLYBUS_BUS", ", as in TALLYBUS__BUS__PATH"),
            ("TALLYBUS_SINKS_A_NOSUCH", ", as in TALLYBUS__BUS__PATH"),
        ] {
            let reason = why_ignored(name, &[]).unwrap_or_default();
            assert!(reason.contains(right), "{name}: {reason:?}");
        }
        for name in ["TALLYBUS__BUS__PATH", "TALLYBUS_COLLECTOR_BUS", "TALLYBUS_BUSINESS", "TALLYBUS_LOG", "PATH"] {
            assert_eq!(why_ignored(name, &[]), None, "{name}");
        }
    }

    #[test]
    fn a_problem_of_an_overridden_setting_names_what_overrides_it() {
        let value =
            json!({ "bus": { "kind": "kafka" }, "sinks": { "a": { "url": "x", "batch": { "max_events": 1 } } } });
        let (_, mut overrides) = overridden(
            value,
            &[
                ("TALLYBUS__SINKS__A__URL", "nonsense"),
                ("TALLYBUS__SINKS__TYPO__URL", "http://h"),
                ("TALLYBUS__BUS__KAFKA__NO_SUCH", "1"),
                ("TALLYBUS__BUS__KIND", "kafak"),
            ],
        );
        overrides.push(Override::of_bus_option("kind"));
        let shown = |path: &str, message: &str| {
            let problem = Problem { path: path.to_owned(), message: message.to_owned() };
            let (place, problems) = attribute(vec![problem], &overrides, &file("[sinks.a]"));
            format!("{place}: {}", problems[0])
        };
        let cases = [
            (
                "sinks.a.url",
                "wrong",
                "the environment: sinks.a.url: wrong (from the environment variable TALLYBUS__SINKS__A__URL)",
            ),
            ("sinks.a.batch.max_events", "wrong", "t.toml: sinks.a.batch.max_events: wrong (t.toml:1:8)"),
            ("sinks.a.urll", "unknown", "t.toml: sinks.a.urll: unknown (t.toml:1:8)"),
            (
                "sinks.typo.kind",
                "missing",
                "the environment: sinks.typo.kind: missing (`sinks.typo` from the environment variable \
                 TALLYBUS__SINKS__TYPO__URL)",
            ),
            ("bus.kind", "unknown", "--bus: bus.kind: unknown (from --bus)"),
        ];
        for (path, message, expected) in cases {
            assert_eq!(shown(path, message), expected);
        }
        assert!(shown("bus.kafka", "`no.such` is unknown").contains("TALLYBUS__BUS__KAFKA__NO_SUCH"));
    }

    #[test]
    fn problems_of_file_and_environment_are_in_both_places() {
        let (_, overrides) = overridden(json!({ "bus": { "kind": "kafka" } }), &[("TALLYBUS__BUS__TOPIC", "a b")]);
        let problem = |path: &str| Problem { path: path.to_owned(), message: "wrong".to_owned() };
        let (place, problems) = attribute(vec![problem("bus.topic"), problem("bus.x")], &overrides, &file(""));
        assert_eq!((place.as_str(), problems.len()), ("t.toml and the environment", 2));
    }
}
