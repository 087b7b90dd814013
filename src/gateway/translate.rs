//! Anthropic's `/v1/messages` and OpenAI's `/v1/responses` for servers that have only chat completions: requests one
//! way, answers and errors the other.

mod completion;
mod request;
mod stream;

use self::completion::Completion;
use super::wire::{ApiFailure, Wire};
use crate::core::api::error::ServerError;

pub use self::stream::{StreamEnd, Translator};

/// The path of the requests that the translators write.
pub const CHAT_PATH: &str = "/v1/chat/completions";

/// The identity of an answer, from which ids of messages and calls are made.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// A part of ids, different for each answer.
    pub tag: String,
    /// Seconds since 1970.
    pub created_at: u64,
}

/// Translates a request into a chat completion request for `model`.
pub fn request(wire: Wire, body: &[u8], model: &str) -> Result<Vec<u8>, ApiFailure> {
    let chat = request::read(wire, body, model)?;
    serde_json::to_vec(&chat)
        .map_err(|error| ApiFailure::new(500, format!("cannot write the request: {error}")))
}

/// Returns the body of the response to `/v1/messages/count_tokens`, which is an estimate: only the server's own
/// tokenizer knows the number.
pub fn count_tokens(body: &[u8]) -> Result<String, ApiFailure> {
    let chat = request::read(Wire::Messages, body, "")?;
    Ok(serde_json::json!({ "input_tokens": chat.estimated_tokens() }).to_string())
}

/// Translates a whole chat completion. `model` is the one asked for, if the server names none.
pub fn answer(wire: Wire, body: &[u8], model: &str, stamp: &Stamp) -> Result<String, ApiFailure> {
    let completion = Completion::read(body)?;
    let model = completion.model.as_deref().unwrap_or(model);
    let answer = match wire {
        Wire::Messages => completion.message(model, stamp)?,
        Wire::Responses | Wire::Chat => completion.response(model, stamp),
    };
    Ok(answer.to_string())
}

/// Translates the body of an error response.
pub fn error(wire: Wire, status: u16, body: &[u8]) -> String {
    wire.error_body(&ApiFailure::new(status, ServerError::from_response(status, body).message))
}
