//! What a million events cost, as text.

use tallybus_verify::compare::{Cost, Known, Money, OLD_DAYS, Price, UnitCost};

use super::table::amount;
use crate::text::{Table, grouped, wrap};

/// The lines about costs; none without a price list.
pub(super) fn lines(costs: &[Cost], width: usize) -> Vec<String> {
    if costs.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new()];
    lines.extend(wrap("money: a million events written, and their storage kept for a month, by the price list", width));
    let mut table = Table::new(&["  sink", "unit", ">units", ">cost", "price"]);
    for Cost { sink, units, total } in costs {
        for UnitCost { unit, amount: units, cost, price, old_days } in units {
            let units = units.get().map_or_else(|| "-".to_owned(), |units| amount(*units));
            let price = price.as_ref().map_or_else(|| "none: not known".to_owned(), |price| terms(price, *old_days));
            table.row(vec![format!("  {sink}"), unit.clone(), units, shown(cost), price]);
        }
        let why = total.reason().map_or_else(String::new, |reason| format!("not known: {reason}"));
        table.row(vec![format!("  {sink}"), "total".to_owned(), String::new(), shown(total), why]);
    }
    lines.extend(table.lines_within(width));
    if costs.iter().flat_map(|cost| &cost.units).any(|unit| unit.old_days.is_some()) {
        lines.extend(wrap(&format!("OLD: the price was read more than {OLD_DAYS} days ago"), width));
    }
    lines
}

pub(super) fn shown(cost: &Known<Money>) -> String {
    match cost {
        Known::Is(money) => format!("{} {}", price_text(money.amount), money.currency),
        Known::Unknown(_) => "-".to_owned(),
    }
}

pub(super) fn terms(price: &Price, old_days: Option<i64>) -> String {
    let old = old_days.map_or_else(String::new, |days| format!("OLD, {days} days: "));
    let Price { price, per, currency, region, as_of, .. } = price;
    let per = match price_text(*per) {
        text if text.contains(['.', 'e']) => text,
        text => text.parse::<u128>().map_or(text, grouped),
    };
    format!("{old}{} {currency} for {per}, {region}, as of {as_of}", price_text(*price))
}

/// At most six decimals, without zeros at the end.
fn price_text(amount: f64) -> String {
    if amount > 0.0 && amount < 0.000_001 {
        return format!("{amount:.1e}");
    }
    let text = format!("{amount:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_no_more_digits_than_they_need() {
        for (amount, expected) in [
            (0.0, "0"),
            (1.25, "1.25"),
            (10.0, "10"),
            (0.000_012_5, "0.000013"),
            (2.5e-8, "2.5e-8"),
            (1_234.5, "1234.5"),
        ] {
            assert_eq!(price_text(amount), expected);
        }
    }
}
