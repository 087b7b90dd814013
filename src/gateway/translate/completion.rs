//! A whole answer of chat completions, and its form on the other wires.

use serde_json::{Value, json};

use super::super::wire::ApiFailure;
use super::Stamp;
use crate::core::api::chat::TokenUsage;
use crate::core::api::chat::chunk::{Anything, Chunk};
use crate::core::api::chat::without_lone_halves;
use crate::core::api::error::{ServerError, clean};

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// The model ended its answer.
    End,
    /// The token limit.
    Length,
    /// A filter of the server.
    Filtered,
}

impl Finish {
    /// Reads a finish reason; `None` for the one that reports a failure.
    pub(super) fn of(reason: &str) -> Option<Self> {
        match reason {
            "length" => Some(Self::Length),
            "content_filter" => Some(Self::Filtered),
            "error" => None,
            _ => Some(Self::End),
        }
    }

    /// Returns the `stop_reason` of an Anthropic message.
    pub(super) fn stop_reason(self, has_calls: bool) -> &'static str {
        match self {
            Self::Length => "max_tokens",
            Self::Filtered => "refusal",
            Self::End if has_calls => "tool_use",
            Self::End => "end_turn",
        }
    }

    /// Returns why a response is incomplete.
    pub(super) fn incomplete_reason(self) -> Option<&'static str> {
        match self {
            Self::End => None,
            Self::Length => Some("max_output_tokens"),
            Self::Filtered => Some("content_filter"),
        }
    }
}

/// A tool call of the answer.
#[derive(Debug)]
pub(super) struct CompletionCall {
    pub id: String,
    pub name: String,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

#[derive(Debug)]
pub(super) struct Completion {
    pub model: Option<String>,
    text: String,
    reasoning: String,
    calls: Vec<CompletionCall>,
    finish: Finish,
    usage: Option<TokenUsage>,
}

impl Completion {
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiFailure> {
        let text = String::from_utf8_lossy(body);
        let mended = without_lone_halves(&text);
        let text = mended.as_deref().unwrap_or(&text);
        let not_an_answer =
            || ApiFailure::new(502, format!("the server's response is not an answer: {}", clean(text)));
        let chunk: Chunk<'_> = serde_json::from_str(text).map_err(|_| not_an_answer())?;
        if chunk.error.is_said() {
            return Err(ApiFailure::new(502, ServerError::from_event(text).message));
        }
        let model = model(&chunk).map(str::to_owned);
        let choice = chunk.choices.into_iter().find(|choice| choice.index == 0).ok_or_else(not_an_answer)?;
        let message = choice.message.unwrap_or_default();
        let finish = Finish::of(&choice.finish_reason.0).filter(|_| !choice.finish_reason.is_empty());
        let reasoning =
            if message.reasoning_content.is_empty() { message.reasoning } else { message.reasoning_content };
        let calls = message.tool_calls.into_iter().map(|call| CompletionCall {
            id: call.id.unwrap_or_default(),
            name: call.name.unwrap_or_default(),
            arguments: call.arguments.unwrap_or_default(),
        });
        Ok(Self {
            model,
            text: message.content.0.into_owned(),
            reasoning: reasoning.0.into_owned(),
            calls: calls.collect(),
            finish: finish.ok_or_else(|| ApiFailure::new(502, "the server did not finish the answer"))?,
            usage: chunk.usage,
        })
    }

