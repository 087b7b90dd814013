//! The translators of the gateway beyond the tables of `tests/gateway_cases.rs`: what servers and agents really send.

use fusion::gateway::translate::{self, Stamp, StreamEnd, Translator};
use fusion::gateway::wire::Wire;
use insta::assert_snapshot;
use serde_json::{Value, json};

fn stamp() -> Stamp {
    Stamp { tag: "t".to_owned(), created_at: 7 }
}

/// The chat completion request for a request, or why it is refused.
#[track_caller]
fn chat(wire: Wire, request: &Value) -> Result<Value, String> {
    match translate::request(wire, request.to_string().as_bytes(), "m") {
        Ok(body) => Ok(serde_json::from_slice(&body).expect("JSON")),
        Err(failure) => {
            assert_eq!(failure.status, 400);
            Err(failure.message)
        }
    }
}

/// The messages of a chat completion request.
#[track_caller]
fn messages(wire: Wire, request: &Value) -> Value {
    chat(wire, request).expect("it is translated")["messages"].clone()
}

#[test]
fn images_of_tool_results_reach_the_model() {
    let image = json!({ "type": "image", "source": { "type": "url", "url": "http://x.example/a.png" } });
    let request = json!({ "messages": [
        { "role": "assistant", "content": [
            { "type": "thinking", "thinking": "Hm.", "signature": "s" },
            { "type": "tool_use", "id": "a", "name": "Read", "input": { "z": 1, "a": 2.50 }, "caller": { "type": "direct" } },
            { "type": "tool_use", "id": "b", "name": "Read" },
        ] },
        { "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": "a", "content": [{ "type": "text", "text": "a.png" }, image] },
            { "type": "tool_result", "tool_use_id": "b" },
        ] },
    ] });
    let image = json!({ "type": "image_url", "image_url": { "url": "http://x.example/a.png" } });
    let call = |id: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": "Read", "arguments": arguments } });
    let expected = json!([
        { "role": "assistant", "content": "", "tool_calls": [call("a", r#"{"a":2.5,"z":1}"#), call("b", "{}")] },
        { "role": "tool", "tool_call_id": "a", "content": "a.png" },
        { "role": "tool", "tool_call_id": "b", "content": "" },
        { "role": "user", "content": [image] },
    ]);
    assert_eq!(messages(Wire::Messages, &request), expected);

    let image_part =
        json!({ "type": "input_image", "image_url": "http://x.example/a.png", "detail": "auto" });
    let request = json!({ "input": [
        { "type": "function_call", "call_id": "a", "name": "Read", "arguments": "{}", "id": "fc_1" },
        { "type": "function_call", "call_id": "b", "name": "Read", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "a", "output": [image_part] },
        { "type": "function_call_output", "call_id": "b", "output": "text" },
    ] });
    let expected = json!([
        { "role": "assistant", "content": "", "tool_calls": [call("a", "{}"), call("b", "{}")] },
        { "role": "tool", "tool_call_id": "a", "content": "" },
        { "role": "tool", "tool_call_id": "b", "content": "text" },
        { "role": "user", "content": [image] },
    ]);
    assert_eq!(messages(Wire::Responses, &request), expected);
}

#[test]
fn leading_system_messages_become_one() {
    let request = json!({ "instructions": "A", "input": [
        { "type": "message", "role": "developer", "content": [{ "type": "input_text", "text": "B" }] },
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": [{ "type": "output_text", "text": "Let me look.", "annotations": [] }] },
        { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed" },
        { "role": "developer", "content": "C" },
    ] });
    let calls = json!([{ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } }]);
    let expected = json!([
        { "role": "system", "content": "A\n\nB" },
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": "Let me look.", "tool_calls": calls },
        { "role": "system", "content": "C" },
    ]);
    assert_eq!(messages(Wire::Responses, &request), expected);
}

#[test]
fn structured_output_is_translated() {
    let schema = json!({ "type": "object", "properties": { "b": {}, "a": {} } });
    let format = json!({ "type": "json_schema", "schema": schema });
    let expected = json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema } });
    for config in [
        json!({ "output_config": { "format": format, "effort": "low" } }),
        json!({ "output_format": format }),
    ] {
        let mut request = json!({ "messages": [{ "role": "user", "content": "hi" }] });
        request.as_object_mut().unwrap().append(&mut config.as_object().unwrap().clone());
        assert_eq!(chat(Wire::Messages, &request).unwrap()["response_format"], expected);
    }
    let format = json!({ "type": "json_schema", "name": "n", "schema": schema, "strict": true });
    let request = json!({ "input": "hi", "text": { "format": format, "verbosity": "low" } });
    let expected =
        json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": schema, "strict": true } });
    assert_eq!(chat(Wire::Responses, &request).unwrap()["response_format"], expected);
    let request = json!({ "input": "hi", "text": { "format": { "type": "text" } } });
    assert_eq!(chat(Wire::Responses, &request).unwrap().get("response_format"), None);
}

