//! Cuts what is read into pages: the Data API ends a statement whose result is larger than 100 MB.

use super::client::Client;
use super::sql::{identifier, parse_timestamp};
use super::tables::Tables;
use tallybus_sdk::SinkError;

/// The most bytes of a page: a result takes up more than the texts and numbers in it.
pub(super) const PAGE_BYTES: u64 = 32 << 20;
/// What a row of the result takes up besides its texts, in bytes.
const ROW_BYTES: u32 = 100;
/// The most pages of one hour: the first two hexadecimal digits of a hash tell its rows apart.
const MOST_OF_AN_HOUR: u64 = 256;

/// How much the result for one hour takes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hour {
    /// Its start as Redshift writes it.
    start: String,
    bytes: u64,
}

/// Asks how much of the result each hour takes up, in order of time. `condition` selects the rows.
pub(super) async fn hours(
    client: &Client,
    tables: &Tables,
    condition: &str,
    groups: &str,
) -> Result<Vec<Hour>, SinkError> {
    let texts = std::iter::once("COALESCE(OCTET_LENGTH(JSON_SERIALIZE(tags)), 0)".to_owned())
        .chain(columns(tables).map(|column| format!("COALESCE(OCTET_LENGTH({column}), 0)")));
    let sql = format!(
        "SELECT hour, SUM(bytes) FROM (SELECT DATE_TRUNC('hour', window_start) AS hour, \
         CAST(OCTET_LENGTH(name) + {} + {ROW_BYTES} AS BIGINT) AS bytes FROM {} {condition} GROUP BY {groups}) AS result \
         GROUP BY hour ORDER BY hour",
        texts.collect::<Vec<_>>().join(" + "),
        tables.counters(),
    );
    let mut hours = Vec::new();
    for row in &client.query(&sql).await?.rows {
        let [start, bytes] = row.as_slice() else { return Err(super::read::strange(tables)) };
        let Some(bytes) = bytes.number() else { return Err(super::read::strange(tables)) };
        hours.push(Hour { start: start.text().to_owned(), bytes });
    }
    Ok(hours)
}

/// How much the whole result takes up.
pub(super) fn bytes(hours: &[Hour]) -> u64 {
    hours.iter().fold(0, |sum, hour| sum.saturating_add(hour.bytes))
}

/// Conditions that together select each row once, whether or not its hour is among these, and each about so many bytes at
/// most.
pub(super) fn pages(hours: &[Hour], most: u64, tables: &Tables) -> Vec<String> {
    let mut pages = Vec::new();
    // Where the page that is being filled begins, and what it takes up.
    let (mut from, mut bytes) = (None, 0_u64);
    for hour in hours {
        // What is no time cannot be compared with one: it stays with the hour before.
        let is_time = parse_timestamp(&hour.start).is_some();
        if is_time && bytes > 0 && bytes.saturating_add(hour.bytes) > most {
            close(&mut pages, from, Some(&hour.start), bytes.div_ceil(most), tables);
            (from, bytes) = (Some(&*hour.start), 0);
        }
        bytes = bytes.saturating_add(hour.bytes);
    }
    close(&mut pages, from, None, bytes.div_ceil(most), tables);
    pages
}

/// Adds the pages of one stretch of time, several where it is an hour that is too large.
fn close(pages: &mut Vec<String>, from: Option<&str>, to: Option<&str>, count: u64, tables: &Tables) {
    let mut time = String::new();
    if let Some(from) = from {
        time.push_str(&format!(" AND window_start >= '{from}'"));
    }
    if let Some(to) = to {
        time.push_str(&format!(" AND window_start < '{to}'"));
    }
    let count = count.clamp(1, MOST_OF_AN_HOUR);
    if count == 1 {
        return pages.push(time);
    }
    let hash = hash(tables);
    let bound = |page: u64| format!("{:02x}", page * MOST_OF_AN_HOUR / count);
    for page in 0..count {
        let mut sql = time.clone();
        if page > 0 {
            sql.push_str(&format!(" AND {hash} >= '{}'", bound(page)));
        }
        if page + 1 < count {
            sql.push_str(&format!(" AND {hash} < '{}'", bound(page + 1)));
        }
        pages.push(sql);
    }
}

/// Two hexadecimal digits that are the same for all rows of a series. Each text is hashed by itself: together they may be
/// longer than a text of Redshift can be.
fn hash(tables: &Tables) -> String {
    let texts = ["name".to_owned(), "JSON_SERIALIZE(tags)".to_owned()].into_iter().chain(columns(tables));
    let hashes: Vec<String> = texts.map(|text| format!("MD5(COALESCE({text}, ''))")).collect();
    format!("LEFT(MD5({}), 2)", hashes.join(" || "))
}

fn columns(tables: &Tables) -> impl Iterator<Item = String> {
    tables.columns.iter().map(|key| identifier(&Tables::column(key)))
}

impl Hour {
    #[cfg(test)]
    fn of(start: &str, bytes: u64) -> Self {
        Self { start: start.to_owned(), bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        Tables { schema: "s".into(), table: "t".into(), columns: vec!["route".into()] }
    }

    fn hour(hour: u32, bytes: u64) -> Hour {
        Hour::of(&format!("2023-11-14 {hour:02}:00:00"), bytes)
    }

    #[test]
    fn hours_fill_pages_that_leave_no_gap() {
        let read = |hours: &[Hour]| pages(hours, 100, &tables());
        assert_eq!(read(&[]), [""]);
        assert_eq!(read(&[hour(1, 100)]), [""]);
        assert_eq!(
            read(&[hour(1, 60), hour(2, 40), hour(3, 1), hour(7, 99), hour(8, 1)]),
            [
                " AND window_start < '2023-11-14 03:00:00'",
                " AND window_start >= '2023-11-14 03:00:00' AND window_start < '2023-11-14 08:00:00'",
                " AND window_start >= '2023-11-14 08:00:00'"
            ]
        );
        let odd = [hour(1, 90), Hour::of("infinity", 9), Hour::of("", 1)];
        assert_eq!(read(&odd), [""], "no time to compare with");
    }

    #[test]
    fn an_hour_that_is_too_large_is_read_by_the_hash_of_its_series() {
        let found = pages(&[hour(1, 10), hour(2, 250), hour(3, 10)], 100, &tables());
        let hash = "LEFT(MD5(MD5(COALESCE(name, '')) || MD5(COALESCE(JSON_SERIALIZE(tags), '')) || MD5(COALESCE(\"route\", ''))), 2)";
        let hour = " AND window_start >= '2023-11-14 02:00:00' AND window_start < '2023-11-14 03:00:00'";
        assert_eq!(
            found,
            [
                " AND window_start < '2023-11-14 02:00:00'".to_owned(),
                format!("{hour} AND {hash} < '55'"),
                format!("{hour} AND {hash} >= '55' AND {hash} < 'aa'"),
                format!("{hour} AND {hash} >= 'aa'"),
                " AND window_start >= '2023-11-14 03:00:00'".to_owned(),
            ]
        );
        assert_eq!(pages(&[self::hour(1, u64::MAX)], 1, &tables()).len(), 256);
    }
}
