//! The settings of a Redshift sink.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tallybus_sdk::config::ConfigTable;
use tallybus_sdk::{BuildSink, Setting, ShadowName};

use super::RedshiftSink;
use super::sql::MAX_NAME;
use super::tables::{MAX_TABLE, OWN_COLUMNS, Tables};
use crate::shared::aws::{self, AwsSettings, StoreUrl};

/// The settings, checked.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) aws: AwsSettings,
    pub(super) target: Target,
    pub(super) tables: Tables,
    /// Where `COPY` reads from; without it, rows are sent in statements.
    pub(super) staging: Option<Staging>,
    pub(super) create: bool,
    /// The timeout of one request.
    pub(super) timeout: Duration,
}

/// The warehouse and the database user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) cluster: Option<String>,
    pub(super) workgroup: Option<String>,
    pub(super) database: String,
    pub(super) db_user: Option<String>,
    pub(super) secret_arn: Option<String>,
}

/// The temporary place of the objects that `COPY` reads.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    pub(super) url: StoreUrl,
    /// As in the setting, without a slash at its end.
    pub(super) prefix: String,
    pub(super) iam_role: String,
    /// The bucket's region, where it is another one than the cluster's.
    pub(super) region: Option<String>,
    /// The same credentials, and S3's own endpoint.
    pub(super) aws: AwsSettings,
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "cluster", default: None, help: "the identifier of a provisioned cluster" },
    Setting { key: "workgroup", default: None, help: "the workgroup, where Redshift is serverless" },
    Setting { key: "database", default: None, help: "the database; must exist" },
    Setting {
        key: "db_user",
        default: None,
        help: "cluster: the database user, with temporary credentials; that of the IAM identity when left out",
    },
    Setting {
        key: "secret_arn",
        default: None,
        help: "the secret in Secrets Manager that holds user and password, instead of temporary credentials",
    },
    Setting { key: "schema", default: Some("public"), help: "the schema of the tables" },
    Setting {
        key: "table",
        default: Some("counters"),
        help: "the table of counts; `…_ledger` and `…_refused` are in the same schema",
    },
    Setting {
        key: "tag_columns",
        default: Some("[]"),
        help: "tag keys that get a VARCHAR column of their own; all others are in the SUPER column `tags`",
    },
    Setting { key: "create", default: Some("false"), help: "creates schema and tables when they are missing" },
    Setting {
        key: "mode",
        default: Some("insert"),
        help: "\"insert\" (rows in statements) or \"copy\" (objects in S3 that COPY reads)",
    },
    Setting { key: "staging", default: None, help: "copy: the temporary place of the objects, s3://bucket/prefix" },
    Setting {
        key: "staging_endpoint",
        default: None,
        help: "copy: another endpoint for S3 than AWS's own, such as a VPC endpoint",
    },
    Setting {
        key: "staging_region",
        default: None,
        help: "copy: the bucket's region, where it is another one than the cluster's",
    },
    Setting {
        key: "iam_role",
        default: None,
        help: "copy: the ARN of the role with which Redshift reads the objects, or \"default\"",
    },
    Setting {
        key: "timeout",
        default: Some("60s"),
        help: "how long one request may take; the Data API is asked to wait for half of it",
    },
    aws::REGION,
    aws::ENDPOINT,
    aws::PROFILE,
    aws::ACCESS_KEY_ID,
    aws::SECRET_ACCESS_KEY,
];

pub(super) fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let target = parse_target(section);
    let tables = parse_tables(section);
    let create = section.or("create", ConfigTable::bool, false);
    let timeout = section.or("timeout", ConfigTable::duration, Duration::from_secs(60));
    if timeout.is_some_and(|timeout| timeout < Duration::from_secs(1)) {
        section.problem("timeout", "must be 1s or longer");
    }
    let aws = AwsSettings::parse(section);
    let staging = parse_staging(section, aws.as_ref());
    if section.has_problems() {
        return None;
    }
    let config =
        Config { aws: aws?, target: target?, tables: tables?, staging: staging?, create: create?, timeout: timeout? };
    Some(Box::new(move |context| Ok(Arc::new(RedshiftSink::new(config.clone(), context)))))
}

