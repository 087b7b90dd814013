//! The part of JSON Schema (2020-12) that checks an answer.
//!
//! Checked: `type`, `enum`, `const`; `properties`, `required`, `additionalProperties`, `minProperties`,
//! `maxProperties`; `items`, `prefixItems`, `minItems`, `maxItems`, `uniqueItems`; `minLength`, `maxLength`;
//! `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf`; `allOf`, `anyOf`, `oneOf`, `not`, and
//! `$ref` into the same schema. Annotations (`title`, `format`, `x-...`) are allowed and not checked. Any other keyword
//! is an error: an answer must not count as valid while a rule was not checked.

use std::cell::Cell;

use serde_json::{Map, Value};

use crate::core::sorted_map::SortedMap;

/// Maximum nesting of a schema.
const MAX_SCHEMA_DEPTH: usize = 64;

/// Maximum nesting of rules in a check: four for each of the 128 levels that `serde_json` parses. Only a schema that
/// refers to itself nests deeper.
const MAX_RULE_DEPTH: usize = 4 * 128;

/// Maximum steps of a check: a schema that refers to itself in several places can require endlessly many.
const MAX_STEPS: u32 = 1_000_000;

const TOO_DEEP: &str = "is nested too deeply";

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

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("it is not JSON")]
    NotJson(#[from] serde_json::Error),
    #[error("the keyword at {place} is not supported")]
    UnsupportedKeyword { place: String },
    #[error("{place} {fault}")]
    Invalid { place: String, fault: String },
}

/// Why an answer does not satisfy a schema.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    #[error("it is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// A rule does not hold; `place` is a JSON pointer into the answer, empty for its root.
    #[error("{} {rule}", if place.is_empty() { "it" } else { place })]
    Rule { place: String, rule: String },
}

/// A schema of which every rule can be checked.
#[derive(Debug)]
pub struct Schema(Value);

impl Schema {
    /// Parses the text of a schema, with or without a byte order mark.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        Self::new(serde_json::from_str(text.trim_start_matches('\u{feff}'))?)
    }

    fn new(value: Value) -> Result<Self, SchemaError> {
        validate(&value, &value, "#", 0, &mut SortedMap::new())?;
        Ok(Self(value))
    }

    /// Returns the schema as JSON.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Checks the text of an answer.
    pub fn check(&self, answer: &str) -> Result<(), Violation> {
        let value = serde_json::from_str(answer).map_err(Violation::NotJson)?;
        let check = Check { root: &self.0, steps: Cell::new(0) };
        let result = check.value(&self.0, &value, &Pointer::Root, 0);
        // A check that was abandoned fails, even where `not` or `oneOf` turned that into a success.
        if check.steps.get() > MAX_STEPS { Err(violation(&Pointer::Root, TOO_DEEP)) } else { result }
    }
}

/// A place in an answer, displayed as a JSON pointer.
enum Pointer<'a> {
    Root,
    Key(&'a Pointer<'a>, &'a str),
    Item(&'a Pointer<'a>, usize),
}

impl std::fmt::Display for Pointer<'_> {
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

