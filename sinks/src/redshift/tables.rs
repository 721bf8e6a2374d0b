//! The tables: their names, their columns, and the DDL.

use super::sql::{identifier, literal};

/// The most bytes of a counter's name, a tag's value and a topic.
pub(super) const NAME_BYTES: usize = 512;
pub(super) const VALUE_BYTES: usize = 1_024;
const TOPIC_BYTES: usize = 249;
/// The most bytes of a reason in `…_refused`.
pub(super) const REASON_BYTES: usize = 1_024;

/// The columns of every table of counts; tag keys cannot have the same names.
pub(super) const OWN_COLUMNS: [&str; 8] =
    ["window_start", "nanos", "name", "tags", "value", "topic", "partition_id", "first_offset"];

/// The longest name of a table for which the names of its companions still fit.
pub(super) const MAX_TABLE: usize = super::sql::MAX_NAME - "_refused".len();

/// The tables of counts, ledger and refused points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) schema: String,
    pub(super) table: String,
    /// Tag keys that have a column of their own.
    pub(super) columns: Vec<String>,
}

/// A required column: its name, and the type as `SVV_REDSHIFT_COLUMNS` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) data_type: &'static str,
    /// The least width in bytes, where the type has one.
    pub(super) bytes: Option<usize>,
    pub(super) not_null: bool,
}

impl Tables {
    /// `"schema"."table"`.
    pub(super) fn counters(&self) -> String {
        self.qualified("")
    }

    pub(super) fn ledger(&self) -> String {
        self.qualified("_ledger")
    }

    pub(super) fn refused(&self) -> String {
        self.qualified("_refused")
    }

    fn qualified(&self, suffix: &str) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&format!("{}{suffix}", self.table)))
    }

    /// The column of a tag key.
    pub(super) fn column(key: &str) -> String {
        key.to_lowercase()
    }

    /// Every table's name, without schema, and its columns.
    pub(super) fn expected(&self) -> Vec<(String, Vec<Column>)> {
        let column =
            |name: &str, data_type, bytes, not_null| Column { name: name.to_owned(), data_type, bytes, not_null };
        let text = |name: &str, bytes| column(name, "character varying", Some(bytes), true);
        let big = |name: &str| column(name, "bigint", None, true);
        let (topic, partition) = (text("topic", TOPIC_BYTES), column("partition_id", "integer", None, true));
        let mut counters = vec![
            column("window_start", "timestamp without time zone", None, true),
            column("nanos", "smallint", None, true),
            text("name", NAME_BYTES),
        ];
        let tag = |key: &String| column(&Self::column(key), "character varying", Some(VALUE_BYTES), false);
        counters.extend(self.columns.iter().map(tag));
        counters.extend([
            column("tags", "super", None, false),
            big("value"),
            topic.clone(),
            partition.clone(),
            big("first_offset"),
        ]);
        let ledger = vec![topic.clone(), partition.clone(), big("next_offset"), big("part")];
        let refused = vec![
            topic,
            partition,
            big("first_offset"),
            big("point_offset"),
            big("point_index"),
            text("reason", REASON_BYTES),
        ];
        vec![
            (self.table.clone(), counters),
            (format!("{}_ledger", self.table), ledger),
            (format!("{}_refused", self.table), refused),
        ]
    }

    /// The statements that create missing tables.
    pub(super) fn create(&self) -> Vec<String> {
        let mut statements = Vec::new();
        for (table, columns) in self.expected() {
            let columns: Vec<String> = columns.iter().map(|column| format!("    {}", column.ddl())).collect();
            let end = if table == self.table { "\nDISTSTYLE EVEN\nSORTKEY (window_start)" } else { "" };
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {}.{} (\n{}\n){end}",
                identifier(&self.schema),
                identifier(&table),
                columns.join(",\n")
            ));
        }
        statements
    }

    /// The DDL for operators to read and run, with comments.
    pub(super) fn ddl(&self) -> String {
        let mut text = format!(
            "-- Counts: one row for each series, window and batch; a count is a SUM over rows.\n\
             -- SORTKEY (window_start): queries name a span of time, and rows come in about the order of time, so that the\n\
             --   table stays sorted and blocks outside the span are not read. A second key would sort within one instant only.\n\
             -- DISTSTYLE EVEN: rows spread over all slices. A DISTKEY by name or tag would put the busiest counter on one.\n\
             -- Encodings are left to Redshift (ENCODE AUTO).\n\
             -- {}: up to where each partition is in; one row a partition. For this sink only.\n\
             -- {}: points that Redshift refused, so that a second try refuses the same.\n\n",
            self.ledger(),
            self.refused(),
        );
        for statement in self.create() {
            text.push_str(&statement);
            text.push_str(";\n\n");
        }
        text.push_str(&format!(
            "-- What the sink's user needs:\n\
             -- GRANT USAGE ON SCHEMA {} TO …;\n\
             -- GRANT SELECT, INSERT ON {} TO …;\n\
             -- GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO …;\n\
             -- GRANT SELECT, INSERT ON {} TO …;\n",
            identifier(&self.schema),
            self.counters(),
            self.ledger(),
            self.refused()
        ));
        text
    }

    /// Queries every column of the three tables: table, column, type, whether it may be NULL.
    pub(super) fn columns_query(&self, database: &str) -> String {
        let names: Vec<String> = self.expected().iter().map(|(table, _)| literal(&table.to_lowercase())).collect();
        format!(
            "SELECT table_name, column_name, data_type, is_nullable FROM svv_redshift_columns \
             WHERE database_name = {} AND schema_name = {} AND table_name IN ({})",
            literal(&database.to_lowercase()),
            literal(&self.schema.to_lowercase()),
            names.join(", ")
        )
    }
}

