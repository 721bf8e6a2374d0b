//! The rights that each role needs on a bus with access control: one table, beside the names of topics and groups. `tallybus acl`
//! prints it, `tallybus doctor` compares it with what the bus grants.

use tallybus_bus::{Operation, Resource};

use super::{Settings, SinkSettings, names};

/// What a user of the bus does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A service that counts, and `tallybus emit`.
    Producer,
    /// The workers of a sink, and `tallybus group` for it.
    Worker,
    /// The commands that only read: tap, count, top, settled, audit, `replay list`.
    Observer,
    /// `tallybus replay run` for a sink.
    Replay,
    /// Creates the topics, where workers may not.
    Topics,
    /// `tallybus ctl`.
    Operator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Producer, Self::Worker, Self::Observer, Self::Replay, Self::Topics, Self::Operator];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
            Self::Observer => "observer",
            Self::Replay => "replay",
            Self::Topics => "topics",
            Self::Operator => "operator",
        }
    }

    /// What it is for, as a sentence's beginning.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Producer => "services that count, and `tallybus emit`",
            Self::Worker => "the workers of a sink, and `tallybus group` for it",
            Self::Observer => "commands that only read: tap, count, top, settled, audit, `replay list`",
            Self::Replay => "`tallybus replay run` for a sink",
            Self::Topics => {
                "creating the topics, once; `tallybus run` and `tallybus replay run` create the missing ones with it"
            }
            Self::Operator => "`tallybus ctl`, which takes workers out of rotation",
        }
    }

    /// Whether each sink has a user of its own in this role.
    pub fn is_per_sink(self) -> bool {
        matches!(self, Self::Worker | Self::Replay)
    }
}

/// One right that a role needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// On what.
    pub on: Resource,
    /// To do what.
    pub operation: Operation,
    /// What is there.
    pub content: &'static str,
}

/// The names that a row of the table stands for.
enum Of {
    /// The topic that services publish to.
    Counters,
    /// The topics that sinks read.
    SinkTopics,
    /// A topic that a deployment has once.
    Topic(fn(&str) -> String),
    /// The same, for those who need it only where `[control]` is in use.
    ControlTopic(fn(&str) -> String),
    /// A topic that each sink has.
    SinkTopic(fn(&str, &str) -> String),
    /// A group that each sink has.
    SinkGroup(fn(&str, &str) -> String),
}

/// One kind of topic or group, and what each role does with it, in the order of [`Role::ALL`].
struct Row {
    of: Of,
    content: &'static str,
    operations: [&'static [Operation]; 6],
}

const NONE: &[Operation] = &[];
const READ: &[Operation] = &[Operation::Read];
const WRITE: &[Operation] = &[Operation::Write];
const BOTH: &[Operation] = &[Operation::Read, Operation::Write];
const SEE: &[Operation] = &[Operation::Describe];
/// A worker refuses topics that are compacted.
const CONSUME: &[Operation] = &[Operation::Read, Operation::DescribeConfigs];
/// Whether it was created is seen afterwards.
const CREATE: &[Operation] = &[Operation::Create, Operation::Describe];

/// Every topic and group: one that is added to `names.rs` needs a row here, which a test demands. Reading and writing include
/// describing.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    //                                                                           producer worker   observer replay topics  operator
    row(Of::Counters,                             "counters",                    [WRITE,  SEE,     READ,    NONE,  CREATE, SEE]),
    row(Of::SinkTopics,                           "counters",                    [NONE,   CONSUME, READ,    READ,  CREATE, SEE]),
    row(Of::SinkTopic(names::dead_letter_topic),  "dead letters",                [NONE,   WRITE,   READ,    BOTH,  CREATE, NONE]),
    row(Of::SinkTopic(names::replay_topic),       "replayed dead letters",       [NONE,   NONE,    READ,    BOTH,  CREATE, NONE]),
    row(Of::Topic(names::progress_topic),         "notes of progress",           [NONE,   BOTH,    READ,    BOTH,  CREATE, NONE]),
    row(Of::Topic(names::control_topic),          "heartbeats",                  [NONE,   WRITE,   READ,    NONE,  CREATE, BOTH]),
    row(Of::ControlTopic(names::control_topic),   "desired states",              [NONE,   READ,    NONE,    READ,  NONE,   NONE]),
    row(Of::ControlTopic(names::commands_topic),  "commands and answers",        [NONE,   BOTH,    NONE,    NONE,  CREATE, NONE]),
    row(Of::Topic(names::commands_topic),         "commands and answers",        [NONE,   NONE,    NONE,    NONE,  NONE,   BOTH]),
    row(Of::Topic(names::producers_topic),        "checkpoints of services",     [WRITE,  NONE,    READ,    NONE,  CREATE, NONE]),
    row(Of::SinkGroup(names::group),              "the sink's offsets",          [NONE,   READ,    SEE,     SEE,   NONE,   SEE]),
    row(Of::SinkGroup(names::replay_group),       "offsets of replays",          [NONE,   NONE,    SEE,     READ,  NONE,   NONE]),
];

const fn row(of: Of, content: &'static str, operations: [&'static [Operation]; 6]) -> Row {
    Row { of, content, operations }
}