    /// Returns it as an Anthropic message.
    pub(super) fn message(&self, model: &str, stamp: &Stamp) -> Result<Value, ApiFailure> {
        let mut content = Vec::new();
        if !self.reasoning.is_empty() {
            content.push(json!({ "type": "thinking", "thinking": self.reasoning, "signature": "" }));
        }
        if !self.text.is_empty() {
            content.push(json!({ "type": "text", "text": self.text }));
        }
        for (number, call) in self.calls.iter().enumerate() {
            let input = if call.arguments.is_empty() { "{}" } else { &call.arguments };
            let input: Value =
                serde_json::from_str(input).ok().filter(Value::is_object).ok_or_else(|| {
                    let arguments = clean(&call.arguments);
                    ApiFailure::new(
                        502,
                        format!(
                            "the model called `{}` with what is not a JSON object: {arguments}",
                            call.name
                        ),
                    )
                })?;
            let id = call_id(&call.id, stamp, number);
            content.push(json!({ "type": "tool_use", "id": id, "name": call.name, "input": input }));
        }
        let usage = self.usage.unwrap_or_default();
        Ok(json!({
            "id": format!("msg_{}", stamp.tag), "type": "message", "role": "assistant", "model": model,
            "content": content, "stop_reason": self.finish.stop_reason(!self.calls.is_empty()),
            "stop_sequence": null,
            "usage": { "input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens },
        }))
    }

    /// Returns it as a response of OpenAI's.
    pub(super) fn response(&self, model: &str, stamp: &Stamp) -> Value {
        let mut output = Vec::new();
        if !self.text.is_empty() || self.calls.is_empty() {
            output.push(message_item(&item_id("msg", stamp, 0), "completed", Some(&self.text)));
        }
        for (number, call) in self.calls.iter().enumerate() {
            let id = item_id("fc", stamp, output.len());
            let call = CompletionCall {
                id: call_id(&call.id, stamp, number),
                name: call.name.clone(),
                arguments: call.arguments.clone(),
            };
            output.push(call_item(&id, "completed", &call));
        }
        let state = match self.finish.incomplete_reason() {
            None => ResponseState::Completed(self.usage),
            Some(reason) => ResponseState::Incomplete(reason, self.usage),
        };
        response_object(model, stamp, &output, &state)
    }
}

/// Returns the model that a chat completion names.
pub(super) fn model<'c>(chunk: &'c Chunk<'_>) -> Option<&'c str> {
    match &chunk.model {
        Anything::Text(model) if !model.is_empty() => Some(model.as_ref()),
        _ => None,
    }
}

/// Returns the id of a call, for servers that give none.
pub(super) fn call_id(id: &str, stamp: &Stamp, number: usize) -> String {
    if id.is_empty() { format!("call_{}_{number}", stamp.tag) } else { id.to_owned() }
}

/// Returns the id of an item of a response's output.
pub(super) fn item_id(kind: &str, stamp: &Stamp, index: usize) -> String {
    format!("{kind}_{}_{index}", stamp.tag)
}

pub(super) fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// Returns an output item of text; without `text` it has no content yet.
pub(super) fn message_item(id: &str, status: &str, text: Option<&str>) -> Value {
    let content: Vec<Value> = text.map(text_part).into_iter().collect();
    json!({ "id": id, "type": "message", "role": "assistant", "status": status, "content": content })
}

pub(super) fn call_item(id: &str, status: &str, call: &CompletionCall) -> Value {
    json!({
        "id": id, "type": "function_call", "status": status, "call_id": call.id, "name": call.name,
        "arguments": call.arguments,
    })
}

/// The phase of a response.
#[derive(Debug)]
pub(super) enum ResponseState<'a> {
    InProgress,
    Completed(Option<TokenUsage>),
    Incomplete(&'static str, Option<TokenUsage>),
    Failed(&'a ApiFailure),
}

pub(super) fn response_object(
    model: &str,
    stamp: &Stamp,
    output: &[Value],
    state: &ResponseState<'_>,
) -> Value {
    let (status, usage) = match state {
        ResponseState::InProgress => ("in_progress", None),
        ResponseState::Completed(usage) => ("completed", *usage),
        ResponseState::Incomplete(_, usage) => ("incomplete", *usage),
        ResponseState::Failed(_) => ("failed", None),
    };
    let error = match state {
        ResponseState::Failed(failure) => {
            json!({ "code": failure.code.unwrap_or("server_error"), "message": failure.message })
        }
        _ => Value::Null,
    };
    let details = match state {
        ResponseState::Incomplete(reason, _) => json!({ "reason": reason }),
        _ => Value::Null,
    };
    json!({
        "id": format!("resp_{}", stamp.tag), "object": "response", "created_at": stamp.created_at, "status": status,
        "error": error, "incomplete_details": details, "instructions": null, "model": model, "output": output,
        "parallel_tool_calls": true, "temperature": null, "tool_choice": "auto", "tools": [], "top_p": null,
        "metadata": {}, "usage": usage.map(response_usage),
    })
}

fn response_usage(usage: TokenUsage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": usage.completion_tokens, "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
    })
}