/// Checks that every keyword in `schema`, and in the targets of its references, is supported and well formed;
/// `followed` are the references that were checked.
fn validate<'a>(
    root: &'a Value,
    schema: &'a Value,
    place: &str,
    depth: usize,
    followed: &mut SortedMap<&'a str, ()>,
) -> Result<(), SchemaError> {
    let keywords = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(keywords) => keywords,
        _ => return Err(invalid(place, "is neither an object nor a boolean")),
    };
    if depth > MAX_SCHEMA_DEPTH {
        return Err(invalid(place, TOO_DEEP));
    }
    for (keyword, value) in keywords {
        let here = format!("{place}/{keyword}");
        let wrong = |expected: &str| Err(invalid(&here, &format!("must be {expected}")));
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
                let target = referred(root, value)
                    .ok_or_else(|| invalid(&here, "must point into the schema, like #/$defs/x"))?;
                let reference = value.as_str().unwrap_or_default();
                if !is_definition(reference) && followed.insert(reference, ()).is_none() {
                    validate(root, target, reference, depth + 1, followed)?;
                }
            }
            "additionalProperties" | "items" | "not" => validate(root, value, &here, depth + 1, followed)?,
            "prefixItems" | "allOf" | "anyOf" | "oneOf" => {
                let Some(parts) = value.as_array().filter(|parts| !parts.is_empty()) else {
                    return wrong("an array of schemas");
                };
                for (index, part) in parts.iter().enumerate() {
                    validate(root, part, &format!("{here}/{index}"), depth + 1, followed)?;
                }
            }
            "properties" | "$defs" | "definitions" => {
                let Some(parts) = value.as_object() else { return wrong("an object of schemas") };
                for (name, part) in parts {
                    validate(root, part, &format!("{here}/{name}"), depth + 1, followed)?;
                }
            }
            annotation if ANNOTATIONS.contains(&annotation) || annotation.starts_with("x-") => {}
            _ => return Err(SchemaError::UnsupportedKeyword { place: here }),
        }
    }
    Ok(())
}

fn invalid(place: &str, fault: &str) -> SchemaError {
    SchemaError::Invalid { place: place.to_owned(), fault: fault.to_owned() }
}

/// Returns whether a reference leads to a definition, which is checked where it stands: a chain of definitions is not
/// nested.
fn is_definition(reference: &str) -> bool {
    let name = reference.strip_prefix("#/$defs/").or_else(|| reference.strip_prefix("#/definitions/"));
    name.is_some_and(|name| !name.contains('/'))
}

fn types(value: &Value) -> impl Iterator<Item = &str> {
    let several = value.as_array().into_iter().flatten();
    several.chain(value.as_str().map(|_| value)).map(|name| name.as_str().unwrap_or_default())
}

fn is_type_name(name: &str) -> bool {
    ["null", "boolean", "object", "array", "number", "integer", "string"].contains(&name)
}

/// Returns the target of a `$ref` within the same schema.
fn referred<'a>(root: &'a Value, reference: &Value) -> Option<&'a Value> {
    root.pointer(reference.as_str()?.strip_prefix('#')?)
}

/// A check of an answer.
struct Check<'a> {
    root: &'a Value,
    steps: Cell<u32>,
}

