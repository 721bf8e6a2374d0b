//! What the credentials of a client allow on a bus that knows access rights.

use std::fmt;

/// Something that rights are granted on, by its exact name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A consumer group.
    Group(String),
}

impl Resource {
    /// Its kind, as Kafka's own tools name it: `topic` or `group`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Topic(_) => "topic",
            Self::Group(_) => "group",
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        let (Self::Topic(name) | Self::Group(name)) = self;
        name
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// What may be done with a resource. Shown as Kafka's own tools name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Fetch a topic's records; join a group and commit for it.
    Read,
    /// Publish to a topic.
    Write,
    /// Create a topic of that name.
    Create,
    /// See that it exists, and its offsets.
    Describe,
    /// See a topic's configuration, such as its retention.
    DescribeConfigs,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 5] = [Self::Read, Self::Write, Self::Create, Self::Describe, Self::DescribeConfigs];

    /// Its name in Kafka's own tools.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Describe => "Describe",
            Self::DescribeConfigs => "DescribeConfigs",
        }
    }

    /// Whether someone who may do this may do `other` too: reading and writing allow describing.
    pub fn allows(self, other: Self) -> bool {
        self == other || (other == Self::Describe && matches!(self, Self::Read | Self::Write))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a client may do with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// These operations.
    Granted(Vec<Operation>),
    /// The topic does not exist, which this client may see; the bus does not report more about it.
    NoTopic,
}

impl Access {
    /// Everything.
    pub fn all() -> Self {
        Self::Granted(Operation::ALL.to_vec())
    }

    /// Whether the operation is granted; `None` when the bus does not report it.
    pub fn allows(&self, operation: Operation) -> Option<bool> {
        match self {
            Self::Granted(granted) => Some(granted.iter().any(|granted| granted.allows(operation))),
            Self::NoTopic if operation == Operation::Describe => Some(true),
            Self::NoTopic => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_writing_allow_describing_and_nothing_else() {
        for operation in Operation::ALL {
            let access = Access::Granted(vec![operation]);
            let allowed: Vec<Operation> =
                Operation::ALL.into_iter().filter(|other| access.allows(*other) == Some(true)).collect();
            let describes = matches!(operation, Operation::Read | Operation::Write);
            assert_eq!(allowed.len(), if describes { 2 } else { 1 }, "{operation}: {allowed:?}");
        }
    }

    #[test]
    fn of_a_topic_that_does_not_exist_only_describing_is_known() {
        assert_eq!(Access::NoTopic.allows(Operation::Describe), Some(true));
        assert_eq!(Access::NoTopic.allows(Operation::Read), None);
        assert_eq!(Access::all().allows(Operation::Create), Some(true));
    }
}