#[test]
fn schemas_keep_the_order_of_their_keys() {
    let body = r#"{"messages":[],"tools":[{"name":"f","input_schema":{"z":1.0,"a":{"y":1,"b":2}}}]}"#;
    let sent = translate::request(Wire::Messages, body.as_bytes(), "m").unwrap();
    let sent = String::from_utf8(sent).unwrap();
    assert!(sent.contains(r#""parameters":{"z":1.0,"a":{"y":1,"b":2}}"#), "{sent}");
}

#[test]
fn lone_surrogates_are_replaced() {
    let body = br#"{"input":"a\ud83d!"}"#;
    let sent: Value =
        serde_json::from_slice(&translate::request(Wire::Responses, body, "m").unwrap()).unwrap();
    assert_eq!(sent["messages"][0]["content"], "a\u{fffd}!");
}

#[test]
fn untranslatable_fields_are_refused_by_name() {
    let message = |content: Value| json!({ "messages": [{ "role": "user", "content": content }] });
    let cases = [
        (
            Wire::Messages,
            message(json!([{ "type": "text", "text": "x", "citations": [1] }])),
            "citations of content block 'text'",
        ),
        (
            Wire::Messages,
            message(json!([{ "type": "image", "source": { "type": "file", "file_id": "f" } }])),
            "image source 'file'",
        ),
        (
            Wire::Messages,
            message(
                json!([{ "type": "tool_result", "tool_use_id": "a", "content": [{ "type": "tool_reference", "tool_name": "x" }] }]),
            ),
            "content block 'tool_reference'",
        ),
        (
            Wire::Messages,
            json!({ "messages": [], "system": [{ "type": "image", "source": { "type": "url", "url": "x" } }] }),
            "an image in `system`",
        ),
        (
            Wire::Messages,
            json!({ "messages": [], "context_management": { "edits": [{ "type": "clear_tool_uses_20250919" }] } }),
            "context_management 'clear_tool_uses_20250919'",
        ),
        (
            Wire::Messages,
            json!({ "messages": [], "tools": [{ "name": "f", "defer_loading": true }] }),
            "defer_loading of tool 'f'",
        ),
        (Wire::Messages, json!({ "messages": [{ "role": "critic", "content": "x" }] }), "role 'critic'"),
        (Wire::Responses, json!({ "input": "x", "top_logprobs": 3 }), "top_logprobs"),
        (Wire::Responses, json!({ "input": "x", "truncation": "auto" }), "truncation"),
        (Wire::Responses, json!({ "input": "x", "prompt": { "id": "p" } }), "prompt"),
        (Wire::Responses, json!({ "input": "x", "max_tool_calls": 2 }), "max_tool_calls"),
        (
            Wire::Responses,
            json!({ "input": "x", "tool_choice": { "type": "allowed_tools" } }),
            "tool_choice 'allowed_tools'",
        ),
        (
            Wire::Responses,
            json!({ "input": [{ "role": "user", "content": [{ "type": "input_file", "file_id": "f" }] }] }),
            "content part 'input_file'",
        ),
        (
            Wire::Responses,
            json!({ "input": [{ "type": "custom_tool_call", "name": "apply_patch" }] }),
            "input item 'custom_tool_call'",
        ),
    ];
    for (wire, request, what) in cases {
        let expected = format!("{what} cannot be translated for this server");
        assert_eq!(chat(wire, &request), Err(expected), "{request}");
    }
}

#[test]
fn fields_that_ask_for_nothing_pass() {
    let request = json!({
        "input": "x", "background": false, "previous_response_id": null, "conversation": null, "max_tool_calls": null,
        "truncation": "disabled", "top_logprobs": 0, "store": false, "include": ["reasoning.encrypted_content"],
        "reasoning": { "effort": "low" }, "prompt_cache_key": "k", "client_metadata": { "a": "b" },
        "parallel_tool_calls": true, "tools": [], "tool_choice": "auto", "stream": false,
    });
    let expected =
        json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }], "tool_choice": "auto" });
    assert_eq!(chat(Wire::Responses, &request), Ok(expected));
    let request = json!({
        "messages": [{ "role": "user", "content": "x" }], "mcp_servers": [], "container": null, "thinking": { "type": "adaptive" },
        "context_management": { "edits": [{ "type": "clear_thinking_20251015", "keep": "all" }] },
        "tool_choice": { "type": "auto", "disable_parallel_tool_use": true }, "stop_sequences": [],
    });
    let expected =
        json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }], "tool_choice": "auto" });
    assert_eq!(chat(Wire::Messages, &request), Ok(expected));
}

