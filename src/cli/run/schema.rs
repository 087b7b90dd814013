//! `--schema`: the part of JSON Schema (2020-12) by which an answer is checked.
//!
//! Checked: `type`, `enum`, `const`; `properties`, `required`, `additionalProperties`, `minProperties`,
//! `maxProperties`; `items`, `prefixItems`, `minItems`, `maxItems`, `uniqueItems`; `minLength`, `maxLength`;
//! `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf`; `allOf`, `anyOf`, `oneOf`, `not`, and
//! `$ref` into the same file. Annotations (`title`, `description`, `format` ...) are passed on and not checked. A
//! keyword that would be neither is refused before anything is sent: an answer is never called valid by a rule that
//! was not looked at.

use std::path::Path;

use serde_json::{Map, Value};

use crate::cli::error::{Exit, Failure};

/// How deep references and values may be nested; deeper is a schema that refers to itself.
const DEPTH_LIMIT: usize = 64;

const ANNOTATIONS: [&str; 16] = [
    "$schema",
    "$id",
    "$anchor",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "example",
    "examples",
    "format",
    "deprecated",
    "readOnly",
    "writeOnly",
    "propertyOrdering",
];

/// A schema that can be checked wholly.
#[derive(Debug)]
pub(super) struct Schema(Value);

impl Schema {
    /// Reads and checks a schema.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::of(Exit::Failed, &error).about(format!("cannot read the schema {name}"))
        })?;
        let value = serde_json::from_str(&text).map_err(|error| {
            Failure::of(Exit::Usage, &error).about(format!("the schema {name} is not JSON"))
        })?;
        Self::new(value)
            .map_err(|words| Failure::new(Exit::Usage, format!("the schema {name} cannot be used: {words}")))
    }

    fn new(value: Value) -> Result<Self, String> {
        understand(&value, &value, "#", 0)?;
        Ok(Self(value))
    }

    /// The schema itself.
    pub(super) fn value(&self) -> &Value {
        &self.0
    }

    /// Says where and how an answer violates the schema.
    pub(super) fn check(&self, answer: &str) -> Result<(), String> {
        let value = serde_json::from_str(answer).map_err(|error| format!("it is not JSON: {error}"))?;
        check(&self.0, &self.0, &value, &Place::Root, 0)
    }
}

/// Where in a value; written as a JSON pointer.
enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) => {
                write!(formatter, "{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
            }
            Self::Item(parent, index) => write!(formatter, "{parent}/{index}"),
        }
    }
}

/// Whether every keyword beneath `schema` is known and well formed.
fn understand(root: &Value, schema: &Value, place: &str, depth: usize) -> Result<(), String> {
    let keywords = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(keywords) => keywords,
        _ => return Err(format!("{place} is neither an object nor a boolean")),
    };
    if depth > DEPTH_LIMIT {
        return Err(format!("{place} is nested too deeply"));
    }
    for (keyword, value) in keywords {
        let here = format!("{place}/{keyword}");
        let wrong = |expected: &str| Err(format!("{here} must be {expected}"));
        match keyword.as_str() {
            "type" if !types(value).all(is_type_name) || types(value).next().is_none() => {
                return wrong("a type");
            }
            "enum" if !value.is_array() => return wrong("an array"),
            "required" if !value.as_array().is_some_and(|names| names.iter().all(Value::is_string)) => {
                return wrong("an array of names");
            }
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties"
                if !value.is_u64() =>
            {
                return wrong("a whole number");
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if !value.is_number() => {
                return wrong("a number");
            }
            "multipleOf" if value.as_f64().is_none_or(|step| step <= 0.0) => {
                return wrong("a number above 0");
            }
            "uniqueItems" if !value.is_boolean() => return wrong("true or false"),
            "type" | "enum" | "const" | "required" | "minItems" | "maxItems" | "minLength" | "maxLength"
            | "minProperties" | "maxProperties" | "minimum" | "maximum" | "exclusiveMinimum"
            | "exclusiveMaximum" | "multipleOf" | "uniqueItems" => {}
            "$ref" => {
                referred(root, value)
                    .ok_or_else(|| format!("{here} must point into the schema, like #/$defs/x"))?;
            }
            "additionalProperties" | "items" | "not" => understand(root, value, &here, depth + 1)?,
            "prefixItems" | "allOf" | "anyOf" | "oneOf" => {
                let Some(parts) = value.as_array().filter(|parts| !parts.is_empty()) else {
                    return wrong("an array of schemas");
                };
                for (index, part) in parts.iter().enumerate() {
                    understand(root, part, &format!("{here}/{index}"), depth + 1)?;
                }
            }
            "properties" | "$defs" | "definitions" => {
                let Some(parts) = value.as_object() else { return wrong("an object of schemas") };
                for (name, part) in parts {
                    understand(root, part, &format!("{here}/{name}"), depth + 1)?;
                }
            }
            annotation if ANNOTATIONS.contains(&annotation) => {}
            _ => return Err(format!("the keyword at {here} is not supported")),
        }
    }
    Ok(())
}

