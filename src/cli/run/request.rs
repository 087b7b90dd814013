//! The body of the request: the configuration, a kept prompt over it, the command line over both.

use serde_json::{Map, Value, json};

use super::Args;
use crate::core::config::{Prompt, RunSettings};
use crate::core::runtimes::Runtime;

/// What is sent, and how its answer is to be printed.
pub(super) struct Request {
    /// The body of `POST /v1/chat/completions`, without a field that is null: some servers stumble over those.
    pub body: Value,
    /// The answer is printed as it is made, and not when it is complete.
    pub prints_as_made: bool,
}

/// Makes the request.
pub(super) fn request(
    runtime: &dyn Runtime,
    config: &RunSettings,
    kept: Option<&Prompt>,
    args: &Args,
    model: &str,
    messages: Value,
    schema: Option<&Value>,
) -> Request {
    let mut body = Map::new();
    let stop = |texts: &[String]| (!texts.is_empty()).then(|| json!(texts));
    put(
        &mut body,
        [
            ("temperature", Some(json!(config.temperature))),
            ("stream", Some(json!(config.stream))),
            ("max_tokens", config.max_tokens.map(Value::from)),
            ("top_p", config.top_p.map(Value::from)),
            ("seed", config.seed.map(Value::from)),
            ("stop", stop(&config.stop)),
        ],
    );
    body.extend(config.extra_body.clone());
    let temperature = args.temperature.or(kept.and_then(|prompt| prompt.temperature));
    put(
        &mut body,
        [
            ("model", Some(json!(model))),
            ("messages", Some(messages)),
            ("temperature", temperature.map(Value::from)),
            ("stream", args.streams().map(Value::from)),
            ("max_tokens", args.max_tokens.map(Value::from)),
            ("top_p", args.top_p.map(Value::from)),
            ("seed", args.seed.map(Value::from)),
            ("stop", stop(&args.stop)),
            ("response_format", schema.map(response_format)),
        ],
    );
    body.extend(args.options.iter().cloned());
    if let Some(stop) = body.get_mut("stop") {
        *stop = stop_texts(stop);
    }
    let prints_as_made = body.get("stream") == Some(&json!(true));
    let is_streamed = prints_as_made || runtime.whole_answers_outlive_their_client();
    if is_streamed {
        body.insert("stream".to_owned(), json!(true));
        body.entry("stream_options").or_insert_with(|| json!({ "include_usage": true }));
    }
    body.retain(|_, value| !value.is_null());
    Request { body: Value::Object(body), prints_as_made }
}

/// Texts only: by anything else the thread of `mlx_lm.server` that generates dies, for everybody.
fn stop_texts(stop: &Value) -> Value {
    match stop {
        Value::Null | Value::String(_) => stop.clone(),
        Value::Array(texts) => texts.iter().filter(|text| !text.is_null()).map(stop_texts).collect(),
        other => json!(other.to_string()),
    }
}

/// Sets the fields that have a value.
fn put<const N: usize>(body: &mut Map<String, Value>, fields: [(&str, Option<Value>); N]) {
    body.extend(fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
}

/// <https://platform.openai.com/docs/guides/structured-outputs>
fn response_format(schema: &Value) -> Value {
    json!({ "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": schema } })
}

/// `KEY=VALUE`, where VALUE is JSON if it is that, and else text.
pub(super) fn parse_option(option: &str) -> Result<(String, Value), String> {
    match option.split_once('=') {
        // What is looked up, started and reported is the model of its own option.
        Some(("model", _)) => Err("the model is named with --model".to_owned()),
        Some((key, value)) if !key.is_empty() => {
            Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value))))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