impl Column {
    fn ddl(&self) -> String {
        let data_type = match (self.data_type, self.bytes) {
            (_, Some(bytes)) => format!("VARCHAR({bytes})"),
            ("timestamp without time zone", _) => "TIMESTAMP".to_owned(),
            (other, _) => other.to_uppercase(),
        };
        let not_null = if self.not_null { " NOT NULL" } else { "" };
        format!("{} {data_type}{not_null}", identifier(&self.name))
    }

    /// Returns what is wrong with the found column.
    pub(super) fn differs(&self, found: &str, nullable: bool) -> Option<String> {
        let found = found.to_lowercase();
        let (base, width) = match found.split_once('(') {
            Some((base, rest)) => (base.trim().to_owned(), rest.trim_end_matches(')').trim().parse::<usize>().ok()),
            None => (found.clone(), None),
        };
        if base != self.data_type {
            return Some(format!("column {} is {found}, expected {}", self.name, self.data_type));
        }
        if let (Some(least), Some(width)) = (self.bytes, width)
            && width < least
        {
            return Some(format!("column {} holds {width} bytes, expected at least {least}", self.name));
        }
        if self.not_null && nullable && self.name == "next_offset" {
            // This constraint is the fence.
            return Some(format!("column {} may be NULL, expected NOT NULL", self.name));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        Tables { schema: "s".to_owned(), table: "t\"x".to_owned(), columns: vec!["Route".to_owned()] }
    }

    #[test]
    fn the_ddl_makes_what_is_expected_and_says_why() {
        let ddl = tables().ddl();
        for expected in [
            "CREATE TABLE IF NOT EXISTS \"s\".\"t\"\"x\" (",
            "    \"window_start\" TIMESTAMP NOT NULL,",
            "    \"name\" VARCHAR(512) NOT NULL,",
            "    \"route\" VARCHAR(1024),",
            "    \"tags\" SUPER,",
            "    \"value\" BIGINT NOT NULL,",
            "DISTSTYLE EVEN\nSORTKEY (window_start);",
            "CREATE TABLE IF NOT EXISTS \"s\".\"t\"\"x_ledger\" (",
            "    \"next_offset\" BIGINT NOT NULL,",
        ] {
            assert!(ddl.contains(expected), "{expected} is not in\n{ddl}");
        }
    }

    #[test]
    fn a_column_says_what_is_wrong_with_it() {
        let column = |name: &str| {
            let all: Vec<Column> = tables().expected().into_iter().flat_map(|(_, columns)| columns).collect();
            all.into_iter().find(|column| column.name == name).unwrap()
        };
        assert_eq!(column("name").differs("character varying(512)", false), None);
        assert_eq!(column("name").differs("character varying(65535)", false), None);
        assert_eq!(
            column("name").differs("VARCHAR", false).unwrap(),
            "column name is varchar, expected character varying"
        );
        assert!(column("name").differs("character varying(256)", false).unwrap().contains("at least 512"));
        assert!(column("tags").differs("character varying(256)", true).unwrap().contains("expected super"));
        assert!(column("next_offset").differs("bigint", true).unwrap().contains("expected NOT NULL"));
        assert_eq!(column("value").differs("bigint", true), None);
    }
}
