//! What an error of PostgreSQL means.

use std::error::Error as _;

use tallybus_sdk::text::redact;

/// Who can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same again, later.
    Passing,
    /// Somebody must act.
    Lasting,
    /// A row that will never be taken.
    Refused,
}

/// An error as plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) verdict: Verdict,
    /// PostgreSQL's code of the error, when it came from there.
    pub(super) code: Option<String>,
    /// For people; without secrets.
    pub(super) text: String,
}

impl Failure {
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Passing, code: None, text: text.into() }
    }

    pub(super) fn lasting(text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Lasting, code: None, text: text.into() }
    }

    pub(super) fn is_missing_table(&self) -> bool {
        matches!(self.code.as_deref(), Some("42P01" | "3F000"))
    }

    /// What an error of the driver means; `secret` is taken out of its text.
    pub(super) fn of(error: &tokio_postgres::Error, secret: Option<&str>) -> Self {
        let mut failure = match error.as_db_error() {
            Some(said) => {
                let code = said.code().code();
                // The detail repeats the row, which may be long and is nobody's business in a log.
                let text = format!("PostgreSQL answered {code}: {}", said.message());
                Self { verdict: judge(code), code: Some(code.to_owned()), text: format!("{text}{}", advice(code)) }
            }
            None => Self::of_driver(error),
        };
        failure.text = redact(&failure.text, secret.as_slice());
        failure
    }

    /// The server said nothing: the way to it is broken, or it is not what the settings say.
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
            true => Self::lasting(format!("{text}; check `tls`, `ca`, `user` and `password`")),
            false => Self::passing(text),
        }
    }
}

/// What a SQLSTATE means.
fn judge(code: &str) -> Verdict {
    match code {
        // A file of the database is damaged: trying again does not mend it.
        "XX001" | "XX002" => Verdict::Lasting,
        // A value that the column, or a constraint that its owner put there, does not take.
        "23514" | "54000" => Verdict::Refused,
        // For now, this server only reads: a standby, or one about to be.
        "25006" | "25P03" | "25P04" => Verdict::Passing,
        "55P03" | "55006" => Verdict::Passing,
        _ => match code.get(..2).unwrap_or_default() {
            "22" => Verdict::Refused,
            // The connection; the transaction lost against another; room, memory, connections; the operator steps in; the
            // disk; itself.
            "08" | "40" | "53" | "57" | "58" | "XX" => Verdict::Passing,
            _ => Verdict::Lasting,
        },
    }
}

/// The next step, where it is not plain from the server's words.
fn advice(code: &str) -> &'static str {
    match code {
        "3D000" => "; create the database, or correct `database`",
        "3F000" | "42P01" => "; set `create = true`, or run what `tallybus sink ddl` prints",
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
    use super::*;

    #[test]
    fn every_code_finds_who_can_help() {
        for (code, expected) in [
            ("08000", Verdict::Passing),
            ("08006", Verdict::Passing),
            ("0A000", Verdict::Lasting),
            ("22003", Verdict::Refused),
            ("22021", Verdict::Refused),
            ("22P05", Verdict::Refused),
            ("23502", Verdict::Lasting),
            ("23503", Verdict::Lasting),
            ("23505", Verdict::Lasting),
            ("23514", Verdict::Refused),
            ("25006", Verdict::Passing),
            ("25P02", Verdict::Lasting),
            ("25P03", Verdict::Passing),
            ("28000", Verdict::Lasting),
            ("28P01", Verdict::Lasting),
            ("3D000", Verdict::Lasting),
            ("3F000", Verdict::Lasting),
            ("40001", Verdict::Passing),
            ("40P01", Verdict::Passing),
            ("42501", Verdict::Lasting),
            ("42601", Verdict::Lasting),
            ("42703", Verdict::Lasting),
            ("42P01", Verdict::Lasting),
            ("53100", Verdict::Passing),
            ("53200", Verdict::Passing),
            ("53300", Verdict::Passing),
            ("54000", Verdict::Refused),
            ("54001", Verdict::Lasting),
            ("55006", Verdict::Passing),
            ("55P03", Verdict::Passing),
            ("57014", Verdict::Passing),
            ("57P01", Verdict::Passing),
            ("57P02", Verdict::Passing),
            ("57P03", Verdict::Passing),
            ("58030", Verdict::Passing),
            ("P0001", Verdict::Lasting),
            ("XX000", Verdict::Passing),
            ("XX001", Verdict::Lasting),
            ("", Verdict::Lasting),
        ] {
            assert_eq!(judge(code), expected, "{code}");
        }
    }

    #[test]
    fn who_must_act_is_told_what_to_do() {
        for code in ["28P01", "3D000", "42P01", "42501", "42703", "23505"] {
            assert!(!advice(code).is_empty(), "{code}");
        }
    }
}