fn types(value: &Value) -> impl Iterator<Item = &str> {
    let several = value.as_array().into_iter().flatten();
    several.chain(value.as_str().map(|_| value)).map(|name| name.as_str().unwrap_or_default())
}

fn is_type_name(name: &str) -> bool {
    ["null", "boolean", "object", "array", "number", "integer", "string"].contains(&name)
}

/// What a `$ref` within the same file points to.
fn referred<'a>(root: &'a Value, reference: &Value) -> Option<&'a Value> {
    root.pointer(reference.as_str()?.strip_prefix('#')?)
}

fn check(root: &Value, schema: &Value, value: &Value, place: &Place<'_>, depth: usize) -> Result<(), String> {
    let keywords = match schema {
        Value::Object(keywords) => keywords,
        Value::Bool(false) => return Err(violation(place, "is not allowed")),
        _ => return Ok(()),
    };
    if depth > DEPTH_LIMIT {
        return Err(violation(place, "is nested too deeply"));
    }
    for (keyword, rule) in keywords {
        check_any(keyword, rule, value, place)?;
        check_combination(root, keyword, rule, value, place, depth)?;
    }
    match value {
        Value::Object(members) => check_object(root, keywords, members, place, depth),
        Value::Array(items) => check_array(root, keywords, items, place, depth),
        Value::String(text) => check_string(keywords, text, place),
        Value::Number(_) => check_number(keywords, value, place),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn violation(place: &Place<'_>, words: impl std::fmt::Display) -> String {
    match place {
        Place::Root => format!("it {words}"),
        _ => format!("{place} {words}"),
    }
}

fn check_any(keyword: &str, rule: &Value, value: &Value, place: &Place<'_>) -> Result<(), String> {
    match keyword {
        "type" if !types(rule).any(|name| has_type(value, name)) => {
            let wanted = types(rule).collect::<Vec<_>>().join(" or ");
            Err(violation(place, format_args!("must be of type {wanted}, not {}", type_of(value))))
        }
        "enum" if !rule.as_array().is_some_and(|allowed| allowed.iter().any(|one| equal(one, value))) => {
            Err(violation(place, format_args!("must be one of {rule}, not {value}")))
        }
        "const" if !equal(rule, value) => Err(violation(place, format_args!("must be {rule}, not {value}"))),
        _ => Ok(()),
    }
}

fn check_combination(
    root: &Value,
    keyword: &str,
    rule: &Value,
    value: &Value,
    place: &Place<'_>,
    depth: usize,
) -> Result<(), String> {
    let parts = || rule.as_array().into_iter().flatten();
    let holds = |part: &Value| check(root, part, value, place, depth + 1);
    match keyword {
        "$ref" => referred(root, rule).map_or(Ok(()), holds),
        "allOf" => parts().try_for_each(holds),
        "anyOf" => match parts().map(holds).find_map(Result::err) {
            Some(first) if parts().all(|part| holds(part).is_err()) => {
                Err(violation(place, format_args!("satisfies nothing of anyOf ({first})")))
            }
            _ => Ok(()),
        },
        "oneOf" => match parts().filter(|part| holds(part).is_ok()).count() {
            1 => Ok(()),
            count => Err(violation(place, format_args!("must satisfy exactly one of oneOf, not {count}"))),
        },
        "not" if holds(rule).is_ok() => Err(violation(place, format_args!("must not satisfy {rule}"))),
        _ => Ok(()),
    }
}

fn check_object(
    root: &Value,
    keywords: &Map<String, Value>,
    members: &Map<String, Value>,
    place: &Place<'_>,
    depth: usize,
) -> Result<(), String> {
    let required = keywords.get("required").and_then(Value::as_array).into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !members.contains_key(name) {
            return Err(violation(place, format_args!("lacks the required property `{name}`")));
        }
    }
    check_count(keywords, ["minProperties", "maxProperties"], members.len(), "properties", place)?;
    let properties = keywords.get("properties").and_then(Value::as_object);
    for (name, member) in members {
        let here = Place::Key(place, name);
        if let Some(schema) = properties.and_then(|properties| properties.get(name)) {
            check(root, schema, member, &here, depth + 1)?;
        } else if let Some(schema) = keywords.get("additionalProperties") {
            check(root, schema, member, &here, depth + 1)?;
        }
    }
    Ok(())
}

fn check_array(
    root: &Value,
    keywords: &Map<String, Value>,
    items: &[Value],
    place: &Place<'_>,
    depth: usize,
) -> Result<(), String> {
    check_count(keywords, ["minItems", "maxItems"], items.len(), "items", place)?;
    let first = keywords.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (index, item) in items.iter().enumerate() {
        if let Some(schema) = first.get(index).or_else(|| keywords.get("items")) {
            check(root, schema, item, &Place::Item(place, index), depth + 1)?;
        }
    }
    if keywords.get("uniqueItems") == Some(&Value::Bool(true)) {
        for (index, item) in items.iter().enumerate() {
            if items[..index].iter().any(|earlier| equal(earlier, item)) {
                return Err(violation(&Place::Item(place, index), "is there twice"));
            }
        }
    }
    Ok(())
}

fn check_string(keywords: &Map<String, Value>, text: &str, place: &Place<'_>) -> Result<(), String> {
    check_count(keywords, ["minLength", "maxLength"], text.chars().count(), "characters", place)
}

fn check_count(
    keywords: &Map<String, Value>,
    [least, most]: [&str; 2],
    count: usize,
    unit: &str,
    place: &Place<'_>,
) -> Result<(), String> {
    let limit = |keyword: &str| keywords.get(keyword).and_then(Value::as_u64);
    if let Some(least) = limit(least).filter(|least| (count as u64) < *least) {
        return Err(violation(place, format_args!("must have at least {least} {unit}, not {count}")));
    }
    if let Some(most) = limit(most).filter(|most| count as u64 > *most) {
        return Err(violation(place, format_args!("must have at most {most} {unit}, not {count}")));
    }
    Ok(())
}

/// A keyword, what it asks of a number, and whether a number satisfies it.
type Rule = (&'static str, &'static str, fn(f64, f64) -> bool);

fn check_number(keywords: &Map<String, Value>, value: &Value, place: &Place<'_>) -> Result<(), String> {
    let number = value.as_f64().unwrap_or_default();
    let rules: [Rule; 5] = [
        ("minimum", "at least", |number, limit| number >= limit),
        ("maximum", "at most", |number, limit| number <= limit),
        ("exclusiveMinimum", "above", |number, limit| number > limit),
        ("exclusiveMaximum", "below", |number, limit| number < limit),
        ("multipleOf", "a multiple of", is_multiple),
    ];
    for (keyword, words, holds) in rules {
        if let Some(rule) = keywords.get(keyword)
            && let Some(limit) = rule.as_f64()
            && !holds(number, limit)
        {
            return Err(violation(place, format_args!("must be {words} {rule}, not {value}")));
        }
    }
    Ok(())
}

/// As decimal numbers are meant: 0.3 is a multiple of 0.1.
fn is_multiple(number: f64, step: f64) -> bool {
    let quotient = number / step;
    (quotient - quotient.round()).abs() <= f64::EPSILON * quotient.abs().max(1.0) * 4.0
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        // 1.0 is an integer.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        name => type_of(value) == name,
    }
}

