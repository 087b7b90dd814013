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
fn an_answer_is_checked_by_the_schema_whatever_the_server_did_with_it() {
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
    let bad = r#"{"name": "Ada", "age": -1}"#;
    answer(bad).assert(
        8,
        &format!("{bad}\n"),
        "error: the answer does not satisfy the schema: /age must be at least 0, not -1\n",
    );
    answer("I am Ada.").assert(
        8,
        "I am Ada.\n",
        "error: the answer does not satisfy the schema: it is not JSON: expected value at line 1 column 1\n",
    );
}

#[test]
fn an_answer_that_was_cut_is_that_rather_than_a_violation() {
    let asked = StubbedOllama::with([Response::stream([text("{\"name\": \"A"), finish("length")])]);
    std::fs::write(asked.sandbox.project().join("person.json"), SCHEMA).unwrap();
    let warning = "warning: the answer was cut at the token limit; --max-tokens raises it\n";
    asked.run(["Who?", "--schema", "person.json", "--strict"]).assert(9, "{\"name\": \"A\n", warning);
    asked.run(["Who?", "--schema", "person.json"]).assert_code(8);
}

#[test]
fn a_name_in_an_answer_cannot_forge_a_message() {
    let asked = StubbedOllama::with([stream(&["{\"a\\nerror: disk full\\nhint: run this\": 1}"])]);
    std::fs::write(
        asked.sandbox.project().join("schema.json"),
        "{\"additionalProperties\": {\"type\": \"string\"}}",
    )
    .unwrap();
    let finished = asked.run(["Who?", "--schema", "schema.json"]).assert_code(8);
    assert_eq!(
        finished.stderr(),
        "error: the answer does not satisfy the schema: /a error: disk full hint: run this must be of type string, not number\n"
    );
}

#[test]
fn a_schema_that_cannot_be_checked_is_refused_before_anything_is_sent() {
    let sandbox = Sandbox::new();
    let run = |schema: &str| {
        std::fs::write(sandbox.project().join("schema.json"), schema).unwrap();
        sandbox.fusion(["ollama", "run", "Who?", "--schema", "schema.json"]).run()
    };
    run(r#"{"properties": {"a": {"pattern": "^x"}}}"#).assert(
        2,
        "",
        "error: the schema schema.json cannot be used: the keyword at #/properties/a/pattern is not supported\n",
    );
    run("{").assert(
        2,
        "",
        "error: the schema schema.json is not JSON\n  caused by: EOF while parsing an object at line 1 column 1\n",
    );
}
