//! `docs/compare.schema.json` describes what is written, and nothing else.

use serde_json::{Value, json};
use tallybus_tests::json_schema::JsonSchema;

use super::sample::result;
use super::{CompareResult, Cost, Mode, Price, PriceList, SCHEMA_VERSION, STORAGE_UNIT, Unit};

fn schema() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compare.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// With prices of every sort: of today, old, and none; and once for every unit.
fn costs(result: &CompareResult) -> Vec<Cost> {
    let price = |unit: &str| Price {
        kind: "dynamodb".to_owned(),
        unit: unit.to_owned(),
        currency: "USD".to_owned(),
        price: 1.0,
        per: 1.0,
        region: "eu-west-1".to_owned(),
        source: "a price page".to_owned(),
        as_of: "2025-01-01".to_owned(),
    };
    let today = "2026-01-01".parse().unwrap();
    let mut prices = vec![price("requests"), price("write units")];
    let mut costs = PriceList { prices: prices.clone() }.costs(result, today);
    prices.push(price(STORAGE_UNIT));
    costs.extend(PriceList { prices }.costs(result, today));
    costs
}

#[test]
fn a_result_with_everything_is_valid_and_every_part_of_the_schema_is_written() {
    assert_eq!(schema()["properties"]["schema_version"]["const"], SCHEMA_VERSION);
    let mut schema = JsonSchema::new(schema());
    let mut result = result();
    assert_eq!(schema.violations(&serde_json::to_value(&result).unwrap()), [""; 0]);
    result.method.mode = Mode::Live;
    for unit in [Unit::EventsPerSecond, Unit::Seconds, Unit::PerMillionEvents, Unit::BytesPerEvent] {
        assert!(result.rankings.iter().any(|ranking| ranking.unit == unit), "{unit}: else the sample lacks it");
    }
    let mut written = serde_json::to_value(&result).unwrap();
    written["money"] = serde_json::to_value(costs(&result)).unwrap();
    assert_eq!(schema.violations(&written), [""; 0]);
    assert_eq!(schema.unused(), [""; 0], "what is no longer written is no part of the schema");
}

/// Each property of the sample is required: without it the schema is as dissatisfied as the reader.
#[test]
fn a_property_that_is_missing_or_unknown_is_no_result() {
    let whole = serde_json::to_value(result()).unwrap();
    let mut schema = JsonSchema::new(schema());
    for place in ["/environment", "/method", "/method/probes/value", "/workload", "/sinks/0", "/sinks/0/rounds/0"] {
        let keys: Vec<String> = whole.pointer(place).unwrap().as_object().unwrap().keys().cloned().collect();
        for key in keys {
            let mut part = whole.clone();
            part.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(&key);
            // An absent value of an `Option` is read as `None`.
            let is_read = CompareResult::from_json(&part.to_string()).is_ok();
            assert!(!is_read || key == "control_of", "{place}/{key}");
            assert!(!schema.violations(&part).is_empty(), "{place}/{key}");
        }
        let mut part = whole.clone();
        part.pointer_mut(place).unwrap()["more"] = json!(1);
        assert!(!schema.violations(&part).is_empty(), "{place}/more");
    }
}
