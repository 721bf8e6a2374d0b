use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Value, json};
use tallybus_bus::Resource;
use tallybus_worker::settings::{Right, Role, Settings, SinkSettings, rights};

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::{Global, config, selection};

/// Print the least rights of each role on Kafka, as commands for an administrator.
///
/// A role is what a user of the cluster does: `producer` publishes counts, `worker` runs one sink, `observer` runs the commands
/// that only read, `replay` sends dead letters back, `topics` creates the topics. Worker and replay have a block for each sink.
/// It reads the settings; nothing is connected to and nothing is changed. `tallybus doctor --role ROLE` checks which of them the cluster grants.
#[derive(Debug, Args)]
pub(crate) struct Acl {
    /// Only this role; repeatable.
    #[arg(long = "role", value_name = "ROLE", value_parser = role_parser())]
    roles: Vec<Role>,
    /// Only for this sink; repeatable.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    /// Who gets the rights, as `User:NAME`; without it, a name for each role that stands for yours.
    #[arg(long, value_name = "PRINCIPAL", value_parser = principal)]
    principal: Option<String>,
}

/// The rights of one role, and whose they are.
struct Block {
    role: Role,
    sink: Option<String>,
    principal: String,
    rights: Vec<Right>,
}

impl Acl {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load_for(global, &self.sinks)?;
        let sinks = selection::select(&settings, &self.sinks)?;
        if let Some(file) = settings.bus.address.file() {
            return Err(Failure::could_not_look(format!(
                "the embedded bus has no access control lists: who may read and write {} may use it",
                file.display()
            )));
        }
        let brokers = settings.bus.address.place();
        let blocks = self.blocks(&settings, &sinks);
        if output.json {
            let blocks: Vec<Value> = blocks.iter().map(|block| block.as_json(brokers)).collect();
            output.print(&json!({ "roles": blocks }).to_string())?;
            return Ok(Verdict::Good);
        }
        output.print("# admin.properties: the login of an administrator of the cluster")?;
        for block in blocks {
            output.print("")?;
            output.print(&format!("# {}: {}", block.title(), block.role.purpose()))?;
            for command in block.commands(brokers) {
                output.print(&command)?;
            }
        }
        Ok(Verdict::Good)
    }

    fn blocks(&self, settings: &Settings, sinks: &[&SinkSettings]) -> Vec<Block> {
        let chosen = Role::ALL.into_iter().filter(|role| self.roles.is_empty() || self.roles.contains(role));
        chosen.flat_map(|role| blocks_of(role, settings, sinks, self.principal.as_deref())).collect()
    }
}

fn blocks_of(role: Role, settings: &Settings, sinks: &[&SinkSettings], principal: Option<&str>) -> Vec<Block> {
    let block = |sink: Option<&str>, sinks: &[&SinkSettings]| {
        let placeholder = || match sink {
            Some(sink) => format!("User:tallybus-{}-{sink}", role.name()),
            None => format!("User:tallybus-{}", role.name()),
        };
        let principal = principal.map_or_else(placeholder, str::to_owned);
        Block { role, sink: sink.map(str::to_owned), principal, rights: rights(role, settings, sinks) }
    };
    if role.is_per_sink() {
        return sinks.iter().map(|sink| block(Some(&sink.name), &[*sink])).collect();
    }
    vec![block(None, sinks)]
}

impl Block {
    fn title(&self) -> String {
        match &self.sink {
            Some(sink) => format!("{} of {sink}", self.role.name()),
            None => self.role.name().to_owned(),
        }
    }

    /// One command for each topic and group.
    fn commands(&self, brokers: &str) -> Vec<String> {
        let mut resources: Vec<&Resource> = self.rights.iter().map(|right| &right.on).collect();
        resources.dedup();
        let command = |on: &Resource| {
            let operations = self.rights.iter().filter(|right| right.on == *on);
            let operations: String = operations.map(|right| format!(" --operation {}", right.operation)).collect();
            format!(
                "kafka-acls.sh --bootstrap-server {} --command-config admin.properties --add --allow-principal {}{operations} \
                 --{} {}",
                quoted(brokers),
                quoted(&self.principal),
                on.kind(),
                quoted(on.name()),
            )
        };
        resources.into_iter().map(command).collect()
    }

    fn as_json(&self, brokers: &str) -> Value {
        let right = |right: &Right| {
            json!({
                "resource": right.on.kind(),
                "name": right.on.name(),
                "operation": right.operation.name(),
                "content": right.content,
            })
        };
        json!({
            "role": self.role.name(),
            "sink": self.sink,
            "principal": self.principal,
            "rights": self.rights.iter().map(right).collect::<Vec<_>>(),
            "commands": self.commands(brokers),
        })
    }
}

/// A role by its name.
pub(super) fn role_parser() -> impl TypedValueParser<Value = Role> {
    let known = PossibleValuesParser::new(Role::ALL.map(Role::name));
    known.try_map(|name| Role::ALL.into_iter().find(|role| role.name() == name).ok_or("unknown role"))
}

/// A principal of Kafka; a name alone is a user's.
fn principal(text: &str) -> Result<String, String> {
    let (kind, name) = text.split_once(':').unwrap_or(("User", text));
    if kind.is_empty() || name.is_empty() || text.chars().any(char::is_control) {
        return Err("expected a principal such as User:alice".to_owned());
    }
    Ok(format!("{kind}:{name}"))
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:,[]/".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) && !word.contains('[') {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::Kind;
    use tallybus_sdk::testkit::UNOPENED;

    use super::*;

    static KINDS: &[Kind] = &[UNOPENED];

    #[test]
    fn one_command_for_each_topic_and_group_names_every_right_and_is_safe_in_a_shell() {
        let value = json!({ "bus": { "kind": "kafka", "brokers": "k:1" }, "sinks": { "a": { "kind": "unopened" } } });
        let settings = Settings::from_value(&value, KINDS).unwrap();
        let sinks: Vec<&SinkSettings> = settings.sinks.iter().collect();
        let blocks = blocks_of(Role::Worker, &settings, &sinks, Some("User:CN=a b's,O=c"));
        let [block] = &blocks[..] else { panic!("{} blocks", blocks.len()) };
        let commands = block.commands("k:1");
        let start = "kafka-acls.sh --bootstrap-server k:1 --command-config admin.properties --add --allow-principal";
        let of_progress = commands.iter().find(|command| command.ends_with("progress"));
        assert_eq!(
            of_progress.unwrap(),
            &format!(r"{start} 'User:CN=a b'\''s,O=c' --operation Read --operation Write --topic tallybus.progress")
        );
        assert_eq!(commands.last().unwrap().split(' ').next_back(), Some("tallybus.a"));
        let operations: usize = commands.iter().map(|command| command.matches("--operation").count()).sum();
        assert_eq!(operations, block.rights.len());
    }

    #[test]
    fn a_name_alone_is_a_users() {
        assert_eq!(principal("alice").as_deref(), Ok("User:alice"));
        assert_eq!(principal("User:CN=a:b").as_deref(), Ok("User:CN=a:b"));
        assert!(principal("User:").is_err() && principal(":x").is_err() && principal("User:a\nb").is_err());
    }
}
