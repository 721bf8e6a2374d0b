//! As much of JSON Schema (draft 2020-12) as the published schemas use. A keyword that it does not know is a violation, so that
//! none is passed over.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Keywords that describe and demand nothing.
const ANNOTATIONS: &[&str] = &["$schema", "$id", "$defs", "title", "description"];

/// Checks documents against a schema, and notes what of it they use.
#[derive(Debug)]
pub struct JsonSchema {
    root: Value,
    used: BTreeSet<String>,
}

impl JsonSchema {
    /// The schema is a document itself.
    pub fn new(root: Value) -> Self {
        Self { root, used: BTreeSet::new() }
    }

    /// What in the document the schema does not allow, each with its path; empty for a valid one.
    pub fn violations(&mut self, document: &Value) -> Vec<String> {
        let (root, mut found) = (self.root.clone(), Vec::new());
        self.check(&root, &root, "", document, "$", &mut found);
        found
    }

    /// Properties, and values of enumerations, that no valid part of a document had so far.
    pub fn unused(&self) -> Vec<String> {
        let mut all = BTreeSet::new();
        parts(&self.root, "", &mut all);
        all.difference(&self.used).cloned().collect()
    }

    /// `place` names the part of the schema, `path` the part of the document.
    fn check(&mut self, root: &Value, schema: &Value, place: &str, value: &Value, path: &str, found: &mut Vec<String>) {
        let Some(schema) = schema.as_object() else { return found.push(format!("{place}: the schema is no object")) };
        for (keyword, wanted) in schema {
            match (keyword.as_str(), wanted) {
                (known, _) if ANNOTATIONS.contains(&known) => {}
                ("$ref", Value::String(name)) => {
                    let name = name.trim_start_matches("#/$defs/");
                    let place = format!("/$defs/{name}");
                    self.check(root, &root["$defs"][name], &place, value, path, found);
                }
                ("type", wanted) => {
                    if !is_type(wanted, value) {
                        found.push(format!("{path}: {value} is not of the type {wanted}"));
                    }
                }
                ("const", wanted) => {
                    if value != wanted {
                        found.push(format!("{path}: {value} is not {wanted}"));
                    }
                }
                ("enum", Value::Array(wanted)) => match wanted.contains(value) {
                    true => drop(self.used.insert(format!("{place}={value}"))),
                    false => found.push(format!("{path}: {value} is none of {wanted:?}")),
                },
                ("minimum", Value::Number(least)) => {
                    if value.as_f64().zip(least.as_f64()).is_some_and(|(value, least)| value < least) {
                        found.push(format!("{path}: {value} is below {least}"));
                    }
                }
                ("items", items) => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(root, items, &format!("{place}[]"), item, &format!("{path}[{at}]"), found);
                    }
                }
                ("required", Value::Array(names)) => {
                    let Some(object) = value.as_object() else { continue };
                    let missing = names.iter().filter_map(Value::as_str).filter(|name| !object.contains_key(*name));
                    found.extend(missing.map(|name| format!("{path}: {name} is missing")));
                }
                ("properties" | "additionalProperties", _) => {}
                ("oneOf", Value::Array(choices)) => self.check_one_of(root, choices, place, value, path, found),
                (other, _) => found.push(format!("{place}: the keyword {other} is not known here")),
            }
        }
        if let (Some(object), true) =
            (value.as_object(), schema.contains_key("properties") || schema.contains_key("additionalProperties"))
        {
            self.check_properties(root, schema, place, object, path, found);
        }
    }

    fn check_properties(
        &mut self,
        root: &Value,
        schema: &Map<String, Value>,
        place: &str,
        object: &Map<String, Value>,
        path: &str,
        found: &mut Vec<String>,
    ) {
        let known = schema.get("properties").and_then(Value::as_object);
        for (name, value) in object {
            let (place, path) = (format!("{place}/{name}"), format!("{path}.{name}"));
            if let Some(schema) = known.and_then(|known| known.get(name)) {
                self.used.insert(place.clone());
                self.check(root, schema, &place, value, &path, found);
                continue;
            }
            match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => found.push(format!("{path}: the schema has no such property")),
                Some(schema @ Value::Object(_)) => self.check(root, schema, &format!("{place}*"), value, &path, found),
                _ => {}
            }
        }
    }

    fn check_one_of(
        &mut self,
        root: &Value,
        choices: &[Value],
        place: &str,
        value: &Value,
        path: &str,
        found: &mut Vec<String>,
    ) {
        let mut fitting = 0;
        let mut reasons = Vec::new();
        for (at, choice) in choices.iter().enumerate() {
            let (used, mut wrong) = (self.used.clone(), Vec::new());
            self.check(root, choice, &format!("{place}<{at}>"), value, path, &mut wrong);
            match wrong.is_empty() {
                true => fitting += 1,
                false => {
                    self.used = used;
                    reasons.extend(wrong);
                }
            }
        }
        if fitting != 1 {
            found.push(format!("{path}: fits {fitting} of {} forms: {}", choices.len(), reasons.join("; ")));
        }
    }
}

fn is_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap_or_default() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    };
    match wanted {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

/// The places that [`JsonSchema::check`] notes as used.
fn parts(schema: &Value, place: &str, all: &mut BTreeSet<String>) {
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}/{name}");
        all.insert(place.clone());
        parts(part, &place, all);
    }
    for (name, part) in schema["$defs"].as_object().into_iter().flatten() {
        parts(part, &format!("/$defs/{name}"), all);
    }
    for value in schema["enum"].as_array().into_iter().flatten() {
        all.insert(format!("{place}={value}"));
    }
    if schema["items"].is_object() {
        parts(&schema["items"], &format!("{place}[]"), all);
    }
    for (at, choice) in schema["oneOf"].as_array().into_iter().flatten().enumerate() {
        parts(choice, &format!("{place}<{at}>"), all);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_schema_does_not_allow_is_found_and_what_no_document_has_is_unused() {
        let mut schema = JsonSchema::new(json!({
            "type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {
                "a": {"$ref": "#/$defs/word"},
                "b": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "c": {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"d": {"const": 1}}}]}
            },
            "$defs": {"word": {"enum": ["x", "y"]}}
        }));
        assert_eq!(schema.violations(&json!({"a": "x", "b": [0, 5], "c": {"d": 1}})), [""; 0]);
        assert_eq!(schema.unused(), ["/$defs/word=\"y\""]);
        for (wrong, expected) in [
            (json!({}), "$: a is missing"),
            (json!({"a": "z"}), "$.a: \"z\" is none of"),
            (json!({"a": "x", "b": [-1]}), "$.b[0]: -1 is below 0"),
            (json!({"a": "x", "b": [1.5]}), "$.b[0]: 1.5 is not of the type"),
            (json!({"a": "x", "e": 1}), "$.e: the schema has no such property"),
            (json!({"a": "x", "c": 5}), "$.c: fits 0 of 2 forms"),
            (json!({"a": "x", "c": {"d": 2}}), "$.c: fits 0 of 2 forms"),
            (json!([]), "$: [] is not of the type"),
        ] {
            let found = schema.violations(&wrong).join("\n");
            assert!(found.starts_with(expected), "{wrong}: {found}");
        }
        let unknown = JsonSchema::new(json!({"maxLength": 5})).violations(&json!("x"));
        assert_eq!(unknown, [": the keyword maxLength is not known here"]);
    }
}
