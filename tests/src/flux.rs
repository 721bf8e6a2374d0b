//! The Flux queries of the InfluxDB sink, answered by the 1.x engine; the standard questions in `flux/questions.rs`.
//!
//! There is no Flux engine here. This reads exactly the text that the sink sends, and refuses any other: a changed query
//! is then noticed, not misread.

mod questions;

use anyhow::Result;
use serde_json::Value;

use crate::influx_v2::FluxTranslation;

/// For [`crate::InfluxV2::on_query`].
pub fn sink_queries() -> FluxTranslation {
    Box::new(|flux, run| {
        if let Some(answer) = questions::answer(flux, run) {
            return answer.map_err(|error| format!("{error:#}"));
        }
        let query = parse(flux).ok_or_else(|| format!("no query of the InfluxDB sink: {flux}"))?;
        let (database, policy) = query.bucket.split_once('/').unwrap_or((query.bucket.as_str(), ""));
        let body = run(database, &query.influxql(policy)).map_err(|error| format!("{error:#}"))?;
        csv(&body).map_err(|error| format!("{error:#}"))
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Query {
    bucket: String,
    from: i64,
    to: i64,
    /// The field `claim` of this measurement, instead of the field `value` of all.
    claims_of: Option<String>,
    /// Of points: of this measurement alone.
    name: Option<String>,
}

impl Query {
    fn influxql(&self, policy: &str) -> String {
        let name = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let from = if policy.is_empty() { String::new() } else { format!("{}.", name(policy)) };
        let (start, end) = (self.from, self.to);
        match &self.claims_of {
            None => {
                let from = from + &self.name.as_ref().map_or_else(|| "/.*/".to_owned(), |text| name(text));
                format!("SELECT \"value\"::field FROM {from} WHERE time >= {start} AND time < {end} GROUP BY *")
            }
            Some(measurement) => {
                let from = format!("{from}{}", name(measurement));
                format!("SELECT \"claim\"::field FROM {from} WHERE time >= {start} AND time < {end} GROUP BY *")
            }
        }
    }
}

fn parse(flux: &str) -> Option<Query> {
    let mut rest = Rest(flux);
    let (bucket, from, to) = rest.source()?;
    let (mut name, mut claims_of) = (None, None);
    if rest.skip("measurement == ").is_some() {
        name = Some(rest.literal()?);
        rest.skip(" and r._")?;
    }
    if rest.skip("field == \"claim\")\n").is_some() {
        claims_of = Some(name.take()?);
    } else {
        rest.skip("field == \"value\")\n  |> map(fn: (r) => ({r with _time: int(v: r._time)}))\n")?;
    }
    rest.skip("  |> rename(fn: (column) => \"c:\" + column)\n")?;
    rest.0.is_empty().then_some(Query { bucket, from, to, claims_of, name })
}

struct Rest<'a>(&'a str);

impl Rest<'_> {
    /// Bucket, first nanosecond and the one past the last, up to where the filter names a measurement or a field.
    fn source(&mut self) -> Option<(String, i64, i64)> {
        self.skip("from(bucket: ")?;
        let bucket = self.literal()?;
        self.skip(")\n  |> range(start: time(v: ")?;
        let from = self.number()?;
        self.skip("), stop: time(v: ")?;
        let to = self.number()?;
        self.skip("))\n  |> filter(fn: (r) => r._")?;
        Some((bucket, from, to))
    }

    fn skip(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn number(&mut self) -> Option<i64> {
        let end = self.0.find(|c: char| !c.is_ascii_digit() && c != '-')?;
        let number = self.0[..end].parse().ok()?;
        self.0 = &self.0[end..];
        Some(number)
    }

    fn literal(&mut self) -> Option<String> {
        self.skip("\"")?;
        let mut text = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(text);
                }
                '\\' => text.push(chars.next()?.1),
                '$' if self.0[at..].starts_with("${") => return None,
                other => text.push(other),
            }
        }
        None
    }
}

