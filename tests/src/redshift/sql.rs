//! Redshift's SQL for PostgreSQL: what Redshift lacks is refused, what PostgreSQL lacks is translated.

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'s> {
    /// A word or number, as written.
    Word(&'s str),
    /// `"…"` with its quotes.
    Name(&'s str),
    /// `'…'` with its quotes.
    Text(&'s str),
    Sign(char),
}

/// Cuts a statement up; blanks are left out.
pub(super) fn tokens(sql: &str, backslash_escapes: bool) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' => quoted(rest, first, backslash_escapes && first == '\''),
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        let (piece, after) = rest.split_at(length);
        match first {
            '\'' => tokens.push(Token::Text(piece)),
            '"' => tokens.push(Token::Name(piece)),
            c if c.is_whitespace() => {}
            c if c.is_alphanumeric() || c == '_' => tokens.push(Token::Word(piece)),
            c => tokens.push(Token::Sign(c)),
        }
        rest = after;
    }
    tokens
}

/// Bytes of what begins with a quote, to its end.
fn quoted(text: &str, quote: char, backslash_escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && backslash_escapes {
            chars.next();
        } else if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => drop(chars.next()),
                _ => return at + 1,
            }
        }
    }
    text.len()
}

/// What stands outside literals and quoted names, in capitals, words apart by one blank.
fn skeleton(tokens: &[Token<'_>]) -> String {
    let mut text = String::from(" ");
    for token in tokens {
        match token {
            Token::Word(word) => text.push_str(&word.to_uppercase()),
            Token::Name(_) => text.push_str("\"\""),
            Token::Text(_) => text.push_str("''"),
            Token::Sign(sign) => text.push(*sign),
        }
        text.push(' ');
    }
    text
}

/// What Redshift says to what it does not have; the words are looked for between blanks.
const REFUSED: &[(&str, &str)] = &[
    (" ON CONFLICT ", "syntax error at or near \"CONFLICT\""),
    (" RETURNING ", "syntax error at or near \"RETURNING\""),
    (" FROM ( VALUES ", "syntax error at or near \"VALUES\""),
    (" JOIN ( VALUES ", "syntax error at or near \"VALUES\""),
    (" LATERAL ", "syntax error at or near \"LATERAL\""),
    (" DISTINCT ON ( ", "SELECT DISTINCT ON is not supported"),
    (" FILTER ( WHERE ", "syntax error at or near \"(\""),
    (" FOR UPDATE ", "SELECT FOR UPDATE is not supported"),
    (" CREATE INDEX ", "SQL command \"CREATE INDEX\" not supported on Redshift tables."),
    (" CREATE UNIQUE INDEX ", "SQL command \"CREATE UNIQUE INDEX\" not supported on Redshift tables."),
    (" CREATE DOMAIN ", "SQL command \"CREATE DOMAIN\" not supported."),
    (" CREATE TRIGGER ", "syntax error at or near \"TRIGGER\""),
    (" CREATE UNLOGGED ", "syntax error at or near \"UNLOGGED\""),
    (" CHECK ( ", "CHECK constraints are not supported"),
    (" EXCLUDE ", "syntax error at or near \"EXCLUDE\""),
    (" SERIAL ", "Column has unsupported type \"serial\"."),
    (" BIGSERIAL ", "Column has unsupported type \"serial\"."),
    (" JSONB ", "type \"jsonb\" does not exist"),
    (" JSON ,", "Column has unsupported type \"json\"."),
    (" UUID ", "Column has unsupported type \"uuid\"."),
    (" BYTEA ", "Column has unsupported type \"bytea\"."),
    (" ARRAY [ ", "Function \"array\" with [ ] is not supported"),
    (" UNNEST ( ", "function unnest(\"unknown\") does not exist"),
    (" JSONB_", "function does not exist"),
    (" JSON_BUILD_OBJECT ( ", "function json_build_object(\"unknown\") does not exist"),
    (" GEN_RANDOM_UUID ( ", "function gen_random_uuid() does not exist"),
    (" PG_ADVISORY", "function pg_advisory_lock(integer) does not exist"),
    (" $ ", "syntax error at or near \"$\""),
    (" ; ", "cannot insert multiple commands into a prepared statement"),
];

/// Why Redshift would not take a statement.
pub(super) fn refusal(tokens: &[Token<'_>]) -> Option<String> {
    let skeleton = skeleton(tokens);
    if skeleton.contains(" GENERATE_SERIES ( ") && skeleton.contains(" INSERT ") {
        // It runs on the leader alone; rows of tables lie elsewhere.
        return Some(
            "Specified types or functions (one per INFO message) not supported on Redshift tables.".to_owned(),
        );
    }
    let found = REFUSED.iter().find(|(words, _)| skeleton.contains(words));
    found.map(|(_, message)| (*message).to_owned())
}

/// The statement for PostgreSQL, and the widths of `VARCHAR`, for which there must be domains that count bytes.
pub(super) fn translate(sql: &str, tokens: &[Token<'_>]) -> (String, Vec<u32>) {
    let is_word =
        |at: usize, word: &str| matches!(tokens.get(at), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word));
    if !(is_word(0, "CREATE") && is_word(1, "TABLE")) {
        return (sql.to_owned(), Vec::new());
    }
    let mut text = String::new();
    let mut widths = Vec::new();
    let mut at = 0;
    let mut depth = 0;
    while at < tokens.len() {
        if is_word(at, "VARCHAR")
            && tokens.get(at + 1) == Some(&Token::Sign('('))
            && let Some(Token::Word(width)) = tokens.get(at + 2)
        {
            let width = if width.eq_ignore_ascii_case("MAX") { 65_535 } else { width.parse().unwrap_or(65_536) };
            widths.push(width);
            text.push_str(&format!("redshift.varchar_{width} "));
            at += 4;
            continue;
        }
        if is_word(at, "ENCODE") || is_word(at, "DISTSTYLE") {
            at += 2;
            continue;
        }
        if depth == 0 && (is_word(at, "COMPOUND") || is_word(at, "SORTKEY") || is_word(at, "DISTKEY")) {
            while at < tokens.len() && tokens[at] != Token::Sign(')') {
                at += 1;
            }
            at += 1;
            continue;
        }
        if is_word(at, "SORTKEY") || is_word(at, "DISTKEY") || is_word(at, "UNIQUE") {
            at += 1;
            continue;
        }
        // Keys are information for the planner; nobody enforces them.
        if is_word(at, "PRIMARY") && is_word(at + 1, "KEY") {
            at += 2;
            if tokens.get(at) == Some(&Token::Sign('(')) {
                at += tokens[at..].iter().position(|token| *token == Token::Sign(')')).unwrap_or_default() + 1;
                text.truncate(text.trim_end().trim_end_matches(',').len());
            }
            continue;
        }
        match &tokens[at] {
            Token::Word(word) if word.eq_ignore_ascii_case("SUPER") => text.push_str("redshift.super"),
            Token::Word(word) => text.push_str(word),
            // Redshift folds quoted names too.
            Token::Name(name) => text.push_str(&name.to_lowercase()),
            Token::Text(literal) => text.push_str(literal),
            Token::Sign(sign) => {
                depth += i32::from(*sign == '(') - i32::from(*sign == ')');
                text.push(*sign);
                if *sign == '.' {
                    at += 1;
                    continue;
                }
            }
        }
        if !matches!(tokens.get(at + 1), Some(Token::Sign('.'))) {
            text.push(' ');
        }
        at += 1;
    }
    (text, widths)
}

/// Tables that a statement reads and writes, by name as written; `LOCK` does neither.
pub(super) fn tables(tokens: &[Token<'_>]) -> (Vec<String>, Vec<String>) {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    let word = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) => word.to_uppercase(),
        _ => String::new(),
    };
    for at in 0..tokens.len() {
        let previous = if at > 0 { word(at - 1) } else { String::new() };
        match word(at).as_str() {
            "INTO" | "UPDATE" | "COPY" => {
                if let Some(name) = name_at(tokens, at + 1) {
                    writes.push(name.clone());
                    if word(at) == "UPDATE" {
                        reads.push(name);
                    }
                }
            }
            "FROM" if previous == "DELETE" => {
                if let Some(name) = name_at(tokens, at + 1) {
                    writes.push(name.clone());
                    reads.push(name);
                }
            }
            "FROM" | "JOIN" => reads.extend(name_at(tokens, at + 1)),
            _ => {}
        }
    }
    (reads, writes)
}

/// A table's name, with its schema where it has one.
pub(super) fn name_at(tokens: &[Token<'_>], at: usize) -> Option<String> {
    let part = |at: usize| match tokens.get(at) {
        Some(Token::Name(name)) => Some(name.to_lowercase()),
        Some(Token::Word(word)) => Some(word.to_lowercase()),
        _ => None,
    };
    let first = part(at)?;
    if tokens.get(at + 1) != Some(&Token::Sign('.')) {
        return Some(first);
    }
    Some(format!("{first}.{}", part(at + 2)?))
}

/// A `COPY` of JSON from S3, as far as it is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
    pub(super) bucket: String,
    pub(super) key: String,
}

/// `None` for other statements; an error for a `COPY` of another kind.
pub(super) fn copy(tokens: &[Token<'_>]) -> Option<Result<Copy, String>> {
    if !matches!(tokens.first(), Some(Token::Word(word)) if word.eq_ignore_ascii_case("COPY")) {
        return None;
    }
    Some(read_copy(tokens).ok_or_else(|| "syntax error in COPY".to_owned()))
}

fn read_copy(tokens: &[Token<'_>]) -> Option<Copy> {
    let skeleton = skeleton(tokens);
    let needed = [" IAM_ROLE ", " FORMAT JSON '' ", " GZIP "];
    if needed.iter().any(|words| !skeleton.contains(words)) {
        return None;
    }
    let open = tokens.iter().position(|token| *token == Token::Sign('('))?;
    let close = tokens.iter().position(|token| *token == Token::Sign(')'))?;
    let columns = tokens[open + 1..close].iter().filter_map(|token| match token {
        Token::Word(word) => Some(format!("\"{}\"", word.to_lowercase())),
        Token::Name(name) => Some(name.to_lowercase()),
        _ => None,
    });
    let Some(Token::Text(from)) = tokens.get(close + 2) else { return None };
    let from = from.trim_matches('\'').replace("''", "'");
    let (bucket, key) = from.strip_prefix("s3://")?.split_once('/')?;
    Some(Copy {
        table: name_at(tokens, 1)?,
        columns: columns.collect(),
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redshift_lacks_is_refused() {
        for refused in [
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
            "INSERT INTO t VALUES (1) returning a",
            "SELECT * FROM (VALUES (1), (2)) AS v(a)",
            "INSERT INTO t SELECT generate_series(1, 10)",
            "CREATE TABLE t (a jsonb )",
            "CREATE TABLE t (a INT CHECK (a > 0))",
            "CREATE INDEX i ON t (a)",
            "SELECT DISTINCT ON (a) a FROM t",
            "SELECT COUNT(*) FILTER (WHERE a > 0) FROM t",
            "SELECT a FROM t FOR UPDATE",
            "SELECT 1; SELECT 2",
            "SELECT unnest(a) FROM t",
        ] {
            assert!(refusal(&tokens(refused, true)).is_some(), "{refused}");
        }
        for taken in [
            "INSERT INTO t VALUES ('a ON CONFLICT b; RETURNING'), ('it''s')",
            "SELECT \"on conflict\" FROM t",
            "SELECT 'a\\'; b' FROM t",
            "LOCK s.t",
            "DELETE FROM t WHERE a = 1 AND (b < 2 OR c = 3)",
        ] {
            assert_eq!(refusal(&tokens(taken, true)), None, "{taken}");
        }
    }

    #[test]
    fn a_table_is_made_without_what_postgresql_lacks() {
        let sql = "CREATE TABLE IF NOT EXISTS \"S\".\"T\" (\"a\" VARCHAR(12) NOT NULL ENCODE ZSTD, b SUPER, c INT SORTKEY, \
                   PRIMARY KEY (a)) DISTSTYLE EVEN COMPOUND SORTKEY (a, c)";
        let (text, widths) = translate(sql, &tokens(sql, true));
        assert_eq!(
            text.trim(),
            "CREATE TABLE IF NOT EXISTS \"s\".\"t\" ( \"a\" redshift.varchar_12 NOT NULL , b redshift.super , c INT )"
        );
        assert_eq!(widths, [12]);
    }

    #[test]
    fn the_tables_of_a_statement_are_known() {
        let of = |sql: &str| tables(&tokens(sql, true));
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(of("LOCK \"s\".\"l\""), (list(&[]), list(&[])));
        assert_eq!(of("INSERT INTO s.l (a) SELECT 1 FROM s.l"), (list(&["s.l"]), list(&["s.l"])));
        assert_eq!(of("DELETE FROM l WHERE a = 'FROM x'"), (list(&["l"]), list(&["l"])));
        assert_eq!(of("SELECT 1 FROM a JOIN b ON TRUE"), (list(&["a", "b"]), list(&[])));
    }

    #[test]
    fn a_copy_is_read() {
        let sql = "COPY \"s\".\"t\" (a, \"b\") FROM 's3://bucket/a/b.gz' IAM_ROLE default FORMAT JSON 'auto' GZIP";
        let found = copy(&tokens(sql, true)).unwrap().unwrap();
        assert_eq!(
            (found.table.as_str(), found.bucket.as_str(), found.key.as_str()),
            ("\"s\".\"t\"", "bucket", "a/b.gz")
        );
        assert_eq!(found.columns, ["\"a\"", "\"b\""]);
        assert!(copy(&tokens("COPY t FROM 's3://b/k' CSV", true)).unwrap().is_err());
        assert!(copy(&tokens("SELECT 1", true)).is_none());
    }
}
