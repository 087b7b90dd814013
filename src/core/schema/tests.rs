//! Every supported keyword, and invalid schemas.

use serde_json::json;

use super::*;

fn violation_of(schema: &Value, answer: &Value) -> Option<String> {
    Schema::new(schema.clone())
        .unwrap()
        .check(&answer.to_string())
        .err()
        .map(|violation| violation.to_string())
}

#[test]
fn every_keyword_accepts_and_refuses() {
    // A schema, a valid answer, an invalid one, and the violation.
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
        (json!({"maxProperties": 0}), json!({}), json!({"a": 1}), "it must have at most 0 properties, not 1"),
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
fn a_schema_that_refers_to_itself_ends() {
    let once = json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"});
    assert_eq!(violation_of(&once, &json!(1)).as_deref(), Some("it is nested too deeply"));
    let both = json!([{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]);
    let twice = json!({"$defs": {"a": {"anyOf": both}}, "$ref": "#/$defs/a"});
    assert_eq!(violation_of(&twice, &json!(1)).as_deref(), Some("it is nested too deeply"));
    // An abandoned check fails, and so does its negation.
    for schema in [
        json!({"not": {"$ref": "#"}}),
        json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "not": {"$ref": "#/$defs/a"}}),
    ] {
        assert_eq!(violation_of(&schema, &json!(1)).as_deref(), Some("it is nested too deeply"), "{schema}");
    }
}

#[test]
fn unsupported_rules_are_refused_with_their_place() {
    for (schema, words) in [
        (json!({"pattern": "x"}), "the keyword at #/pattern is not supported"),
        (json!({"items": {"if": {}}}), "the keyword at #/items/if is not supported"),
        (json!({"properties": {"a": 1}}), "#/properties/a is neither an object nor a boolean"),
        (json!({"type": "strnig"}), "#/type must be a type"),
        (json!({"$ref": "other.json"}), "#/$ref must point into the schema, like #/$defs/x"),
        (json!({"$ref": "#/$defs/missing"}), "#/$ref must point into the schema, like #/$defs/x"),
        (
            json!({"$ref": "#/examples/0", "examples": [{"pattern": "x"}]}),
            "the keyword at #/examples/0/pattern is not supported",
        ),
        (json!({"required": "a"}), "#/required must be an array of names"),
        (json!({"minLength": -1}), "#/minLength must be a whole number"),
        (json!({"multipleOf": 0}), "#/multipleOf must be a number above 0"),
        (json!({"anyOf": []}), "#/anyOf must be an array of schemas"),
        (json!([]), "# is neither an object nor a boolean"),
    ] {
        assert_eq!(Schema::new(schema).unwrap_err().to_string(), words);
    }
}

#[test]
fn annotations_are_allowed() {
    let schema =
        json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "T", "format": "date"});
    assert_eq!(violation_of(&schema, &json!("no date")), None);
}
