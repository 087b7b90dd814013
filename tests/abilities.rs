//! What `fusion <service> health` asks a model to show: tool calls, JSON of a schema, images.

mod support;

use serde_json::{Value, json};
use support::stub_server::Response;
use support::stubbed_ollama::{StubbedOllama, event, finish, stream};
use support::{Finished, Sandbox};

/// Runs `health` against a server that gives these answers to what it asks after the token; returns the bodies of that.
fn health(words: &str, answers: Vec<Response>) -> (Finished, Vec<Value>) {
    let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "length" });
    let token = Response::json(200, json!({ "choices": [choice] }).to_string());
    let before = vec![token];
    let (skipped, count) = (before.len(), answers.len());
    let asked = StubbedOllama::with([before, answers].concat());
    let words = ["ollama", "health"].into_iter().chain(words.split_whitespace());
    let finished = asked.sandbox.fusion(words).mask(format!(":{}", asked.server.port()), ":[STUB]").run();
    let requests: Vec<_> = (0..skipped + count).map(|_| asked.server.request()).collect();
    (finished, requests[skipped..].iter().map(support::stub_server::Request::json).collect())
}

fn call(name: &str) -> Response {
    let call =
        json!({ "index": 0, "id": "1", "function": { "name": name, "arguments": "{\"city\": \"Paris\"}" } });
    Response::stream([event(&json!({ "tool_calls": [call] }), &Value::Null), finish("tool_calls")])
}

#[test]
fn abilities_are_shown_by_answers() {
    let answers = vec![
        call("get_weather"),
        stream(&[r#"{"color":"red","number":1}"#]),
        stream(&["Red."]),
        stream(&["Blue"]),
    ];
    let (shown, bodies) = health("--tools --schema --vision -m tiny", answers);
    insta::assert_snapshot!(shown, @"
    exit 0
    [stdout]
    ollama is healthy: one token of tiny in [TIME] ms
    tiny calls tools
    tiny follows a JSON Schema
    tiny sees images
    ");
    let [tools, schema, red, blue] = bodies.as_slice() else { panic!("{bodies:#?}") };
    assert_eq!(tools["tools"][0]["function"]["name"], "get_weather");
    assert_eq!(schema["response_format"]["type"], "json_schema");
    let url = |body: &Value| body["messages"][0]["content"][0]["image_url"]["url"].to_string();
    assert!(url(red).starts_with("\"data:image/png;base64,") && url(red) != url(blue));
}

#[test]
fn a_missing_ability_is_told_in_words() {
    let refused = r#"{"error":{"message":"this model does not support tools"}}"#;
    let answers = vec![Response::json(400, refused), stream(&["Hello!"]), stream(&["Red"]), stream(&["Red"])];
    let (shown, _) = health("--vision --schema --tools -m tiny", answers);
    insta::assert_snapshot!(shown, @"
    exit 1
    [stdout]
    ollama is healthy: one token of tiny in [TIME] ms
    [stderr]
    error: tiny calls no tools on ollama; it said: this model does not support tools
    hint: choose a model that calls tools, such as qwen3:8b
    error: tiny does not follow a JSON Schema on ollama; it said: Hello!: it is not JSON: expected value at line 1 column 1
    hint: ask for JSON in the prompt; `run --schema` checks every answer
    error: tiny sees no images on ollama; it said: Red
    hint: choose a model that sees images, such as qwen2.5vl:7b
    ");
}

#[test]
fn json_tells_of_what_was_asked() {
    let (shown, _) = health("--json --tools -m tiny", vec![stream(&["No."])]);
    let json = shown.assert_code(1).json();
    assert_eq!(
        (&json["tools"], &json["schema"], &json["vision"]),
        (&json!(false), &Value::Null, &Value::Null)
    );
}

#[test]
fn a_failed_question_is_no_verdict() {
    let broken = Response::json(500, r#"{"error":{"message":"CUDA error: out of memory"}}"#);
    let (shown, _) = health("--tools -m tiny", vec![broken]);
    insta::assert_snapshot!(shown, @"
    exit 8
    [stdout]
    ollama is healthy: one token of tiny in [TIME] ms
    [stderr]
    error: cannot ask tiny for a tool call
      caused by: CUDA error: out of memory (HTTP 500)
    hint: see the log of the service
    ");
}

#[test]
fn only_a_model_is_asked() {
    let sandbox = Sandbox::new();
    sandbox.write_config(&format!(
        "[ollama_server]\nport = {}\n\
         [templates.web]\nstart_command = \"x\"\n[instances.site]\ntemplate = \"web\"\nport = 9\n",
        sandbox.port("ollama")
    ));
    insta::assert_snapshot!(sandbox.fusion(["site", "health", "--vision"]).run(), @"
    exit 2
    [stderr]
    error: site is no model server: its template web is not a runtime
    hint: see its commands: fusion site --help
    ");
    sandbox.fusion(["ollama", "health", "--tools"]).run().assert_code(3);
}
