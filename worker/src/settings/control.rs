use tallybus_control::Key;
use tallybus_sdk::Setting;
use tallybus_sdk::config::{ConfigTable, Secret};

/// The settings of the table `[control]`, for documentation.
pub const CONTROL_SETTINGS: &[Setting] = &[
    Setting {
        key: "enabled",
        default: Some("true"),
        help: "whether `tallybus run` follows what operators want (`tallybus ctl`); it needs heartbeats, and either `keys` or \
             `unsigned = true`",
    },
    Setting {
        key: "name",
        default: None,
        help: "the name of the process in addresses such as `sink/influx@web-3`, which its restart keeps; the name of its host \
             when it is not given",
    },
    Setting {
        key: "keys",
        default: None,
        help: "env:NAME or file:PATH of each key: only what one of them has signed is taken. `tallybus ctl` signs with the first",
    },
    Setting {
        key: "unsigned",
        default: None,
        help: "without `keys`, whether what is not signed is taken: only where the bus itself decides who may write its topics \
             `tallybus.control` and `tallybus.commands`; true on the embedded bus, whose file decides that, and false on Kafka",
    },
];

/// The table `[control]`: whether and from whom a worker process takes commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSettings {
    /// Whether the process follows what operators want, where something may be taken.
    pub enabled: bool,
    /// The name of the process; `None` for that of its host.
    pub name: Option<String>,
    /// Where the keys are: `env:NAME` or `file:PATH`.
    keys: Vec<String>,
    /// `None` where the bus decides.
    unsigned: Option<bool>,
}

/// From whom a process takes commands and desired states.
#[derive(Debug, Clone)]
pub enum ControlMode {
    /// From no one.
    Off,
    /// From whoever the bus lets write its topics.
    Unsigned,
    /// From those who have one of these keys; at least one.
    Signed(Vec<Key>),
}

impl ControlMode {
    /// The mode in a word, as status documents have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Unsigned => "unsigned",
            Self::Signed(_) => "signed",
        }
    }

    /// The keys; none where nothing is signed.
    pub fn keys(&self) -> &[Key] {
        match self {
            Self::Signed(keys) => keys,
            Self::Off | Self::Unsigned => &[],
        }
    }
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self { enabled: true, name: None, keys: Vec::new(), unsigned: None }
    }
}

impl ControlSettings {
    /// Reads the table; its problems are recorded.
    pub(super) fn read(mut section: ConfigTable<'_>) -> Self {
        let settings = Self::read_keys(&mut section);
        section.finish();
        settings
    }

    fn read_keys(section: &mut ConfigTable<'_>) -> Self {
        let enabled = section.or("enabled", ConfigTable::bool, true).unwrap_or(true);
        let keys = section.strings("keys").unwrap_or_default();
        let is_reference = |key: &String| key.starts_with("env:") || key.starts_with("file:");
        if !keys.iter().all(is_reference) {
            section
                .problem("keys", "expected env:NAME or file:PATH of each key: a key does not belong in the settings");
        }
        let name = section.string("name");
        if name.as_deref().is_some_and(|name| format!("worker/{name}").parse::<tallybus_control::Address>().is_err()) {
            section.problem("name", "expected 1 to 200 bytes without `@` and control characters");
        }
        let unsigned = section.bool("unsigned");
        if unsigned == Some(true) && !keys.is_empty() {
            section.problem("unsigned", "with `keys` only what is signed is taken: leave one of them out");
        }
        Self { enabled, name, keys, unsigned }
    }

    /// Whether anything is taken on this bus; reads no key.
    pub fn is_in_use(&self, is_file: bool) -> bool {
        self.enabled && (!self.keys.is_empty() || self.unsigned.unwrap_or(is_file))
    }

    /// From whom commands are taken on this bus. `is_file`: whether the bus is a file of this machine.
    ///
    /// # Errors
    /// There is no such variable or file, or it holds no key; the error does not show what it holds.
    pub fn mode(&self, is_file: bool) -> Result<ControlMode, String> {
        if !self.is_in_use(is_file) {
            return Ok(ControlMode::Off);
        }
        if self.keys.is_empty() {
            return Ok(ControlMode::Unsigned);
        }
        self.keys.iter().map(|key| read_key(key)).collect::<Result<_, String>>().map(ControlMode::Signed)
    }

    /// The keys, whether this process would take commands or not: for those who send them.
    ///
    /// # Errors
    /// As [`ControlSettings::mode`].
    pub fn keys(&self) -> Result<Vec<Key>, String> {
        self.keys.iter().map(|key| read_key(key)).collect()
    }
}

/// The key that `env:NAME` or `file:PATH` holds.
///
/// # Errors
/// There is none; the error does not show what is there.
pub fn read_key(reference: &str) -> Result<Key, String> {
    if !reference.starts_with("env:") && !reference.starts_with("file:") {
        return Err("expected env:NAME or file:PATH: a key does not belong on a command line".to_owned());
    }
    let secret = Secret::resolve(reference)?;
    Key::parse(secret.expose()).map_err(|error| format!("{reference}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;

    fn read(table: Value) -> Result<ControlSettings, String> {
        let problems = Rc::new(RefCell::new(Vec::new()));
        let settings = ControlSettings::read(ConfigTable::root(table.as_object().unwrap(), Rc::clone(&problems)));
        let problems: Vec<String> = problems.borrow().iter().map(ToString::to_string).collect();
        if problems.is_empty() { Ok(settings) } else { Err(problems.join("\n")) }
    }

    #[test]
    fn the_table_of_control_settings_is_what_is_read_and_has_the_defaults() {
        let table = json!({});
        let mut section = ConfigTable::root(table.as_object().unwrap(), Rc::new(RefCell::new(Vec::new())));
        assert_eq!(ControlSettings::read_keys(&mut section), ControlSettings::default());
        let documented: BTreeSet<String> = CONTROL_SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        assert_eq!(*section.known(), documented);
    }

    #[test]
    fn what_is_not_signed_is_taken_from_a_file_and_elsewhere_only_where_the_settings_say_so() {
        let mode = |table: Value, is_file| read(table).unwrap().mode(is_file).unwrap().name();
        assert_eq!((mode(json!({}), true), mode(json!({}), false)), ("unsigned", "off"));
        assert_eq!(mode(json!({ "unsigned": true }), false), "unsigned");
        assert_eq!(mode(json!({ "unsigned": false }), true), "off");
        assert_eq!(mode(json!({ "unsigned": true, "enabled": false }), true), "off");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let reference = format!("file:{}", path.display());
        assert_eq!(mode(json!({ "keys": [reference] }), true), "signed");
        std::fs::write(&path, "hunter2").unwrap();
        let error = read(json!({ "keys": [reference] })).unwrap().mode(true).unwrap_err();
        assert!(error.contains("whsec_") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_key_in_the_settings_and_a_name_that_is_no_address_are_problems() {
        let problems = read(json!({ "keys": ["whsec_hunter2"], "name": "a@b" })).unwrap_err();
        assert!(problems.contains("expected env:NAME") && problems.contains("without `@`"), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
        let both = read(json!({ "keys": ["env:K"], "unsigned": true })).unwrap_err();
        assert!(both.contains("leave one of them out"), "{both}");
    }
}