#[test]
fn malformed_requests_say_what_is_wrong() {
    for (wire, body, message) in [
        (Wire::Messages, "{", "the body is not JSON: EOF while parsing an object at line 1 column 1"),
        (Wire::Messages, "[]", "`the body` is not an object"),
        (Wire::Messages, r#"{"messages":{}}"#, "`messages` is not a list"),
        (Wire::Messages, r#"{"messages":[{"role":"user"}]}"#, "a message has no `content`"),
        (Wire::Messages, r#"{"messages":[{"role":7,"content":"x"}]}"#, "`role` is not a string"),
        (Wire::Messages, r#"{"messages":[{"role":"user","content":[{"text":"x"}]}]}"#, "`type` is missing"),
        (Wire::Messages, r#"{"messages":[],"stream":"yes"}"#, "`stream` is not true or false"),
        (Wire::Responses, "{}", "`input` is missing"),
        (Wire::Responses, r#"{"input":7}"#, "`input` is not a list"),
        (
            Wire::Responses,
            r#"{"input":[{"type":"function_call_output","call_id":"c"}]}"#,
            "`output` is missing",
        ),
        (Wire::Responses, r#"{"input":[{"role":"user","content":{}}]}"#, "`content` is not a list"),
    ] {
        let failure = translate::request(wire, body.as_bytes(), "m").unwrap_err();
        assert_eq!((failure.status, failure.message.as_str()), (400, message), "{body}");
    }
    let failure = translate::request(Wire::Messages, b"{\"messages\":\"\xff\"}", "m").unwrap_err();
    assert_eq!(failure.message, "the body is not UTF-8 text");
}

/// The translated stream of chunks, and how it ends.
fn stream(wire: Wire, chunks: &[Value]) -> (String, StreamEnd) {
    let mut translator = Translator::new(wire, "m", stamp());
    let mut out = Vec::new();
    for chunk in chunks {
        translator.push(format!("data: {chunk}\n\n").as_bytes(), &mut out);
    }
    let end = translator.end(&mut out);
    (String::from_utf8(out).unwrap(), end)
}

/// A chunk with the parts of tool calls.
fn calls(calls: &Value) -> Value {
    json!({ "choices": [{ "index": 0, "delta": { "tool_calls": calls } }] })
}

fn finish(reason: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
}

/// The tool calls of a translated message: id, name, arguments.
fn tool_uses(stream: &str) -> Vec<(String, String, String)> {
    let mut uses: Vec<(String, String, String)> = Vec::new();
    for data in stream.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let data: Value = serde_json::from_str(data).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if data["content_block"]["type"] == "tool_use" {
            uses.push((
                text(&data["content_block"]["id"]),
                text(&data["content_block"]["name"]),
                String::new(),
            ));
        }
        if data["delta"]["type"] == "input_json_delta" {
            uses.last_mut().unwrap().2 += &text(&data["delta"]["partial_json"]);
        }
    }
    uses
}

#[test]
fn tool_calls_of_every_server_are_told_apart() {
    let whole = |index: Value, id: Value, name: &str| json!({ "index": index, "id": id, "function": { "name": name, "arguments": "{}" } });
    let expected = [("a", "f", "{}"), ("b", "g", "{}")];
    for chunks in [
        // One after the other, all at once, without an index, all with the index 0.
        vec![
            calls(&json!([whole(0.into(), "a".into(), "f")])),
            calls(&json!([whole(1.into(), "b".into(), "g")])),
        ],
        vec![calls(&json!([whole(0.into(), "a".into(), "f"), whole(1.into(), "b".into(), "g")]))],
        vec![calls(&json!([whole(Value::Null, "a".into(), "f"), whole(Value::Null, "b".into(), "g")]))],
        vec![calls(&json!([whole(0.into(), "a".into(), "f"), whole(0.into(), "b".into(), "g")]))],
        vec![
            calls(&json!([{ "index": 0, "id": "a", "function": { "name": "f", "arguments": "" } }])),
            calls(&json!([{ "index": 0, "id": "a", "function": { "name": "f", "arguments": "{" } }])),
            calls(&json!([{ "index": 0, "function": { "arguments": "}" } }])),
            calls(&json!([{ "index": 1, "id": "b", "function": { "name": "g" } }])),
            calls(&json!([{ "index": 1, "id": null, "function": { "arguments": "{}" } }])),
        ],
    ] {
        let (out, end) = stream(Wire::Messages, &[chunks, vec![finish("stop")]].concat());
        let expected = expected.map(|(id, name, input)| (id.to_owned(), name.to_owned(), input.to_owned()));
        assert_eq!((tool_uses(&out), end), (expected.to_vec(), StreamEnd::Whole), "{out}");
        assert!(out.contains(r#""stop_reason":"tool_use""#), "{out}");
    }
    let nameless = [
        calls(&json!([whole(Value::Null, Value::Null, "f"), whole(Value::Null, Value::Null, "g")])),
        finish("tool_calls"),
    ];
    let ids: Vec<String> =
        tool_uses(&stream(Wire::Messages, &nameless).0).into_iter().map(|call| call.0).collect();
    assert_eq!(ids, ["call_t_0", "call_t_1"]);
}

#[test]
fn mixed_arguments_of_two_calls_end_the_stream() {
    let begin =
        |index: u64| json!([{ "index": index, "id": format!("c{index}"), "function": { "name": "f" } }]);
    let chunks = [
        calls(&begin(0)),
        calls(&begin(1)),
        calls(&json!([{ "index": 0, "function": { "arguments": "{}" } }])),
        finish("tool_calls"),
    ];
    for (wire, last) in [(Wire::Messages, "event: error\n"), (Wire::Responses, "event: response.failed\n")] {
        let (out, end) = stream(wire, &chunks);
        assert_eq!(end, StreamEnd::Failed);
        assert!(out.trim_end().rsplit("\n\n").next().unwrap().starts_with(last), "{out}");
    }
}

#[test]
fn errors_of_the_server_end_the_stream() {
    let text = json!({ "choices": [{ "delta": { "content": "Hi" } }] });
    for failed in [
        json!({ "error": { "message": "out of memory" } }),
        json!({ "object": "error", "message": "out of memory" }),
    ] {
        let (out, end) = stream(Wire::Messages, &[text.clone(), failed, finish("stop")]);
        assert_eq!(end, StreamEnd::Failed);
        let expected = "event: error\ndata: {\"error\":{\"message\":\"out of memory\",\"type\":\"api_error\"},\"type\":\"error\"}\n\n";
        assert!(out.ends_with(expected), "{out}");
    }
    for (bytes, words) in [
        ("error: {\"message\":\"busy\"}\n\n", "busy"),
        ("event: error\ndata: {\"message\":\"busy\"}\n\n", "busy"),
        ("data: {\"choices\":\n\n", "the server sent an event that is not a chunk"),
        ("data: {\"choices\":[{\"finish_reason\":\"error\"}]}\n\n", "with the finish reason `error`"),
    ] {
        let mut translator = Translator::new(Wire::Responses, "m", stamp());
        let mut out = Vec::new();
        translator.push(bytes.as_bytes(), &mut out);
        assert_eq!(translator.ending(), Some(StreamEnd::Failed), "{bytes}");
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("event: response.failed") && out.contains(words), "{out}");
    }
}

#[test]
fn comments_and_numbers_keep_the_stream_open() {
    let mut translator = Translator::new(Wire::Messages, "m", stamp());
    let mut out = Vec::new();
    translator.push(b": keepalive 3/9\n\ndata: null\n\ndata: 7\n\n", &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), ": keepalive 3/9\n\n");
    assert_eq!(translator.ending(), None);
}

#[test]
fn whole_response_to_a_stream_is_streamed() {
    let whole = json!({ "model": "org/m", "choices": [{ "index": 0, "message": { "content": "Hi" }, "finish_reason": "stop" }], "usage": { "prompt_tokens": 1, "completion_tokens": 2 } });
    let mut translator = Translator::new(Wire::Messages, "m", stamp());
    let mut out = Vec::new();
    translator.push_whole(whole.to_string().as_bytes(), &mut out);
    assert_eq!(translator.end(&mut out), StreamEnd::Whole);
    let out = String::from_utf8(out).unwrap();
    assert!(
        out.contains(r#""model":"org/m""#) && out.contains(r#""text":"Hi""#) && out.contains("message_stop"),
        "{out}"
    );
}

const WHOLE: &str = r#"{"model":"org/m","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant",
    "content":"Let me look.","reasoning":"Hm.","tool_calls":[{"id":"c","type":"function","function":{"name":"f",
    "arguments":"{\"a\": 1}"}}]}}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;

#[test]
fn whole_answers_are_translated() {
    let answer = |wire| translate::answer(wire, WHOLE.as_bytes(), "asked", &stamp()).unwrap();
    assert_snapshot!(answer(Wire::Messages), @r#"{"content":[{"signature":"","thinking":"Hm.","type":"thinking"},{"text":"Let me look.","type":"text"},{"id":"c","input":{"a":1},"name":"f","type":"tool_use"}],"id":"msg_t","model":"org/m","role":"assistant","stop_reason":"tool_use","stop_sequence":null,"type":"message","usage":{"input_tokens":3,"output_tokens":4}}"#);
    assert_snapshot!(answer(Wire::Responses), @r#"{"created_at":7,"error":null,"id":"resp_t","incomplete_details":null,"instructions":null,"metadata":{},"model":"org/m","object":"response","output":[{"content":[{"annotations":[],"logprobs":[],"text":"Let me look.","type":"output_text"}],"id":"msg_t_0","role":"assistant","status":"completed","type":"message"},{"arguments":"{\"a\": 1}","call_id":"c","id":"fc_t_1","name":"f","status":"completed","type":"function_call"}],"parallel_tool_calls":true,"status":"completed","temperature":null,"tool_choice":"auto","tools":[],"top_p":null,"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":0},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":7}}"#);
}

#[test]
fn answer_that_is_none_is_a_failure() {
    for (body, message) in [
        ("<html>", "the server's response is not an answer: <html>"),
        (r#"{"choices":[]}"#, r#"the server's response is not an answer: {"choices":[]}"#),
        (r#"{"error":{"message":"boom"}}"#, "boom"),
        (r#"{"choices":[{"message":{"content":"x"}}]}"#, "the server did not finish the answer"),
    ] {
        let failure = translate::answer(Wire::Responses, body.as_bytes(), "m", &stamp()).unwrap_err();
        assert_eq!((failure.status, failure.message.as_str()), (502, message));
    }
    let body = r#"{"choices":[{"finish_reason":"stop","message":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{"}}]}}]}"#;
    let failure = translate::answer(Wire::Messages, body.as_bytes(), "m", &stamp()).unwrap_err();
    assert_eq!(failure.message, "the model called `f` with what is not a JSON object: {");
}

#[test]
fn errors_of_the_server_keep_their_message() {
    let body = br#"{"error":"model 'x' not found"}"#;
    assert_snapshot!(translate::error(Wire::Messages, 404, body), @r#"{"error":{"message":"model 'x' not found","type":"not_found_error"},"type":"error"}"#);
}

#[test]
fn tokens_are_estimated_from_the_texts() {
    let count = |request: Value| {
        let counted = translate::count_tokens(request.to_string().as_bytes()).unwrap();
        serde_json::from_str::<Value>(&counted).unwrap()["input_tokens"].as_u64().unwrap()
    };
    let short = json!({ "model": "m", "messages": [{ "role": "user", "content": "x".repeat(400) }] });
    let mut long = short.clone();
    long["system"] = "y".repeat(4000).into();
    long["tools"] = json!([{ "name": "f", "description": "z".repeat(400), "input_schema": {} }]);
    assert_eq!(count(short), 104);
    assert_eq!(count(long), 104 + 1004 + 102);
    assert!(translate::count_tokens(b"{\"messages\":7}").is_err());
}
