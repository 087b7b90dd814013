//! A model that calls tools, for coding agents: a first turn with one call, and a last one with a text, on each of
//! the three wires that agents speak.

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::Fake;
use crate::server::{Request, response};

/// What the model says after the tool has run.
const DONE: &str = "The file is written.";

/// Answers a request of an agent if the fault `runs=COMMAND` is set: the first tool that runs commands is called with
/// it. A server of MLX has only chat completions.
pub(crate) fn answer(fake: &Fake, stream: &mut TcpStream, request: &Request) -> Option<std::io::Result<()>> {
    let command = fake.faults.text("runs")?;
    let path = request.line.split('?').next().unwrap_or_default();
    let body = &request.body;
    let events = match path {
        "POST /v1/chat/completions" if body["tools"].is_array() => chat(call(command, body)),
        "POST /v1/responses" if !fake.mlx => responses(call(command, body)),
        "POST /v1/messages" if !fake.mlx => messages(call(command, body)),
        "POST /v1/messages/count_tokens" if !fake.mlx => {
            return Some(response(fake, stream, 200, &json!({ "input_tokens": 100 })));
        }
        _ => return None,
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    Some(stream.write_all(format!("{head}{events}").as_bytes()))
}

/// Returns the name and the arguments of the tool to call; `None` when a tool has run, or there is none.
fn call(command: &str, body: &Value) -> Option<(String, Value)> {
    let text = body.to_string();
    let has_result = ["\"role\":\"tool\"", "\"type\":\"tool_result\"", "\"type\":\"function_call_output\""]
        .iter()
        .any(|mark| text.contains(mark));
    if has_result {
        return None;
    }
    let tools = body["tools"].as_array()?;
    let described = |tool: &Value| {
        let function = if tool["function"].is_object() { &tool["function"] } else { tool };
        let name = function["name"].as_str()?.to_owned();
        let schema =
            [&function["parameters"], &function["input_schema"]].into_iter().find(|one| one.is_object())?;
        Some((name, schema.clone()))
    };
    let tools: Vec<(String, Value)> = tools.iter().filter_map(described).collect();
    let runs_commands = |(_, schema): &&(String, Value)| {
        schema["properties"]["command"].is_object() || schema["properties"]["cmd"].is_object()
    };
    let (name, schema) = tools.iter().find(runs_commands).or(tools.first())?;
    Some((name.clone(), arguments(command, schema)))
}

/// Returns arguments that satisfy the schema of the tool.
fn arguments(command: &str, schema: &Value) -> Value {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let is_given = |name: &str| required.contains(&name) || name == "command" || name == "cmd";
    let value = |name: &str, property: &Value| match (name, property["type"].as_str()) {
        ("command", Some("array")) => json!(["bash", "-c", command]),
        ("command" | "cmd", _) => json!(command),
        (_, Some("number" | "integer")) => json!(1),
        (_, Some("boolean")) => json!(false),
        _ => json!("Paris"),
    };
    let given = properties.iter().filter(|(name, _)| is_given(name));
    given
        .map(|(name, property)| (name.clone(), value(name, property)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn chat(call: Option<(String, Value)>) -> String {
    let (delta, reason) = match call {
        Some((name, arguments)) => {
            let function = json!({ "name": name, "arguments": arguments.to_string() });
            let call = json!({ "index": 0, "id": "call_1", "type": "function", "function": function });
            (json!({ "role": "assistant", "tool_calls": [call] }), "tool_calls")
        }
        None => (json!({ "role": "assistant", "content": DONE }), "stop"),
    };
    let chunk = |delta: &Value, reason: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": reason });
        let usage = json!({ "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110 });
        let usage = if reason.is_some() { usage } else { Value::Null };
        let chunk = json!({
            "id": "fake", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": [choice],
            "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    format!("{}{}data: [DONE]\n\n", chunk(&delta, None), chunk(&json!({}), Some(reason)))
}

fn responses(call: Option<(String, Value)>) -> String {
    let item = match call {
        Some((name, arguments)) => json!({
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name,
            "arguments": arguments.to_string(), "status": "completed",
        }),
        None => json!({
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{ "type": "output_text", "text": DONE, "annotations": [] }],
        }),
    };
    let usage = json!({ "input_tokens": 100, "output_tokens": 10, "total_tokens": 110 });
    [
        ("response.created", json!({ "response": { "id": "resp_1" } })),
        ("response.output_item.done", json!({ "output_index": 0, "item": item })),
        (
            "response.completed",
            json!({ "response": { "id": "resp_1", "status": "completed", "usage": usage } }),
        ),
    ]
    .into_iter()
    .map(|(name, mut data)| {
        data["type"] = json!(name);
        event(name, &data)
    })
    .collect()
}

fn messages(call: Option<(String, Value)>) -> String {
    let (block, delta, reason) = match call {
        Some((name, arguments)) => (
            json!({ "type": "tool_use", "id": "toolu_1", "name": name, "input": {} }),
            json!({ "type": "input_json_delta", "partial_json": arguments.to_string() }),
            "tool_use",
        ),
        None => {
            (json!({ "type": "text", "text": "" }), json!({ "type": "text_delta", "text": DONE }), "end_turn")
        }
    };
    let usage = json!({ "input_tokens": 100, "output_tokens": 1 });
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "fake", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage,
    });
    [
        ("message_start", json!({ "message": message })),
        ("content_block_start", json!({ "index": 0, "content_block": block })),
        ("content_block_delta", json!({ "index": 0, "delta": delta })),
        ("content_block_stop", json!({ "index": 0 })),
        (
            "message_delta",
            json!({ "delta": { "stop_reason": reason, "stop_sequence": null }, "usage": { "output_tokens": 10 } }),
        ),
        ("message_stop", json!({})),
    ]
    .into_iter()
    .map(|(name, mut data)| {
        data["type"] = json!(name);
        event(name, &data)
    })
    .collect()
}
