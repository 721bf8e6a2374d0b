//! The standard questions: the pipelines that the sink sends, step by step over the points of the 1.x engine.
//!
//! As in `flux.rs`, exactly the sink's own texts are read, and any other is refused.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Rest, line};

const REDUCE: &str = "  |> reduce(identity: {_value: 0, _stop: 0}, fn: (r, accumulator) => ({_value: accumulator._value + r._value / \
                      1000000000, _stop: accumulator._stop + r._value % 1000000000}))\n";
const RENAME: &str = "  |> rename(fn: (column) => \"c:\" + column)\n";
const BILLION: i64 = 1_000_000_000;

#[derive(Debug, PartialEq, Eq)]
enum Question {
    ByTag(String),
    Top(i64),
    ByMinute(Vec<(String, String)>),
    Count,
}

#[derive(Debug, PartialEq, Eq)]
struct Query {
    bucket: String,
    from: i64,
    to: i64,
    name: Option<String>,
    question: Question,
}

/// `None` for another query than one of a question.
pub(super) fn answer(flux: &str, run: &dyn Fn(&str, &str) -> Result<String>) -> Option<Result<String>> {
    let query = parse(flux)?;
    Some(query.answer(run))
}

fn parse(flux: &str) -> Option<Query> {
    let mut rest = Rest(flux);
    let (bucket, from, to) = rest.source()?;
    let mut name = None;
    if rest.skip("measurement == ").is_some() {
        name = Some(rest.literal()?);
        rest.skip(" and r._")?;
    }
    rest.skip("field == \"value\"")?;
    let mut tags = Vec::new();
    while rest.skip(" and r[").is_some() {
        let key = rest.literal()?;
        rest.skip("] == ")?;
        tags.push((key, rest.literal()?));
    }
    rest.skip(")\n")?;
    let question = steps(&mut rest, name.is_some(), tags)?;
    rest.skip(RENAME)?;
    rest.0.is_empty().then_some(Query { bucket, from, to, name, question })
}

fn steps(rest: &mut Rest<'_>, has_name: bool, tags: Vec<(String, String)>) -> Option<Question> {
    if rest.skip("  |> first()\n  |> map(fn: (r) => ({_value: 1}))\n  |> group()\n  |> sum()\n").is_some() {
        return (!has_name && tags.is_empty()).then_some(Question::Count);
    }
    rest.skip("  |> toInt()\n")?;
    if rest.skip("  |> map(fn: (r) => ({r with _time: int(v: r._time) / 60000000000}))\n").is_some() {
        rest.skip("  |> group(columns: [\"_value\", \"_start\", \"_stop\"], mode: \"except\")\n")?;
        rest.skip(REDUCE)?;
        return has_name.then_some(Question::ByMinute(tags));
    }
    if rest.skip("  |> group(columns: [\"_value\", \"_time\", \"_start\", \"_stop\"], mode: \"except\")\n").is_some() {
        rest.skip(REDUCE)?;
        let carry =
            "  |> map(fn: (r) => ({r with _value: r._value + r._stop / 1000000000, _stop: r._stop % 1000000000}))\n";
        rest.skip(carry)?;
        rest.skip("  |> group()\n  |> sort(columns: [\"_value\", \"_stop\"], desc: true)\n  |> limit(n: ")?;
        let limit = rest.number()?;
        rest.skip(")\n")?;
        return (!has_name && tags.is_empty()).then_some(Question::Top(limit));
    }
    rest.skip("  |> group(columns: [")?;
    let key = rest.literal()?;
    rest.skip("])\n")?;
    rest.skip(REDUCE)?;
    (has_name && tags.is_empty()).then_some(Question::ByTag(key))
}

type Tags = BTreeMap<String, String>;
/// What `reduce` gives.
type Sum = (i64, i64);

struct Point {
    tags: Tags,
    time: i64,
    value: i64,
}

