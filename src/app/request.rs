//! Builds the body of a chat completion.
//!
//! Precedence: command line, saved prompt, `[models]`, the service's own table.

use serde_json::{Map, Value, json};

use super::app::App;
pub use crate::core::config::RESERVED_FIELDS;
use crate::core::config::{ModelSettings, RunSettings, SavedPrompt};
use crate::core::models::Model;
use crate::core::services::ManagedService;

/// Settings of one request, which override the saved prompt and the configuration.
#[derive(Debug, Default)]
pub struct Overrides<'a> {
    /// As the user named it.
    pub model: Option<&'a str>,
    /// System message; an empty one is not sent.
    pub system: Option<&'a str>,
    pub temperature: Option<f64>,
    pub max_tokens: Option<u32>,
    pub top_p: Option<f64>,
    pub seed: Option<u64>,
    /// Stop sequences.
    pub stop: &'a [String],
    /// JSON Schema of the answer.
    pub schema: Option<&'a Value>,
    /// Any other fields of the body; null removes a field.
    pub fields: &'a [(String, Value)],
}

/// The user's part of the conversation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Question {
    pub text: String,
    /// Images as `data:` URLs.
    pub images: Vec<String>,
}

/// A request that can be sent.
#[derive(Debug)]
pub struct Request {
    /// The model by the server's name for it; the name is empty if no model is set.
    pub model: Model,
    /// The body of `POST /v1/chat/completions`, identical for every runtime. Without null fields, which some servers
    /// reject. Always streamed, because every server then stops when the client disconnects.
    pub body: Value,
}

impl App {
    /// Builds the request for a question to `service`.
    pub fn request(
        &self,
        service: &ManagedService,
        question: &Question,
        saved: Option<&SavedPrompt>,
        overrides: &Overrides<'_>,
    ) -> Request {
        let settings = &service.settings.run;
        let configured = || {
            let saved = saved.and_then(|prompt| prompt.model.as_ref());
            self.configured_model(service, saved.unwrap_or(&settings.model))
        };
        let model = overrides.model.map_or_else(configured, |name| self.model(service, name));
        let of_model = self.model_settings(service, &model.name);
        let saved_system = || saved.and_then(|prompt| prompt.system.as_deref());
        let system = overrides.system.or_else(saved_system);
        let messages = question.messages(system.unwrap_or_else(|| self.system_prompt(service, &model.name)));
        let body = body(&Layers { settings, of_model, saved, overrides }, &model.name, messages);
        Request { model, body }
    }

    /// Returns the system message for the model with this resolved name, as the configuration says.
    pub fn system_prompt<'a>(&'a self, service: &'a ManagedService, model: &str) -> &'a str {
        let of_model =
            self.model_settings(service, model).and_then(|settings| settings.system_prompt.as_deref());
        of_model.unwrap_or(&service.settings.run.system_prompt)
    }
}

impl Question {
    /// Returns the content of the user message: the text, or a list of parts if there are images.
    pub fn content(&self) -> Value {
        let text = || json!({ "type": "text", "text": self.text });
        let image = |url: &String| json!({ "type": "image_url", "image_url": { "url": url } });
        match self.images.as_slice() {
            [] => json!(self.text),
            images if self.text.is_empty() => images.iter().map(image).collect(),
            images => images.iter().map(image).chain([text()]).collect(),
        }
    }

    /// Returns the messages of the request: the system message if it is not empty, then the user message.
    pub fn messages(&self, system: &str) -> Value {
        let user = json!({ "role": "user", "content": self.content() });
        if system.is_empty() {
            return json!([user]);
        }
        json!([{ "role": "system", "content": system }, user])
    }
}

/// What decides about the fields of a request; what comes later wins.
struct Layers<'a> {
    settings: &'a RunSettings,
    of_model: Option<&'a ModelSettings>,
    saved: Option<&'a SavedPrompt>,
    overrides: &'a Overrides<'a>,
}

fn body(layers: &Layers<'_>, model: &str, messages: Value) -> Value {
    let Layers { settings, of_model, saved, overrides } = layers;
    let mut body = Map::new();
    let stop = |texts: &[String]| (!texts.is_empty()).then(|| json!(texts));
    put(
        &mut body,
        [
            ("temperature", Some(json!(settings.temperature))),
            ("stream_options", Some(json!({ "include_usage": true }))),
            ("max_tokens", settings.max_tokens.map(Value::from)),
            ("top_p", settings.top_p.map(Value::from)),
            ("seed", settings.seed.map(Value::from)),
            ("stop", stop(&settings.stop)),
        ],
    );
    body.extend(settings.extra_body.clone());
    let temperature = overrides
        .temperature
        .or(saved.and_then(|prompt| prompt.temperature))
        .or(of_model.and_then(|settings| settings.temperature));
    put(
        &mut body,
        [
            ("temperature", temperature.map(Value::from)),
            ("max_tokens", overrides.max_tokens.map(Value::from)),
            ("top_p", overrides.top_p.map(Value::from)),
            ("seed", overrides.seed.map(Value::from)),
            ("stop", stop(overrides.stop)),
            ("response_format", overrides.schema.map(response_format)),
        ],
    );
    body.extend(overrides.fields.iter().cloned());
    if let Some(stop) = body.get_mut("stop") {
        *stop = stop_texts(stop);
    }
    put(
        &mut body,
        [("model", Some(json!(model))), ("messages", Some(messages)), ("stream", Some(json!(true)))],
    );
    body.retain(|_, value| !value.is_null());
    Value::Object(body)
}

/// Converts stop sequences to strings: any other type ends the generating thread of `mlx_lm.server`, for every client.
/// Leaves out empty ones: other servers stop at them before the first token.
fn stop_texts(stop: &Value) -> Value {
    match stop {
        Value::String(text) if text.is_empty() => Value::Null,
        Value::Null | Value::String(_) => stop.clone(),
        Value::Array(texts) => texts.iter().map(stop_texts).filter(|text| !text.is_null()).collect(),
        other => json!(other.to_string()),
    }
}

/// Sets the fields whose value is `Some`.
fn put<const N: usize>(body: &mut Map<String, Value>, fields: [(&str, Option<Value>); N]) {
    body.extend(fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
}

/// <https://platform.openai.com/docs/guides/structured-outputs>
pub(super) fn response_format(schema: &Value) -> Value {
    json!({ "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": schema } })
}