impl Check<'_> {
    fn value(
        &self,
        schema: &Value,
        value: &Value,
        place: &Pointer<'_>,
        depth: usize,
    ) -> Result<(), Violation> {
        let keywords = match schema {
            Value::Object(keywords) => keywords,
            Value::Bool(false) => return Err(violation(place, "is not allowed")),
            _ => return Ok(()),
        };
        let is_too_deep = depth > MAX_RULE_DEPTH || self.steps.get() >= MAX_STEPS;
        self.steps.set(if is_too_deep { MAX_STEPS + 1 } else { self.steps.get() + 1 });
        if is_too_deep {
            return Err(violation(place, TOO_DEEP));
        }
        for (keyword, rule) in keywords {
            check_any(keyword, rule, value, place)?;
            self.combination(keyword, rule, value, place, depth)?;
        }
        match value {
            Value::Object(members) => self.object(keywords, members, place, depth),
            Value::Array(items) => self.array(keywords, items, place, depth),
            Value::String(text) => check_string(keywords, text, place),
            Value::Number(_) => check_number(keywords, value, place),
            Value::Null | Value::Bool(_) => Ok(()),
        }
    }

    fn combination(
        &self,
        keyword: &str,
        rule: &Value,
        value: &Value,
        place: &Pointer<'_>,
        depth: usize,
    ) -> Result<(), Violation> {
        let parts = || rule.as_array().into_iter().flatten();
        let holds = |part: &Value| self.value(part, value, place, depth + 1);
        match keyword {
            "$ref" => referred(self.root, rule).map_or(Ok(()), holds),
            "allOf" => parts().try_for_each(holds),
            "anyOf" => match parts().map(holds).find_map(Result::err) {
                Some(first) if parts().all(|part| holds(part).is_err()) => {
                    Err(violation(place, format_args!("satisfies nothing of anyOf ({first})")))
                }
                _ => Ok(()),
            },
            "oneOf" => match parts().filter(|part| holds(part).is_ok()).count() {
                1 => Ok(()),
                count => {
                    Err(violation(place, format_args!("must satisfy exactly one of oneOf, not {count}")))
                }
            },
            "not" if holds(rule).is_ok() => Err(violation(place, format_args!("must not satisfy {rule}"))),
            _ => Ok(()),
        }
    }

    fn object(
        &self,
        keywords: &Map<String, Value>,
        members: &Map<String, Value>,
        place: &Pointer<'_>,
        depth: usize,
    ) -> Result<(), Violation> {
        let required = keywords.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if !members.contains_key(name) {
                return Err(violation(place, format_args!("lacks the required property `{name}`")));
            }
        }
        check_count(keywords, ["minProperties", "maxProperties"], members.len(), "properties", place)?;
        let properties = keywords.get("properties").and_then(Value::as_object);
        for (name, member) in members {
            let here = Pointer::Key(place, name);
            if let Some(schema) = properties.and_then(|properties| properties.get(name)) {
                self.value(schema, member, &here, depth + 1)?;
            } else if let Some(schema) = keywords.get("additionalProperties") {
                self.value(schema, member, &here, depth + 1)?;
            }
        }
        Ok(())
    }

    fn array(
        &self,
        keywords: &Map<String, Value>,
        items: &[Value],
        place: &Pointer<'_>,
        depth: usize,
    ) -> Result<(), Violation> {
        check_count(keywords, ["minItems", "maxItems"], items.len(), "items", place)?;
        let first = keywords.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (index, item) in items.iter().enumerate() {
            if let Some(schema) = first.get(index).or_else(|| keywords.get("items")) {
                self.value(schema, item, &Pointer::Item(place, index), depth + 1)?;
            }
        }
        if keywords.get("uniqueItems") == Some(&Value::Bool(true)) {
            for (index, item) in items.iter().enumerate() {
                if items[..index].iter().any(|earlier| equal(earlier, item)) {
                    return Err(violation(&Pointer::Item(place, index), "is there twice"));
                }
            }
        }
        Ok(())
    }
}

fn violation(place: &Pointer<'_>, rule: impl std::fmt::Display) -> Violation {
    Violation::Rule { place: place.to_string(), rule: rule.to_string() }
}

fn check_any(keyword: &str, rule: &Value, value: &Value, place: &Pointer<'_>) -> Result<(), Violation> {
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

fn check_string(keywords: &Map<String, Value>, text: &str, place: &Pointer<'_>) -> Result<(), Violation> {
    check_count(keywords, ["minLength", "maxLength"], text.chars().count(), "characters", place)
}

fn check_count(
    keywords: &Map<String, Value>,
    [least, most]: [&str; 2],
    count: usize,
    unit: &str,
    place: &Pointer<'_>,
) -> Result<(), Violation> {
    let limit = |keyword: &str| keywords.get(keyword).and_then(Value::as_u64);
    if let Some(least) = limit(least).filter(|least| (count as u64) < *least) {
        return Err(violation(place, format_args!("must have at least {least} {unit}, not {count}")));
    }
    if let Some(most) = limit(most).filter(|most| count as u64 > *most) {
        return Err(violation(place, format_args!("must have at most {most} {unit}, not {count}")));
    }
    Ok(())
}

/// A keyword, its meaning in words, and whether a number satisfies it.
type Rule = (&'static str, &'static str, fn(f64, f64) -> bool);

fn check_number(keywords: &Map<String, Value>, value: &Value, place: &Pointer<'_>) -> Result<(), Violation> {
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

/// Compares as decimal numbers: 0.3 is a multiple of 0.1.
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

/// Compares JSON values; 1 and 1.0 are equal.
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
mod tests;
