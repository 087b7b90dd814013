//! A request for chat completions, as the translators write it: values that are only passed on keep their bytes.

mod messages;
mod object;
mod responses;

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::wire::{ApiFailure, Wire};

/// Bytes of text in a token, for an estimate.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens around each message.
const TOKENS_PER_MESSAGE: u64 = 4;

/// Tokens of an image.
const TOKENS_PER_IMAGE: u64 = 1500;

/// Reads a request of `wire` into one for `model`.
pub(super) fn read<'a>(wire: Wire, body: &'a [u8], model: &'a str) -> Result<ChatRequest<'a>, ApiFailure> {
    let body = str::from_utf8(body).map_err(|_| ApiFailure::new(400, "the body is not UTF-8 text"))?;
    match wire {
        Wire::Messages => messages::chat_request(body, model),
        Wire::Responses => responses::chat_request(body, model),
        Wire::Chat => Err(ApiFailure::new(400, "a chat completion needs no translation")),
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ChatRequest<'a> {
    pub model: &'a str,
    pub messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ChatTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct StreamOptions {
    pub include_usage: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    pub role: &'static str,
    pub content: Content<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ContentPart<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: ImageUrl<'a> },
}

#[derive(Debug, Serialize)]
pub(super) struct ImageUrl<'a> {
    pub url: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'a, str>>,
}

/// A tool call of an earlier answer.
#[derive(Debug, Serialize)]
pub(super) struct Call<'a> {
    pub id: Cow<'a, str>,
    pub r#type: &'static str,
    pub function: CalledFunction<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct CalledFunction<'a> {
    pub name: Cow<'a, str>,
    /// JSON as text.
    pub arguments: Cow<'a, str>,
}

#[derive(Debug, Serialize)]
pub(super) struct ChatTool<'a> {
    pub r#type: &'static str,
    pub function: Function<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct Function<'a> {
    pub name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ToolChoice<'a> {
    /// `auto`, `none` or `required`.
    Mode(&'static str),
    Named {
        r#type: &'static str,
        function: ToolName<'a>,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct ToolName<'a> {
    pub name: Cow<'a, str>,
}

impl<'a> ToolChoice<'a> {
    pub(super) fn named(name: Cow<'a, str>) -> Self {
        Self::Named { r#type: "function", function: ToolName { name } }
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ResponseFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: JsonSchema<'a> },
}

#[derive(Debug, Serialize)]
pub(super) struct JsonSchema<'a> {
    pub name: Cow<'a, str>,
    pub schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<&'a RawValue>,
}

impl<'a> ChatRequest<'a> {
    pub(super) fn new(model: &'a str, messages: Vec<Message<'a>>, stream: bool) -> Self {
        Self {
            model,
            messages,
            max_tokens: None,
            temperature: None,
            top_p: None,
            stop: None,
            stream: stream.then_some(true),
            stream_options: stream.then_some(StreamOptions { include_usage: true }),
            tools: Vec::new(),
            tool_choice: None,
            response_format: None,
        }
    }

    /// Estimates the number of tokens of the prompt. Only the server's own tokenizer knows it.
    pub(super) fn estimated_tokens(&self) -> u64 {
        let messages: u64 = self.messages.iter().map(Message::estimated_tokens).sum();
        let tool = |tool: &ChatTool<'_>| {
            let raw = |value: Option<&RawValue>| value.map_or(0, |value| value.get().len());
            let function = &tool.function;
            tokens(function.name.len() + raw(function.description) + raw(function.parameters))
        };
        messages + self.tools.iter().map(tool).sum::<u64>()
    }
}

impl<'a> Message<'a> {
    pub(super) fn new(role: &'static str, content: Content<'a>) -> Self {
        Self { role, content, tool_calls: Vec::new(), tool_call_id: None }
    }

    fn estimated_tokens(&self) -> u64 {
        let content = match &self.content {
            Content::Text(text) => tokens(text.len()),
            Content::Parts(parts) => parts.iter().map(ContentPart::estimated_tokens).sum(),
        };
        let calls =
            self.tool_calls.iter().map(|call| call.function.name.len() + call.function.arguments.len());
        content + tokens(calls.sum()) + TOKENS_PER_MESSAGE
    }
}

impl<'a> Content<'a> {
    /// Returns the parts as one text if they have no image.
    pub(super) fn of(parts: Vec<ContentPart<'a>>) -> Self {
        let is_text = |part: &ContentPart<'_>| matches!(part, ContentPart::Text { .. });
        if !parts.iter().all(is_text) {
            return Self::Parts(parts);
        }
        let mut texts = parts.into_iter().filter_map(|part| match part {
            ContentPart::Text { text } => Some(text),
            ContentPart::ImageUrl { .. } => None,
        });
        let first = texts.next().unwrap_or_default();
        Self::Text(texts.fold(first, |all, text| all + text))
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Parts(parts) => parts.is_empty(),
        }
    }
}

impl ContentPart<'_> {
    fn estimated_tokens(&self) -> u64 {
        match self {
            Self::Text { text } => tokens(text.len()),
            Self::ImageUrl { .. } => TOKENS_PER_IMAGE,
        }
    }
}

fn tokens(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX).div_ceil(BYTES_PER_TOKEN)
}
