use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tallybus_verify::compare::{Aspect, CompareResult, Cost, Known, PriceList};

use super::{money, page, table};
use crate::Global;
use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::output::Output;

/// Show a result that `tallybus compare run --out` wrote.
///
/// As a table, as CSV with a row for each figure of each sink, or as the JSON that it is. With --prices also what a million events cost.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The result.
    file: PathBuf,
    /// A price list, TOML: tables [[price]] with kind, unit, currency, price, per, region, source and as_of.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Also write it to this file, as a page with charts for a browser.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    #[command(flatten)]
    csv: CsvOption,
}

impl Show {
    pub(crate) fn run(&self, _global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let result = read(&self.file)?;
        let costs = match &self.prices {
            Some(file) => costs(&result, file)?,
            None => Vec::new(),
        };
        if let Some(file) = &self.page {
            page::write(file, &result, &costs)?;
        }
        if output.json {
            output.report(&as_json(&result, &costs, self.prices.is_some())?.to_string())?;
        } else if csv {
            as_csv(&result, &costs).report(output)?;
        } else {
            let width = output.width();
            let lines = table::lines(&result, width).into_iter().chain(money::lines(&costs, width));
            lines.into_iter().try_for_each(|line| output.report(&line))?;
        }
        Ok(Verdict::Good)
    }
}

/// Reads the file of a result.
pub(super) fn read(file: &Path) -> Result<CompareResult, Failure> {
    CompareResult::from_json(&text_of(file)?)
        .map_err(|error| Failure::could_not_look(format!("{}: {error}", file.display())))
}

fn text_of(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::could_not_look(format!("cannot read {}: {error}", file.display())))
}

fn costs(result: &CompareResult, file: &Path) -> Result<Vec<Cost>, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::could_not_look(format!("{}: {error}", file.display()));
    let prices: PriceList = toml::from_str(&text_of(file)?).map_err(|error| wrong(&error))?;
    prices.check(today()).map_err(|error| wrong(&error))?;
    Ok(prices.costs(result, today()))
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn as_json(result: &CompareResult, costs: &[Cost], has_prices: bool) -> Result<Value, Failure> {
    let failed = |error| Failure::failed(format!("the result cannot be written as JSON: {error}"));
    let mut value = serde_json::to_value(result).map_err(failed)?;
    if has_prices {
        value["money"] = serde_json::to_value(costs).map_err(failed)?;
    }
    Ok(value)
}

/// A row for each figure of each sink: not known ones have the reason instead. `rank` is empty for a sink that is not ranked.
fn as_csv(result: &CompareResult, costs: &[Cost]) -> Csv {
    let mut csv = Csv::new(["sink", "figure", "unit", "median", "low", "high", "figures", "rank", "unknown"]);
    for sink in &result.sinks {
        for (aspect, summary) in &sink.summaries {
            let mut row = vec![json!(sink.name), json!(aspect), json!(aspect.unit().to_string())];
            match summary {
                Known::Is(found) => {
                    row.extend([json!(found.median), json!(found.low), json!(found.high), json!(found.n)]);
                    row.extend([json!(rank(result, &sink.name, *aspect)), Value::Null]);
                }
                Known::Unknown(reason) => {
                    row.extend([Value::Null, Value::Null, Value::Null, Value::Null, Value::Null, json!(reason)]);
                }
            }
            csv.row(row);
        }
    }
    for cost in costs {
        let units = cost.units.iter().map(|unit| (unit.unit.as_str(), &unit.cost));
        for (unit, found) in units.chain([("everything", &cost.total)]) {
            let (currency, amount) = match found {
                Known::Is(money) => (json!(format!("{} per million events", money.currency)), json!(money.amount)),
                Known::Unknown(_) => (Value::Null, Value::Null),
            };
            let none = || [Value::Null, Value::Null, Value::Null, Value::Null];
            let row = [json!(cost.sink), json!(format!("cost of {unit}")), currency, amount].into_iter();
            csv.row(row.chain(none()).chain([json!(found.reason())]));
        }
    }
    csv
}

/// Sinks between which no difference was seen share a rank.
fn rank(result: &CompareResult, sink: &str, aspect: Aspect) -> Option<usize> {
    let ranking = result.rankings.iter().find(|ranking| ranking.aspect == aspect)?;
    let mut rank = 1;
    for group in &ranking.groups {
        if group.iter().any(|name| name == sink) {
            return Some(rank);
        }
        rank += group.len();
    }
    None
}
