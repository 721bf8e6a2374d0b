//! Classifies errors of PostgreSQL.

use std::error::Error as _;

use tallybus_sdk::Fault;
use tallybus_sdk::text::redact;

/// An error as plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The remedy; `refused` is a row that will never be accepted.
    pub(super) fault: Fault,
    /// PostgreSQL's code of the error, when it came from there.
    pub(super) code: Option<String>,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, code: None }
    }
}

impl Failure {
    pub(super) fn is_missing_table(&self) -> bool {
        matches!(self.code.as_deref(), Some("42P01" | "3F000"))
    }

    /// Classifies an error of the driver; `secret` is removed from its text.
    pub(super) fn of(error: &tokio_postgres::Error, secret: Option<&str>) -> Self {
        let Self { fault, code } = match error.as_db_error() {
            Some(said) => {
                let code = said.code().code();
                // The detail repeats the row, which may be long and does not belong in a log.
                let text = format!("PostgreSQL answered {code}: {}{}", said.message(), advice(code));
                Self { fault: judge(code, text), code: Some(code.to_owned()) }
            }
            None => Self::of_driver(error),
        };
        Self { fault: fault.reworded(|text| redact(text, secret.as_slice())), code }
    }

    /// The server did not answer: the connection is broken, or the settings are wrong.
    fn of_driver(error: &tokio_postgres::Error) -> Self {
        let mut text = error.to_string();
        let mut broken = false;
        let mut next = error.source();
        while let Some(cause) = next {
            text.push_str(&format!(": {cause}"));
            broken |= cause.is::<std::io::Error>();
            next = cause.source();
        }
        let about_settings =
            ["error performing TLS handshake", "authentication error", "invalid configuration", "error serializing"];
        match !broken && about_settings.iter().any(|start| text.starts_with(start)) {
            true => Fault::operator(format!("{text}; {}", what_to_set(&text))).into(),
            false => Fault::retry(text).into(),
        }
    }
}

/// The settings that an error before the login is about.
fn what_to_set(text: &str) -> &'static str {
    if text.contains("does not support TLS") {
        return "switch `ssl` on at the server, or set tls = \"off\" where nobody else can read the network";
    }
    if text.contains("certificate") || text.contains("handshake") {
        return "set `ca` to the PEM file of the authority that signed the server's certificate, and `host` to a name in it; \
                tls = \"require\" encrypts without checking who the server is";
    }
    "check `tls`, `ca`, `user` and `password`"
}

/// Classifies a SQLSTATE, with this text.
fn judge(code: &str, text: String) -> Fault {
    match code {
        // A file of the database is damaged: a retry does not repair it.
        "XX001" | "XX002" => Fault::operator(text),
        // A value that the column, or a constraint of the table's owner, does not accept.
        "23514" | "54000" => Fault::refused(text),
        // The server is read-only for now: a standby, or one about to be.
        "25006" | "25P03" | "25P04" => Fault::retry(text),
        "55P03" | "55006" => Fault::retry(text),
        _ => match code.get(..2).unwrap_or_default() {
            "22" => Fault::refused(text),
            // Connection; transaction conflict; disk space, memory or connections; operator intervention; I/O; internal
            // error.
            "08" | "40" | "53" | "57" | "58" | "XX" => Fault::retry(text),
            _ => Fault::operator(text),
        },
    }
}

/// The next step, where it is not obvious from the server's message.
fn advice(code: &str) -> &'static str {
    match code {
        "3D000" => "; create the database, or correct `database`",
        "3F000" | "42P01" => "; run what `tallybus sink ddl` prints, or restart the worker with `create = true`",
        "42501" => "; grant the role what it needs",
        "42703" | "42804" => "; the table is not what `tallybus sink ddl` prints",
        "53100" => "; free some space",
        "53300" => "; raise the server's or the role's limit, or lower `connections`",
        "23502" | "23503" | "23505" | "23P01" => "; every row must fit: drop that constraint, or name another table",
        _ if code.starts_with("28") => "; check `user` and `password`, and pg_hba.conf",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::WriteOutcome;

    use super::*;

    #[test]
    fn every_code_has_its_fault() {
        for (code, expected) in [
            ("08000", "retry"),
            ("08006", "retry"),
            ("0A000", "halt"),
            ("22003", "split"),
            ("22021", "split"),
            ("22P05", "split"),
            ("23502", "halt"),
            ("23503", "halt"),
            ("23505", "halt"),
            ("23514", "split"),
            ("25006", "retry"),
            ("25P02", "halt"),
            ("25P03", "retry"),
            ("28000", "halt"),
            ("28P01", "halt"),
            ("3D000", "halt"),
            ("3F000", "halt"),
            ("40001", "retry"),
            ("40P01", "retry"),
            ("42501", "halt"),
            ("42601", "halt"),
            ("42703", "halt"),
            ("42P01", "halt"),
            ("53100", "retry"),
            ("53200", "retry"),
            ("53300", "retry"),
            ("54000", "split"),
            ("54001", "halt"),
            ("55006", "retry"),
            ("55P03", "retry"),
            ("57014", "retry"),
            ("57P01", "retry"),
            ("57P02", "retry"),
            ("57P03", "retry"),
            ("58030", "retry"),
            ("P0001", "halt"),
            ("XX000", "retry"),
            ("XX001", "halt"),
            ("", "halt"),
        ] {
            assert_eq!(WriteOutcome::from(judge(code, String::new())).kind(), expected, "{code}");
        }
    }

    #[test]
    fn codes_that_need_the_operator_say_what_to_do() {
        for code in ["28P01", "3D000", "42P01", "42501", "42703", "23505"] {
            assert!(!advice(code).is_empty(), "{code}");
        }
    }
}