/// Equal as JSON values, for which 1 and 1.0 are the same.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(one, other)| equal(one, other))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, one)| b.get(key).is_some_and(|other| equal(one, other)))
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violation_of(schema: &Value, answer: &Value) -> Option<String> {
        Schema::new(schema.clone()).unwrap().check(&answer.to_string()).err()
    }

    #[test]
    #[allow(clippy::too_many_lines)] // A table.
    fn every_keyword_accepts_and_refuses() {
        // Schema, what satisfies it, what does not, and what is said of that.
        let cases = [
            (json!({"type": "string"}), json!("a"), json!(1), "it must be of type string, not number"),
            (
                json!({"type": ["null", "integer"]}),
                json!(1.0),
                json!(1.5),
                "it must be of type null or integer, not number",
            ),
            (json!({"type": "boolean"}), json!(false), json!(null), "it must be of type boolean, not null"),
            (json!({"enum": ["a", 1]}), json!(1.0), json!("b"), "it must be one of [\"a\",1], not \"b\""),
            (json!({"const": {"a": [1]}}), json!({"a": [1.0]}), json!({}), "it must be {\"a\":[1]}, not {}"),
            (
                json!({"required": ["a"]}),
                json!({"a": null}),
                json!({"b": 1}),
                "it lacks the required property `a`",
            ),
            (
                json!({"properties": {"a": {"type": "null"}}}),
                json!({"b": 1}),
                json!({"a": 1}),
                "/a must be of type null, not number",
            ),
            (
                json!({"additionalProperties": false, "properties": {"a": true}}),
                json!({"a": 1}),
                json!({"a/b": 1}),
                "/a~1b is not allowed",
            ),
            (
                json!({"additionalProperties": {"type": "null"}}),
                json!({"a": null}),
                json!({"a": 1}),
                "/a must be of type null, not number",
            ),
            (
                json!({"minProperties": 1}),
                json!({"a": 1}),
                json!({}),
                "it must have at least 1 properties, not 0",
            ),
            (
                json!({"maxProperties": 0}),
                json!({}),
                json!({"a": 1}),
                "it must have at most 0 properties, not 1",
            ),
            (
                json!({"items": {"type": "string"}}),
                json!(["a"]),
                json!(["a", 1]),
                "/1 must be of type string, not number",
            ),
            (
                json!({"prefixItems": [{"const": 1}], "items": {"const": 2}}),
                json!([1, 2, 2]),
                json!([1, 1]),
                "/1 must be 2, not 1",
            ),
            (json!({"minItems": 2}), json!([1, 2]), json!([1]), "it must have at least 2 items, not 1"),
            (json!({"maxItems": 1}), json!([1]), json!([1, 2]), "it must have at most 1 items, not 2"),
            (json!({"uniqueItems": true}), json!([1, "1"]), json!([1, 2, 1.0]), "/2 is there twice"),
            (json!({"minLength": 2}), json!("äö"), json!("ä"), "it must have at least 2 characters, not 1"),
            (json!({"maxLength": 1}), json!("🙂"), json!("ab"), "it must have at most 1 characters, not 2"),
            (json!({"minimum": 1}), json!(1), json!(0.5), "it must be at least 1, not 0.5"),
            (json!({"maximum": 1}), json!(1), json!(2), "it must be at most 1, not 2"),
            (json!({"exclusiveMinimum": 1}), json!(1.1), json!(1), "it must be above 1, not 1"),
            (json!({"exclusiveMaximum": 1}), json!(0), json!(1), "it must be below 1, not 1"),
            (json!({"multipleOf": 0.1}), json!(0.3), json!(0.35), "it must be a multiple of 0.1, not 0.35"),
            (
                json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}),
                json!(2),
                json!(3),
                "it must be at most 2, not 3",
            ),
            (
                json!({"anyOf": [{"const": 1}, {"const": 2}]}),
                json!(2),
                json!(3),
                "it satisfies nothing of anyOf (it must be 1, not 3)",
            ),
            (
                json!({"oneOf": [{"minimum": 1}, {"minimum": 3}]}),
                json!(2),
                json!(3),
                "it must satisfy exactly one of oneOf, not 2",
            ),
            (json!({"not": {"const": 1}}), json!(2), json!(1), "it must not satisfy {\"const\":1}"),
            (
                json!({"$defs": {"leaf": {"type": "object", "properties": {"next": {"$ref": "#/$defs/leaf"}}}}, "$ref": "#/$defs/leaf"}),
                json!({"next": {"next": {}}}),
                json!({"next": {"next": 1}}),
                "/next/next must be of type object, not number",
            ),
            (json!(true), json!(1), json!(null), ""),
        ];
        for (schema, good, bad, words) in cases {
            assert_eq!(violation_of(&schema, &good), None, "{schema}");
            if !words.is_empty() {
                assert_eq!(violation_of(&schema, &bad).as_deref(), Some(words), "{schema}");
            }
        }
        assert_eq!(violation_of(&json!(false), &json!(1)).as_deref(), Some("it is not allowed"));
    }

    #[test]
    fn a_schema_that_refers_to_itself_without_end_is_no_endless_loop() {
        let schema = json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"});
        assert_eq!(violation_of(&schema, &json!(1)).as_deref(), Some("it is nested too deeply"));
    }

    #[test]
    fn what_cannot_be_checked_is_refused_with_its_place() {
        for (schema, words) in [
            (json!({"pattern": "x"}), "the keyword at #/pattern is not supported"),
            (json!({"items": {"if": {}}}), "the keyword at #/items/if is not supported"),
            (json!({"properties": {"a": 1}}), "#/properties/a is neither an object nor a boolean"),
            (json!({"type": "strnig"}), "#/type must be a type"),
            (json!({"$ref": "other.json"}), "#/$ref must point into the schema, like #/$defs/x"),
            (json!({"$ref": "#/$defs/missing"}), "#/$ref must point into the schema, like #/$defs/x"),
            (json!({"required": "a"}), "#/required must be an array of names"),
            (json!({"minLength": -1}), "#/minLength must be a whole number"),
            (json!({"multipleOf": 0}), "#/multipleOf must be a number above 0"),
            (json!({"anyOf": []}), "#/anyOf must be an array of schemas"),
            (json!([]), "# is neither an object nor a boolean"),
        ] {
            assert_eq!(Schema::new(schema).unwrap_err(), words);
        }
    }

    #[test]
    fn annotations_are_allowed() {
        let schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "T", "format": "date"});
        assert_eq!(violation_of(&schema, &json!("no date")), None);
    }
}
