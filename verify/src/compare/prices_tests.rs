use super::*;
use crate::compare::sample::result;

fn today() -> Date {
    "2026-06-30".parse().unwrap()
}

fn price(unit: &str, price: f64) -> Price {
    Price {
        kind: "dynamodb".to_owned(),
        unit: unit.to_owned(),
        currency: "USD".to_owned(),
        price,
        per: 1_000_000.0,
        region: "eu-west-1".to_owned(),
        source: "a price page".to_owned(),
        as_of: "2026-06-01".to_owned(),
    }
}

fn cost(prices: Vec<Price>) -> Cost {
    let list = PriceList { prices };
    list.check(today()).unwrap();
    list.costs(&result(), today()).remove(0)
}

#[test]
fn a_cost_is_what_a_million_events_took_by_the_price() {
    let cost = cost(vec![price("write units", 1.25), price("requests", 0.0), price(STORAGE_UNIT, 0.0)]);
    let units: Vec<(&str, Option<f64>)> =
        cost.units.iter().map(|unit| (unit.unit.as_str(), unit.amount.get().copied())).collect();
    // 400 units for 100,000 events; the median of 21 to 25 requests; 1 MiB.
    let storage = (1 << 20) as f64 * 10.0;
    assert_eq!(units, [("requests", Some(230.0)), ("write units", Some(4_000.0)), (STORAGE_UNIT, Some(storage))]);
    let Known::Is(total) = &cost.total else { panic!("{cost:?}") };
    assert!((total.amount - 0.005).abs() < 1e-12 && total.currency == "USD", "{total:?}");
}

#[test]
fn a_unit_without_a_price_leaves_the_total_unknown_and_is_not_free() {
    let cost = cost(vec![price("write units", 1.25), price("requests", 0.0)]);
    assert_eq!(cost.total.reason(), Some("storage byte-months: no price is given"));
    assert_eq!(cost.units[1].cost.get().map(|money| money.amount), Some(0.005));
}

#[test]
fn prices_in_several_currencies_are_not_added_up() {
    let euro = Price { currency: "EUR".to_owned(), ..price("requests", 1.0) };
    let cost = cost(vec![price("write units", 1.25), euro, price(STORAGE_UNIT, 0.0)]);
    assert_eq!(cost.total.reason(), Some("the prices are in several currencies"));
}

#[test]
fn a_price_of_more_than_180_days_ago_is_marked() {
    for (as_of, expected) in [("2026-01-01", None), ("2025-12-31", Some(181))] {
        let cost = cost(vec![Price { as_of: as_of.to_owned(), ..price("write units", 1.0) }]);
        assert_eq!(cost.units[1].old_days, expected, "{as_of}");
    }
}

#[test]
fn a_price_that_is_none_is_refused_with_its_place() {
    let refused = |change: &dyn Fn(&mut Price)| {
        let mut wrong = price("write units", 1.0);
        change(&mut wrong);
        let list = PriceList { prices: vec![price("requests", 1.0), wrong] };
        list.check(today()).unwrap_err().to_string()
    };
    assert_eq!(refused(&|price| price.price = -1.0), "price 2 (dynamodb, write units): `price` must be 0 or more");
    assert!(refused(&|price| price.price = f64::NAN).contains("`price` must be 0 or more"));
    assert!(refused(&|price| price.per = 0.0).contains("`per` must be greater than 0"));
    assert!(refused(&|price| price.source = " ".to_owned()).contains("must not be empty"));
    assert!(refused(&|price| price.as_of = "2026-07-01".to_owned()).contains("lies in the future"));
    assert!(refused(&|price| price.as_of = "June".to_owned()).contains("must be a date"));
    assert!(refused(&|price| price.unit = "requests".to_owned()).contains("another price already"));
}
