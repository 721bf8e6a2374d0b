//! The table: its name, its DDL, and the properties it needs so that a batch counts once.

/// The table that counts are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) database: String,
    pub(super) name: String,
}

/// The table's columns and their types, as ClickHouse names them.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("time", "DateTime64(9, 'UTC')", " CODEC(Delta, ZSTD)"),
    ("name", "LowCardinality(String)", ""),
    ("tags", "Map(LowCardinality(String), String)", ""),
    ("value", "UInt64", " CODEC(T64, ZSTD)"),
    ("topic", "LowCardinality(String)", ""),
    ("partition", "UInt32", ""),
    ("first_offset", "UInt64", " CODEC(Delta, ZSTD)"),
    ("end_offset", "UInt64", " CODEC(Delta, ZSTD)"),
    ("part", "String", ""),
];

/// The deduplication window, in inserts, of a table that the sink creates.
const WINDOW: u32 = 10_000;

impl Table {
    /// For SQL.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.database), identifier(&self.name))
    }

    pub(super) fn make_database(&self) -> String {
        format!("CREATE DATABASE IF NOT EXISTS {}", identifier(&self.database))
    }

    /// Acknowledged inserts are on the disk, and inserts of a table that is not replicated are deduplicated too:
    /// neither is ClickHouse's default. Without `PARTITION BY` an insert is atomic.
    pub(super) fn make(&self) -> String {
        let columns: Vec<String> =
            COLUMNS.iter().map(|(name, kind, codec)| format!("    {} {kind}{codec}", identifier(name))).collect();
        format!(
            "CREATE TABLE IF NOT EXISTS {} (\n{}\n) ENGINE = MergeTree ORDER BY (name, time)\nSETTINGS \
             non_replicated_deduplication_window = {WINDOW}, fsync_after_insert = 1, fsync_part_directory = 1",
            self.quoted(),
            columns.join(",\n")
        )
    }

    /// The DDL for operators, with comments.
    pub(super) fn ddl(&self) -> String {
        format!(
            "{};\n{};\n\n-- On a cluster: ENGINE = ReplicatedMergeTree, which deduplicates inserts without a setting.\n\
             -- To drop old counts: TTL toDateTime(time) + INTERVAL 1 YEAR.\n",
            self.make_database(),
            self.make()
        )
    }

    /// Returns what is wrong with the found columns (name and type of each); `None` when they are right.
    pub(super) fn complaint(&self, found: &[(String, String)]) -> Option<String> {
        let table = self.quoted();
        for (column, kind, _) in COLUMNS {
            match found.iter().find(|(name, _)| name == column) {
                None => {
                    return Some(format!("{table} has no column {column}: name another table, or add it as {kind}"));
                }
                Some((_, is)) if is != kind => {
                    return Some(format!("column {column} of {table} is {is}, and must be {kind}"));
                }
                Some(_) => {}
            }
        }
        None
    }
}

/// How a table's engine treats a batch that is written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// Inserts are deduplicated; the window is the table's own setting, or the server's setting of this name.
    Knows(&'static str),
    /// Inserts are not deduplicated, or rows are merged or not kept.
    Other,
}

impl Engine {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "MergeTree" => Self::Knows("non_replicated_deduplication_window"),
            "ReplicatedMergeTree" | "SharedMergeTree" => Self::Knows("replicated_deduplication_window"),
            _ => Self::Other,
        }
    }
}

/// A setting in ClickHouse's text of a table's engine.
pub(super) fn setting(engine: &str, name: &str) -> Option<u64> {
    let (_, settings) = engine.split_once(" SETTINGS ")?;
    let value = settings.split(", ").find_map(|setting| setting.strip_prefix(name)?.strip_prefix(" = "))?;
    value.trim_matches('\'').parse().ok()
}

/// Any text as an identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// Any text as a literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        let table = Table { database: "a`b".to_owned(), name: "c\\`; DROP".to_owned() };
        assert_eq!(table.quoted(), "`a\\`b`.`c\\\\\\`; DROP`");
        assert_eq!(literal("it's \\"), "'it\\'s \\\\'");
    }

    #[test]
    fn engines_and_their_settings() {
        assert_eq!(Engine::of("MergeTree"), Engine::Knows("non_replicated_deduplication_window"));
        assert_eq!(Engine::of("ReplicatedMergeTree"), Engine::Knows("replicated_deduplication_window"));
        for other in ["ReplacingMergeTree", "SummingMergeTree", "Distributed", "Memory", "Buffer", ""] {
            assert_eq!(Engine::of(other), Engine::Other, "{other}");
        }
        let full = "MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100, index_granularity = 8192";
        assert_eq!(setting(full, "non_replicated_deduplication_window"), Some(100));
        assert_eq!(setting(full, "index_granularity"), Some(8_192));
        assert_eq!(setting(full, "replicated_deduplication_window"), None);
        assert_eq!(setting("MergeTree ORDER BY a", "index_granularity"), None);
    }

    #[test]
    fn complaints_name_column_and_type() {
        let table = Table { database: "d".to_owned(), name: "t".to_owned() };
        let mut found: Vec<(String, String)> =
            COLUMNS.iter().map(|(name, kind, _)| ((*name).to_owned(), (*kind).to_owned())).collect();
        assert_eq!(table.complaint(&found), None);
        found[3].1 = "UInt32".to_owned();
        assert!(table.complaint(&found).is_some_and(|text| text.contains("column value of `d`.`t` is UInt32")));
        found.remove(0);
        assert!(table.complaint(&found).is_some_and(|text| text.contains("no column time")));
        for (name, kind, _) in COLUMNS {
            assert!(table.ddl().contains(&format!("`{name}` {kind}")));
        }
    }
}