impl Row {
    /// The topics or groups that it stands for.
    fn resources(&self, settings: &Settings, sinks: &[&SinkSettings]) -> Vec<Resource> {
        let of_sinks = |name: &fn(&str, &str) -> String| -> Vec<String> {
            sinks.iter().map(|sink| name(&sink.namespace, &sink.name)).collect()
        };
        let bus = &settings.bus;
        match &self.of {
            Of::ControlTopic(_) if !settings.control.is_in_use(bus.address.file().is_some()) => Vec::new(),
            Of::Counters => vec![Resource::Topic(bus.topic.clone())],
            Of::SinkTopics => {
                sinks.iter().flat_map(|sink| &sink.topics).map(|topic| Resource::Topic(topic.clone())).collect()
            }
            Of::Topic(name) | Of::ControlTopic(name) => vec![Resource::Topic(name(&bus.namespace))],
            Of::SinkTopic(name) => of_sinks(name).into_iter().map(Resource::Topic).collect(),
            Of::SinkGroup(name) => of_sinks(name).into_iter().map(Resource::Group).collect(),
        }
    }
}

/// The least rights of a role for these sinks: topics before groups, each right once, and none that another one includes.
pub fn rights(role: Role, settings: &Settings, sinks: &[&SinkSettings]) -> Vec<Right> {
    let mut rights: Vec<Right> = Vec::new();
    for row in ROWS {
        let Some(at) = Role::ALL.iter().position(|other| *other == role) else { continue };
        for on in row.resources(settings, sinks) {
            for operation in row.operations[at] {
                let right = Right { on: on.clone(), operation: *operation, content: row.content };
                if !rights.iter().any(|other| other.on == right.on && other.operation == right.operation) {
                    rights.push(right);
                }
            }
        }
    }
    let is_included = |right: &Right| {
        let others = rights.iter().filter(|other| other.on == right.on && other.operation != right.operation);
        others.into_iter().any(|other| other.operation.allows(right.operation))
    };
    let mut least: Vec<Right> = rights.iter().filter(|right| !is_included(right)).cloned().collect();
    least.sort_by(|a, b| (&a.on, a.operation).cmp(&(&b.on, b.operation)));
    least
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tallybus_sdk::Kind;
    use tallybus_sdk::testkit::UNOPENED;

    use super::super::Settings;
    use super::*;

    static KINDS: &[Kind] = &[UNOPENED];

    fn settings() -> Settings {
        let value = json!({
            "bus": { "kind": "kafka", "brokers": "k:1", "namespace": "stage" },
            "control": { "unsigned": true },
            "sinks": { "a": { "kind": "unopened" }, "b": { "kind": "unopened", "topics": ["other"] } },
        });
        Settings::from_value(&value, KINDS).unwrap()
    }

    fn shown(role: Role, sinks: &[&str]) -> Vec<String> {
        let settings = settings();
        let sinks: Vec<&SinkSettings> = sinks.iter().map(|name| settings.sink(name).unwrap()).collect();
        let rights = rights(role, &settings, &sinks);
        rights.iter().map(|right| format!("{} {}", right.operation, right.on)).collect()
    }

    #[test]
    fn each_role_has_the_rights_that_it_uses_and_no_more() {
        assert_eq!(
            shown(Role::Producer, &["a", "b"]),
            ["Write topic stage.tallybus.producers", "Write topic tallybus.counters"]
        );
        assert_eq!(
            shown(Role::Worker, &["a"]),
            [
                "Read topic stage.tallybus.commands",
                "Write topic stage.tallybus.commands",
                "Read topic stage.tallybus.control",
                "Write topic stage.tallybus.control",
                "Write topic stage.tallybus.dead.a",
                "Read topic stage.tallybus.progress",
                "Write topic stage.tallybus.progress",
                "Read topic tallybus.counters",
                "DescribeConfigs topic tallybus.counters",
                "Read group stage.tallybus.a",
            ]
        );
        assert_eq!(
            shown(Role::Operator, &["a"]),
            [
                "Read topic stage.tallybus.commands",
                "Write topic stage.tallybus.commands",
                "Read topic stage.tallybus.control",
                "Write topic stage.tallybus.control",
                "Describe topic tallybus.counters",
                "Describe group stage.tallybus.a",
            ]
        );
        // The topic of the settings is created when it is missing, whether a sink reads it or not.
        let other = shown(Role::Worker, &["b"]);
        assert!(other.contains(&"Describe topic tallybus.counters".to_owned()), "{other:?}");
        assert!(other.contains(&"Read topic other".to_owned()), "{other:?}");
        let observer = shown(Role::Observer, &["a", "b"]);
        assert!(observer.iter().all(|right| right.starts_with("Read topic") || right.starts_with("Describe group")));
        assert_eq!(observer.len(), 2 + 2 + 2 + 3 + 4, "{observer:?}");
    }

    /// A topic or group without a row would be one that no printed command grants.
    #[test]
    fn every_name_has_a_row() {
        let (names, table) = (include_str!("names.rs"), include_str!("rights.rs"));
        let table = table.split_once("const ROWS").unwrap().1.split_once("];").unwrap().0;
        let functions = names.lines().filter_map(|line| line.strip_prefix("pub fn ")?.split('(').next());
        let functions: Vec<&str> = functions.filter(|name| !name.starts_with("is_")).collect();
        assert!(functions.len() >= 6, "{functions:?}");
        for function in functions {
            assert!(table.contains(&format!("names::{function})")), "names::{function} has no row");
        }
    }
}