/// Annotated CSV as InfluxDB 2 writes it, one table for each series.
fn csv(body: &str) -> Result<String> {
    let answer: Value = serde_json::from_str(body)?;
    let results = answer["results"].as_array().into_iter().flatten();
    let mut text = String::new();
    for (table, series) in results.filter_map(|result| result["series"].as_array()).flatten().enumerate() {
        let tags: Vec<(&str, &str)> = series["tags"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let values: Vec<&Value> = series["values"].as_array().into_iter().flatten().collect();
        let is_text = values.iter().all(|row| row[1].is_string());
        let kind = if is_text {
            "string"
        } else if values.iter().all(|row| row[1].is_i64() || row[1].is_u64()) {
            "long"
        } else {
            "double"
        };
        let mut types = ["string", "long", kind, "long"].map(str::to_owned).to_vec();
        let mut names = ["result", "table", "c:_value", "c:_time"].map(str::to_owned).to_vec();
        let mut groups = vec!["false", "false", "false", "false"];
        for (key, _) in [("_field", ""), ("_measurement", "")].iter().chain(&tags) {
            types.push("string".to_owned());
            names.push(format!("c:{key}"));
            groups.push("true");
        }
        let default = vec![String::new(); names.len() - 1];
        line(&mut text, "#datatype", types.iter().map(String::as_str));
        line(&mut text, "#group", groups.into_iter());
        line(&mut text, "#default", ["_result"].into_iter().chain(default.iter().map(String::as_str)));
        line(&mut text, "", names.iter().map(String::as_str));
        for row in values {
            let value = row[1].as_str().map_or_else(|| row[1].to_string(), str::to_owned);
            let mut cells = vec![String::new(), table.to_string(), value, row[0].to_string()];
            cells.push("value".to_owned());
            cells.push(series["name"].as_str().unwrap_or_default().to_owned());
            cells.extend(tags.iter().map(|(_, value)| (*value).to_owned()));
            line(&mut text, "", cells.iter().map(String::as_str));
        }
        text.push_str("\r\n");
    }
    Ok(text)
}

fn line<'c>(text: &mut String, first: &str, cells: impl Iterator<Item = &'c str>) {
    text.push_str(first);
    for cell in cells {
        text.push(',');
        if cell.contains(['"', ',', '\n', '\r']) {
            text.push_str(&format!("\"{}\"", cell.replace('"', "\"\"")));
        } else {
            text.push_str(cell);
        }
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_sinks_own_queries_and_no_other() {
        let points = "from(bucket: \"a\\\"\\${b\")\n  |> range(start: time(v: -9), stop: time(v: 9))\n  |> filter(fn: (r) => \
                      r._field == \"value\")\n  |> map(fn: (r) => ({r with _time: int(v: r._time)}))\n  |> rename(fn: \
                      (column) => \"c:\" + column)\n";
        let expected = Query { bucket: "a\"${b".to_owned(), from: -9, to: 9, claims_of: None, name: None };
        assert_eq!(parse(points), Some(expected));
        let claims = "from(bucket: \"b\")\n  |> range(start: time(v: 5), stop: time(v: 6))\n  |> filter(fn: (r) => \
                      r._measurement == \"m\" and r._field == \"claim\")\n  |> rename(fn: (column) => \"c:\" + column)\n";
        assert_eq!(
            parse(claims).unwrap().influxql(""),
            "SELECT \"claim\"::field FROM \"m\" WHERE time >= 5 AND time < 6 GROUP BY *"
        );
        let unescaped = points.replace("\\${", "${");
        assert_eq!(parse(&unescaped), None, "an expression in a string is no text");
        assert_eq!(parse(&points.replace("map", "sum")), None);
        assert_eq!(
            parse(points).unwrap().influxql("p"),
            "SELECT \"value\"::field FROM \"p\"./.*/ WHERE time >= -9 AND time < 9 GROUP BY *"
        );
    }

    #[test]
    fn writes_annotated_csv() {
        let body = r#"{"results":[{"series":[{"name":"a,b","tags":{"k":"\"","none":""},"values":[[5,7]]}]}]}"#;
        assert_eq!(
            csv(body).unwrap(),
            "#datatype,string,long,long,long,string,string,string\r\n#group,false,false,false,false,true,true,true\r\n\
             #default,_result,,,,,,\r\n,result,table,c:_value,c:_time,c:_field,c:_measurement,c:k\r\n\
             ,,0,7,5,value,\"a,b\",\"\"\"\"\r\n\r\n"
        );
        assert_eq!(csv(r#"{"results":[{"statement_id":0}]}"#).unwrap(), "");
    }
}