impl Query {
    fn answer(&self, run: &dyn Fn(&str, &str) -> Result<String>) -> Result<String> {
        let points = self.points(run)?;
        let sums = |group: &dyn Fn(&Point) -> Tags| {
            let mut sums: BTreeMap<Tags, Sum> = BTreeMap::new();
            for point in &points {
                let sum = sums.entry(group(point)).or_default();
                *sum = (sum.0 + point.value / BILLION, sum.1 + point.value % BILLION);
            }
            sums
        };
        let longs = |sum: Sum| vec![("c:_value", sum.0), ("c:_stop", sum.1)];
        let mut tables = Vec::new();
        match &self.question {
            Question::ByTag(key) => {
                let of_key =
                    |point: &Point| point.tags.get(key).map(|value| (key.clone(), value.clone())).into_iter().collect();
                tables.extend(sums(&of_key).into_iter().map(|(tags, sum)| (tags, longs(sum))));
            }
            Question::ByMinute(tags) => {
                let all = sums(&|point| {
                    let minute = (MINUTE.to_owned(), (point.time / 60_000_000_000).to_string());
                    point.tags.clone().into_iter().chain([minute]).collect()
                });
                for (mut group, sum) in all {
                    let minute: i64 = group.remove(MINUTE).context("a minute")?.parse()?;
                    let mut columns = longs(sum);
                    columns.push(("c:_time", minute));
                    if tags.iter().all(|(key, value)| group.get(key) == Some(value)) {
                        tables.push((group, columns));
                    }
                }
            }
            Question::Top(limit) => {
                let carried = sums(&|point| point.tags.clone())
                    .into_iter()
                    .map(|(tags, (high, low))| (tags, (high + low / BILLION, low % BILLION)));
                let mut all: Vec<(Tags, Sum)> = carried.collect();
                all.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
                all.truncate(usize::try_from(*limit)?);
                tables.extend(all.into_iter().map(|(tags, sum)| (tags, longs(sum))));
            }
            Question::Count => {
                let count = i64::try_from(sums(&|point| point.tags.clone()).len())?;
                if count > 0 {
                    tables.push((Tags::new(), vec![("c:_value", count)]));
                }
            }
        }
        Ok(csv(&tables))
    }

    /// With the measurement as the tag `_measurement`, as in Flux.
    fn points(&self, run: &dyn Fn(&str, &str) -> Result<String>) -> Result<Vec<Point>> {
        let source = super::Query {
            bucket: self.bucket.clone(),
            from: self.from,
            to: self.to,
            claims_of: None,
            name: self.name.clone(),
        };
        let (database, policy) = self.bucket.split_once('/').unwrap_or((self.bucket.as_str(), ""));
        let answer: Value = serde_json::from_str(&run(database, &source.influxql(policy))?)?;
        let results = answer["results"].as_array().into_iter().flatten();
        let mut points = Vec::new();
        for series in results.filter_map(|result| result["series"].as_array()).flatten() {
            let tags = series["tags"].as_object().into_iter().flatten();
            let tags = tags.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            let mut tags: Tags = tags.filter(|(_, value)| !value.is_empty()).collect();
            tags.insert("_measurement".to_owned(), series["name"].as_str().unwrap_or_default().to_owned());
            for row in series["values"].as_array().into_iter().flatten() {
                let (Some(time), Some(value)) = (row[0].as_i64(), row[1].as_i64()) else { continue };
                points.push(Point { tags: tags.clone(), time, value });
            }
        }
        Ok(points)
    }
}

/// No tag has this key: it is a control character.
const MINUTE: &str = "\u{1}";

/// Annotated CSV, one table for each row.
fn csv(tables: &[(Tags, Vec<(&str, i64)>)]) -> String {
    let mut text = String::new();
    for (table, (tags, longs)) in tables.iter().enumerate() {
        let types =
            ["string", "long"].into_iter().chain(longs.iter().map(|_| "long")).chain(tags.iter().map(|_| "string"));
        line(&mut text, "#datatype", types);
        let groups = ["false"; 2].into_iter().chain(longs.iter().map(|_| "false")).chain(tags.iter().map(|_| "true"));
        line(&mut text, "#group", groups);
        line(
            &mut text,
            "#default",
            ["_result"].into_iter().chain(std::iter::repeat_n("", 1 + longs.len() + tags.len())),
        );
        let names: Vec<String> = tags.keys().map(|key| format!("c:{key}")).collect();
        let names = names.iter().map(String::as_str);
        line(&mut text, "", ["result", "table"].into_iter().chain(longs.iter().map(|(name, _)| *name)).chain(names));
        let mut cells = vec![String::new(), table.to_string()];
        cells.extend(longs.iter().map(|(_, number)| number.to_string()));
        cells.extend(tags.values().cloned());
        line(&mut text, "", cells.iter().map(String::as_str));
        text.push_str("\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_sinks_own_questions_and_no_other() {
        let source = "from(bucket: \"b\")\n  |> range(start: time(v: 0), stop: time(v: 9))\n";
        let filter = "  |> filter(fn: (r) => r._measurement == \"n\" and r._field == \"value\")\n";
        let by_tag = format!("{source}{filter}  |> toInt()\n  |> group(columns: [\"k\"])\n{REDUCE}{RENAME}");
        let expected = Query {
            bucket: "b".to_owned(),
            from: 0,
            to: 9,
            name: Some("n".to_owned()),
            question: Question::ByTag("k".to_owned()),
        };
        assert_eq!(parse(&by_tag), Some(expected));
        for other in [by_tag.replace("toInt", "toFloat"), by_tag.replace("% 1000", "% 100"), format!("{by_tag}x")] {
            assert_eq!(parse(&other), None, "{other}");
        }
    }
}