fn parse_target(section: &mut ConfigTable<'_>) -> Option<Target> {
    let (has_cluster, has_workgroup) = (section.has("cluster"), section.has("workgroup"));
    let (cluster, workgroup) = (section.string("cluster"), section.string("workgroup"));
    let (has_user, has_secret) = (section.has("db_user"), section.has("secret_arn"));
    let (db_user, secret_arn) = (section.string("db_user"), section.string("secret_arn"));
    let database = section.required_string("database");
    let problem = match (has_cluster, has_workgroup) {
        (false, false) => Some(("cluster", "is missing; give the identifier of a cluster, or `workgroup`")),
        (true, true) => Some(("workgroup", "give `cluster` or `workgroup`, not both")),
        (false, true) if has_user => Some((
            "db_user",
            "belongs to `cluster`; in a workgroup the IAM identity or `secret_arn` determines the user",
        )),
        _ if has_user && has_secret => Some(("secret_arn", "give `db_user` or `secret_arn`, not both")),
        _ => None,
    };
    if let Some((key, message)) = problem {
        section.problem(key, message);
        return None;
    }
    let given = cluster.is_some() || workgroup.is_some();
    let sound = given && db_user.is_some() == has_user && secret_arn.is_some() == has_secret;
    sound.then_some(())?;
    Some(Target { cluster, workgroup, database: database?, db_user, secret_arn })
}

fn parse_tables(section: &mut ConfigTable<'_>) -> Option<Tables> {
    let schema = name(section, "schema", "public", MAX_NAME);
    let table = name(section, "table", "counters", MAX_TABLE);
    let columns = section.or("tag_columns", ConfigTable::strings, Vec::new())?;
    let mut known: Vec<String> = OWN_COLUMNS.iter().map(|own| (*own).to_owned()).collect();
    for key in &columns {
        let column = Tables::column(key);
        let problem = if column.is_empty() || column.len() > MAX_NAME || column.chars().any(char::is_control) {
            Some(format!("`{key}` cannot be the name of a column"))
        } else if known.contains(&column) {
            Some(format!(
                "`{key}` is the name of another column already; Redshift's column names are not case-sensitive"
            ))
        } else {
            None
        };
        if let Some(problem) = problem {
            section.problem("tag_columns", problem);
            return None;
        }
        known.push(column);
    }
    Some(Tables { schema: schema?, table: table?, columns })
}

/// The outer `None` when there is a problem, the inner when rows are sent in statements.
fn parse_staging(section: &mut ConfigTable<'_>, aws: Option<&AwsSettings>) -> Option<Option<Staging>> {
    let mode = section.or("mode", |section, key| section.choice(key, &["insert", "copy"]), "insert");
    let has_endpoint = section.has("staging_endpoint");
    let endpoint = section.url("staging_endpoint");
    let (has_region, region) = (section.has("staging_region"), section.string("staging_region"));
    if mode == Some("insert") {
        let mut is_sound = true;
        for key in ["staging", "staging_endpoint", "staging_region", "iam_role"] {
            if section.has(key) {
                section.problem(key, "belongs to `mode = \"copy\"`");
                is_sound = false;
            }
        }
        return is_sound.then_some(None);
    }
    let (staging, iam_role) = (section.required_string("staging"), section.required_string("iam_role"));
    mode?;
    let (staging, iam_role) = (staging?, iam_role?);
    let url = match StoreUrl::parse(&staging) {
        Ok(url @ StoreUrl::S3 { .. }) => url,
        Ok(StoreUrl::Folder(_)) => {
            section.problem("staging", "expected s3://bucket/prefix: Redshift reads from S3 only");
            return None;
        }
        Err(reason) => {
            section.problem("staging", reason);
            return None;
        }
    };
    let is_role = |c: char| c.is_ascii_alphanumeric() || ":/-_+=,.@".contains(c);
    if !iam_role.chars().all(is_role) {
        section.problem("iam_role", "expected the ARN of a role, several with commas between, or \"default\"");
        return None;
    }
    if endpoint.is_some() != has_endpoint {
        return None;
    }
    if region.is_some() != has_region {
        return None;
    }
    let prefix = url.to_string();
    Some(Some(Staging { url, prefix, iam_role, region, aws: aws?.clone().with_endpoint(endpoint) }))
}

