//! What the measured units cost. Units are measured; prices are an operator's, with their date and source, and never built in.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::result::CompareResult;
use super::sink_result::SinkResult;
use super::{Known, median};

/// Prices older than this are marked.
pub const OLD_DAYS: i64 = 180;
/// The unit of storage in a price list: a byte that is kept for a month.
pub const STORAGE_UNIT: &str = "storage byte-months";
/// For how many events costs are stated.
const EVENTS: f64 = 1_000_000.0;

/// A price list: the tables `[[price]]` of a TOML file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// The prices.
    #[serde(rename = "price")]
    pub prices: Vec<Price>,
}

/// The price of one unit of one kind of backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The kind of sink whose unit it is.
    pub kind: String,
    /// The unit, as the sink counts it: `write units`; or [`STORAGE_UNIT`].
    pub unit: String,
    /// The currency, as `USD`.
    pub currency: String,
    /// The price. 0 says that the unit is free, which a price that is left out does not.
    pub price: f64,
    /// For how many units.
    pub per: f64,
    /// Where it applies.
    pub region: String,
    /// Where it was read.
    pub source: String,
    /// When it was read: a date.
    pub as_of: String,
}

/// Why a price list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// A value is none that a price can have.
    #[error("price {number} ({kind}, {unit}): {why}")]
    Wrong {
        /// Counted from 1.
        number: usize,
        /// Its kind.
        kind: String,
        /// Its unit.
        unit: String,
        /// What is wrong.
        why: String,
    },
}

/// What a million events cost with one sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Which sink.
    pub sink: String,
    /// Each unit that was measured.
    pub units: Vec<UnitCost>,
    /// The sum, with its currency; known only where every unit has a price, all in one currency.
    pub total: Known<Money>,
}

/// What one unit costs for a million events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitCost {
    /// The unit, as the sink counts it.
    pub unit: String,
    /// How many of it a million events took: the median of the rounds.
    pub amount: Known<f64>,
    /// What they cost.
    pub cost: Known<Money>,
    /// The price that was used.
    pub price: Option<Price>,
    /// How many days old the price is, if that is more than [`OLD_DAYS`].
    pub old_days: Option<i64>,
}

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Money {
    /// How much.
    pub amount: f64,
    /// The currency.
    pub currency: String,
}

impl PriceList {
    /// Checks every price: `today` is the date of the check.
    ///
    /// # Errors
    /// Names the first price that is none.
    pub fn check(&self, today: Date) -> Result<(), PriceError> {
        let mut known = BTreeSet::new();
        for (index, price) in self.prices.iter().enumerate() {
            let fault = if !price.price.is_finite() || price.price < 0.0 {
                Some("`price` must be 0 or more".to_owned())
            } else if !price.per.is_finite() || price.per <= 0.0 {
                Some("`per` must be greater than 0".to_owned())
            } else if [&price.unit, &price.currency, &price.source, &price.region]
                .iter()
                .any(|text| text.trim().is_empty())
            {
                Some("`unit`, `currency`, `region` and `source` must not be empty".to_owned())
            } else if !known.insert((&price.kind, &price.unit)) {
                Some("this unit has another price already: keep one region's".to_owned())
            } else {
                match price.as_of.parse::<Date>() {
                    Ok(date) if date > today => Some(format!("`as_of` ({date}) lies in the future")),
                    Ok(_) => None,
                    Err(_) => Some(format!("`as_of` must be a date such as 2026-01-31, not {:?}", price.as_of)),
                }
            };
            if let Some(why) = fault {
                let (kind, unit) = (price.kind.clone(), price.unit.clone());
                return Err(PriceError::Wrong { number: index + 1, kind, unit, why });
            }
        }
        Ok(())
    }

    fn find(&self, kind: &str, unit: &str) -> Option<&Price> {
        self.prices.iter().find(|price| price.kind == kind && price.unit == unit)
    }

    /// What a million events cost with each sink, by what the rounds measured.
    pub fn costs(&self, result: &CompareResult, today: Date) -> Vec<Cost> {
        let sinks = result.sinks.iter().filter(|sink| sink.control_of.is_none());
        sinks.map(|sink| self.cost(sink, today)).collect()
    }

    fn cost(&self, sink: &SinkResult, today: Date) -> Cost {
        let units: Vec<UnitCost> =
            amounts(sink).into_iter().map(|(unit, amount)| self.unit_cost(&sink.kind, unit, amount, today)).collect();
        let total = total(&units);
        Cost { sink: sink.name.clone(), units, total }
    }

    fn unit_cost(&self, kind: &str, unit: String, amount: Known<f64>, today: Date) -> UnitCost {
        let price = self.find(kind, &unit).cloned();
        let cost = match (&price, &amount) {
            (None, _) => Known::unknown("no price is given"),
            (Some(_), Known::Unknown(reason)) => Known::unknown(reason),
            (Some(price), Known::Is(amount)) => {
                Known::Is(Money { amount: amount * price.price / price.per, currency: price.currency.clone() })
            }
        };
        let date = price.as_ref().and_then(|price| price.as_of.parse::<Date>().ok());
        let days =
            date.and_then(|date| today.since((jiff::Unit::Day, date)).ok()).map(|span| i64::from(span.get_days()));
        UnitCost { unit, amount, cost, price, old_days: days.filter(|days| *days > OLD_DAYS) }
    }
}

/// How many of each unit a million events took.
fn amounts(sink: &SinkResult) -> Vec<(String, Known<f64>)> {
    let mut units: Vec<String> = Vec::new();
    for figure in sink.rounds.iter().flat_map(|round| &round.usage) {
        if !units.contains(&figure.what) {
            units.push(figure.what.clone());
        }
    }
    let mut amounts: Vec<(String, Known<f64>)> = units
        .into_iter()
        .map(|unit| {
            let of_round = |round: &super::Round| {
                let figure = round.usage.iter().find(|figure| figure.what == unit)?;
                (round.events > 0).then(|| figure.amount * EVENTS / round.events as f64)
            };
            let figures: Vec<f64> = sink.rounds.iter().filter_map(of_round).collect();
            let amount = median(&figures).map_or_else(|| Known::unknown("no round wrote anything"), Known::Is);
            (unit, amount)
        })
        .collect();
    let stored = |round: &super::Round| {
        let bytes = round.storage.get().filter(|_| round.events > 0)?;
        Some(*bytes as f64 * EVENTS / round.events as f64)
    };
    let figures: Vec<f64> = sink.rounds.iter().filter_map(stored).collect();
    let storage = median(&figures).map_or_else(|| Known::unknown("the storage is not known"), Known::Is);
    amounts.push((STORAGE_UNIT.to_owned(), storage));
    amounts
}

fn total(units: &[UnitCost]) -> Known<Money> {
    let unknown: Vec<String> =
        units.iter().filter_map(|unit| Some(format!("{}: {}", unit.unit, unit.cost.reason()?))).collect();
    if !unknown.is_empty() {
        return Known::unknown(unknown.join("; "));
    }
    let costs: Vec<&Money> = units.iter().filter_map(|unit| unit.cost.get()).collect();
    let Some(first) = costs.first() else { return Known::unknown("nothing was measured") };
    if costs.iter().any(|cost| cost.currency != first.currency) {
        return Known::unknown("the prices are in several currencies");
    }
    Known::Is(Money { amount: costs.iter().map(|cost| cost.amount).sum(), currency: first.currency.clone() })
}

#[cfg(test)]
#[path = "prices_tests.rs"]
mod tests;
