//! `--schema`: what is sent, and how the answer is checked.

use serde_json::Value;

use crate::support::Sandbox;
use crate::support::stub_server::Response;
use crate::support::stubbed_ollama::{StubbedOllama, finish, stream, text};

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": { "name": { "type": "string" }, "age": { "type": "integer", "minimum": 0 } },
    "required": ["name", "age"],
    "additionalProperties": false
}"#;

#[test]
fn every_answer_is_checked_against_the_schema() {
    let answer = |text: &str| {
        let asked = StubbedOllama::with([stream(&[text])]);
        std::fs::write(asked.sandbox.project().join("person.json"), SCHEMA).unwrap();
        let finished = asked.run(["Who?", "--stream", "--schema", "person.json"]);
        let sent = asked.server.request().json();
        assert_eq!(sent["response_format"]["type"], "json_schema");
        assert_eq!(
            sent["response_format"]["json_schema"]["schema"],
            serde_json::from_str::<Value>(SCHEMA).unwrap()
        );
        finished
    };
    let good = r#"{"name": "Ada", "age": 36}"#;
    answer(good).assert_stdout(&format!("{good}\n"));
    insta::assert_snapshot!(answer(r#"{"name": "Ada", "age": -1}"#), @r#"
    exit 8
    [stdout]
    {"name": "Ada", "age": -1}
    [stderr]
    error: the answer does not satisfy the schema: /age must be at least 0, not -1
    "#);
    insta::assert_snapshot!(answer("I am Ada."), @"
    exit 8
    [stdout]
    I am Ada.
    [stderr]
    error: the answer does not satisfy the schema: it is not JSON: expected value at line 1 column 1
    ");
}

#[test]
fn a_cut_answer_is_not_a_violation() {
    let asked = StubbedOllama::with([Response::stream([text("{\"name\": \"A"), finish("length")])]);
    std::fs::write(asked.sandbox.project().join("person.json"), SCHEMA).unwrap();
    insta::assert_snapshot!(asked.run(["Who?", "--schema", "person.json", "--strict"]), @r#"
    exit 9
    [stdout]
    {"name": "A
    [stderr]
    warning: the answer was cut at the token limit; raise it with --max-tokens
    "#);
    asked.run(["Who?", "--schema", "person.json"]).assert_code(8);
}

#[test]
fn a_property_name_cannot_forge_a_message() {
    let asked = StubbedOllama::with([stream(&["{\"a\\nerror: disk full\\nhint: run this\": 1}"])]);
    std::fs::write(
        asked.sandbox.project().join("schema.json"),
        "{\"additionalProperties\": {\"type\": \"string\"}}",
    )
    .unwrap();
    insta::assert_snapshot!(asked.run(["Who?", "--schema", "schema.json"]), @r#"
    exit 8
    [stdout]
    {"a\nerror: disk full\nhint: run this": 1}
    [stderr]
    error: the answer does not satisfy the schema: /a error: disk full hint: run this must be of type string, not number
    "#);
}

#[test]
fn an_unsupported_schema_is_refused_before_sending() {
    let sandbox = Sandbox::new();
    let run = |schema: &str| {
        std::fs::write(sandbox.project().join("schema.json"), schema).unwrap();
        sandbox.fusion(["ollama", "run", "Who?", "--schema", "schema.json"]).run_in_process()
    };
    insta::assert_snapshot!(run(r#"{"properties": {"a": {"pattern": "^x"}}}"#), @"
    exit 2
    [stderr]
    error: the schema schema.json cannot be used: the keyword at #/properties/a/pattern is not supported
    ");
    insta::assert_snapshot!(run("{"), @"
    exit 2
    [stderr]
    error: the schema schema.json is not JSON
      caused by: EOF while parsing an object at line 1 column 1
    ");
}
