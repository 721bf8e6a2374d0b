//! The tables: their names, their DDL, and their required columns.

/// The tables' names, quoted.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) schema: String,
    pub(super) table: String,
}

/// Columns and their types, as PostgreSQL names them.
type Columns = &'static [(&'static str, &'static str)];

const COUNTERS: Columns = &[
    ("time", "timestamp with time zone"),
    ("time_ns", "bigint"),
    ("name", "text"),
    ("tags", "jsonb"),
    ("value", "bigint"),
    ("topic", "text"),
    ("partition", "bigint"),
    ("first_offset", "bigint"),
];
const LEDGER: Columns = &[("topic", "text"), ("partition", "bigint"), ("next_offset", "bigint")];
const REFUSED: Columns =
    &[("topic", "text"), ("partition", "bigint"), ("first_offset", "bigint"), ("point", "bigint"), ("reason", "text")];

/// A time in nanoseconds as PostgreSQL's, whose finest is a microsecond. Exact, because seconds and microseconds are
/// multiplied apart: an interval is multiplied as a floating-point number.
pub(super) fn time_of(nanos: &str) -> String {
    format!(
        "(to_timestamp(0) + ({nanos} / 1000000000) * interval '1 second' \
         + ({nanos} % 1000000000 / 1000) * interval '1 microsecond')"
    )
}

impl Tables {
    pub(super) fn new(schema: &str, table: &str) -> Self {
        Self { schema: schema.to_owned(), table: table.to_owned() }
    }

    /// The table of counts.
    pub(super) fn counters(&self) -> String {
        self.qualified("")
    }

    /// The offset up to which each partition is in the database; changed in the same transaction as the counts.
    pub(super) fn ledger(&self) -> String {
        self.qualified("_ledger")
    }

    /// Points that the database refused, so that a batch written again gets the same result.
    pub(super) fn refused(&self) -> String {
        self.qualified("_refused")
    }

    fn qualified(&self, end: &str) -> String {
        format!("{}.{}", quote(&self.schema), quote(&format!("{}{end}", self.table)))
    }

    /// Name, columns and rights of each table.
    pub(super) fn wanted(&self) -> [(String, Columns, &'static [&'static str]); 3] {
        [
            (self.table.clone(), COUNTERS, &["INSERT", "SELECT"]),
            (format!("{}_ledger", self.table), LEDGER, &["INSERT", "SELECT", "UPDATE"]),
            (format!("{}_refused", self.table), REFUSED, &["INSERT", "SELECT"]),
        ]
    }

    pub(super) fn make_schema(&self) -> String {
        format!("CREATE SCHEMA IF NOT EXISTS {};\n", quote(&self.schema))
    }

    /// The statements that create the tables; they do not change existing ones.
    pub(super) fn make(&self) -> String {
        let columns = |columns: Columns| {
            let column = |(name, kind): &(&str, &str)| format!("    {name} {kind} NOT NULL");
            columns.iter().map(column).collect::<Vec<_>>().join(",\n")
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {counters} (\n{}\n);\n\
             CREATE INDEX IF NOT EXISTS {index} ON {counters} (name, time DESC);\n\
             CREATE TABLE IF NOT EXISTS {ledger} (\n{},\n    PRIMARY KEY (topic, partition)\n);\n\
             CREATE TABLE IF NOT EXISTS {refused} (\n{},\n    PRIMARY KEY (topic, partition, first_offset, point)\n);\n",
            columns(COUNTERS),
            columns(LEDGER),
            columns(REFUSED),
            counters = self.counters(),
            ledger = self.ledger(),
            refused = self.refused(),
            index = quote(&format!("{}_name_time", self.table)),
        )
    }

    /// The DDL for operators, with comments.
    pub(super) fn ddl(&self) -> String {
        let table = self.counters().replace('\'', "''");
        format!(
            "{}{}\n-- With TimescaleDB, while the table is empty:\n-- SELECT create_hypertable('{table}', 'time', \
             chunk_time_interval => interval '1 day');\n-- ALTER TABLE {} SET (timescaledb.compress, \
             timescaledb.compress_segmentby = 'name');\n",
            self.make_schema(),
            self.make(),
            self.counters()
        )
    }
}

/// Any text as an identifier.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        let tables = Tables::new("a b", "c\"; DROP TABLE x; --");
        assert_eq!(tables.counters(), "\"a b\".\"c\"\"; DROP TABLE x; --\"");
        assert_eq!(tables.ledger(), "\"a b\".\"c\"\"; DROP TABLE x; --_ledger\"");
    }

    #[test]
    fn the_statements_name_every_column() {
        let ddl = Tables::new("public", "counters").ddl();
        assert!(ddl.starts_with(
            "CREATE SCHEMA IF NOT EXISTS \"public\";\nCREATE TABLE IF NOT EXISTS \"public\".\"counters\""
        ));
        for (name, kind) in COUNTERS.iter().chain(LEDGER).chain(REFUSED) {
            assert!(ddl.contains(&format!("    {name} {kind} NOT NULL")), "{name}");
        }
        assert!(ddl.contains("-- SELECT create_hypertable('\"public\".\"counters\"', 'time'"));
    }
}