/// A valid Redshift name.
fn name(section: &mut ConfigTable<'_>, key: &str, default: &str, longest: usize) -> Option<String> {
    if !section.has(key) {
        return Some(default.to_owned());
    }
    let name = section.required_string(key)?;
    if name.len() > longest || name.chars().any(char::is_control) {
        section.problem(key, format!("must have at most {longest} bytes, and no control characters"));
        return None;
    }
    Some(name)
}

/// Tables of the same schema.
pub(super) fn shadow(settings: &mut Map<String, Value>, name: &ShadowName) -> Result<(), String> {
    name.replace(settings, "table");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tallybus_sdk::config::read_for_test;

    use super::*;

    fn read(table: Value) -> (bool, String) {
        let (built, problems) = read_for_test(&table, parse);
        assert_eq!(built.is_some(), problems.is_empty(), "{problems:?}");
        (built.is_some(), problems.join("\n"))
    }

    #[test]
    fn the_least_that_is_needed_is_enough() {
        for fine in [
            json!({"cluster": "c", "database": "d"}),
            json!({"cluster": "c", "database": "d", "db_user": "u"}),
            json!({"cluster": "c", "database": "d", "secret_arn": "arn:aws:secretsmanager:r:1:secret:s"}),
            json!({"workgroup": "w", "database": "d"}),
            json!({"workgroup": "w", "database": "d", "schema": "s", "table": "t", "tag_columns": ["Route", "status"],
                "create": true, "timeout": "5s", "mode": "insert", "region": "eu-west-1", "endpoint": "http://h:1"}),
            json!({"workgroup": "w", "database": "d", "mode": "copy", "staging": "s3://b/p", "iam_role": "default",
                "staging_endpoint": "http://h:2", "access_key_id": "k", "secret_access_key": "s"}),
        ] {
            assert_eq!(read(fine.clone()), (true, String::new()), "{fine}");
        }
    }

    #[test]
    fn settings_that_do_not_belong_together_are_reported() {
        for (table, expected) in [
            (json!({"database": "d"}), "cluster: is missing"),
            (json!({"cluster": "c", "workgroup": "w", "database": "d"}), "not both"),
            (json!({"workgroup": "w", "database": "d", "db_user": "u"}), "db_user: belongs to `cluster`"),
            (json!({"cluster": "c", "database": "d", "db_user": "u", "secret_arn": "a"}), "`db_user` or `secret_arn`"),
            (json!({"cluster": "c"}), "database: missing required setting"),
            (json!({"cluster": "c", "database": "d", "table": "x".repeat(120)}), "table: must have at most 119 bytes"),
            (json!({"cluster": "c", "database": "d", "tag_columns": ["a", "A"]}), "`A` is the name of another column"),
            (json!({"cluster": "c", "database": "d", "tag_columns": ["Value"]}), "`Value` is the name of another"),
            (json!({"cluster": "c", "database": "d", "staging": "s3://b"}), "staging: belongs to `mode = \"copy\"`"),
            (json!({"cluster": "c", "database": "d", "mode": "copy"}), "staging: missing required setting"),
            (
                json!({"cluster": "c", "database": "d", "mode": "copy", "staging": "/tmp", "iam_role": "default"}),
                "from S3 only",
            ),
            (
                json!({"cluster": "c", "database": "d", "mode": "copy", "staging": "s3://b", "iam_role": "x'y"}),
                "iam_role: expected",
            ),
            (json!({"cluster": "c", "database": "d", "mode": "cpy"}), "did you mean `copy`?"),
            (json!({"cluster": "c", "database": "d", "timeout": "10ms"}), "timeout: must be 1s or longer"),
        ] {
            let (built, problems) = read(table.clone());
            assert!(!built && problems.contains(expected), "{expected} is not in\n{problems}");
        }
    }
}
