//! One prompt over `POST /v1/chat/completions`: sends the request, and delivers the answer as it arrives, streamed or
//! not.
//!
//! An answer is complete once choice 0 has a non-empty `finish_reason`. `[DONE]` and the end of the stream both end
//! the response; without a finish reason the answer is incomplete.

mod arrivals;
pub mod chunk;
mod reading;
mod repetition;
mod shape;
mod split;

use std::io::{self, Read};
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use ureq::http::{self, header};

use self::reading::{Reading, read};
use super::error::{self, ServerError};
use super::sse::TooLong;
use super::{ApiError, CHAT_PATH, Client, MAX_RESPONSE_BYTES};

pub use self::arrivals::Arrivals;
pub use self::chunk::{TokenUsage, without_lone_halves};

/// Takes an answer as it arrives. An error of a receiver ends the answer and closes the connection.
pub trait Receiver {
    /// Starts the clock: the request is about to be sent.
    fn begin(&mut self) {}

    /// Takes the next part of the text.
    fn text(&mut self, text: &str) -> io::Result<()>;

    /// Takes the next part of the reasoning, which precedes the text.
    fn reasoning(&mut self, text: &str) -> io::Result<()>;

    /// Takes the prefill progress: the server has processed `done` of the `total` tokens of the prompt.
    fn progress(&mut self, done: u64, total: u64);

    /// Shows what was delivered so far, because the next part may take long. Not called after the last part.
    fn flush(&mut self) -> io::Result<()>;
}

/// An answer without its text. If it is incomplete, the known part.
#[derive(Debug, Default)]
pub struct Answer {
    /// The model that answered, as the response names it.
    pub model: Option<String>,
    /// Why it ended, in the server's words: `stop`, `length`, `tool_calls`, `content_filter` ...
    pub finish_reason: Option<String>,
    pub usage: Option<TokenUsage>,
    /// The tool calls that the model requests.
    pub tool_calls: Vec<ToolCall>,
    /// Whether it arrived as a stream.
    pub streamed: bool,
}

/// A tool call that the model requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ToolCall {
    /// The id under which a client would report the result.
    pub id: String,
    /// The name of the tool.
    pub name: String,
    /// The arguments: JSON, as the model wrote it.
    pub arguments: String,
}

/// The outcome of a chat request.
#[derive(Debug)]
pub struct ChatOutcome {
    /// The known part of the answer.
    pub answer: Answer,
    /// Whether the answer is complete, or why not.
    pub result: Result<(), ChatError>,
    /// Time of the finish reason. Later bytes are not part of the answer.
    pub finished: Option<Instant>,
    pub arrivals: Arrivals,
}

impl ChatOutcome {
    /// Returns the outcome of a request to a server that has no address yet.
    pub fn unsent() -> Self {
        Self {
            answer: Answer::default(),
            result: Err(ChatError::NoServer),
            finished: None,
            arrivals: Arrivals::default(),
        }
    }

    /// Returns whether no request was sent, because no connection could be made.
    pub fn is_unsent(&self) -> bool {
        matches!(self.result, Err(ChatError::Api(ApiError::Connect { .. }) | ChatError::NoServer))
    }
}

/// Why there is no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// There is no server to send the request to.
    #[error("the server is not running")]
    NoServer,
    /// The request failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server reports an error.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The answer ended without a finish reason.
    #[error("the answer ended before it was finished: no finish reason was sent")]
    Cut,
    /// The process that has the model ended; Ollama names no model from then on.
    #[error("the process of the model ended before the answer was finished")]
    ModelDied,
    /// The last token came so often in a row that the server ended the answer.
    #[error("the server ended the answer, because the model repeated itself")]
    Repetition,
    #[error("the response is empty")]
    Empty,
    /// A successful response without content, which no server gives to a prompt.
    #[error("the server answered HTTP {status} without content")]
    NoContent { status: u16 },
    /// The response is not a chat completion.
    #[error("the response is not an answer: {words}")]
    NotAnAnswer {
        /// A description of the response, or its beginning.
        words: String,
    },
    /// The event or response is malformed.
    #[error("malformed response: {words}")]
    Malformed {
        /// Its beginning.
        words: String,
    },
    /// The server compressed the response, which fusion did not request.
    #[error("the response is compressed ({encoding}), which fusion did not request")]
    Compressed { encoding: String },
    /// The event or response is too long for an answer.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The receiver failed.
    #[error("cannot write the answer")]
    Receiver(#[source] io::Error),
}

impl Client {
    /// Sends a chat completion request, and delivers the answer to `receiver` as it arrives.
    pub fn chat(&self, body: &Value, receiver: &mut dyn Receiver) -> ChatOutcome {
        let mut reading = Reading::new(body, self.idle_timeout.as_ref(), receiver);
        let result = self.open(body);
        let result = result.and_then(|response| read(response, &mut reading, &|error| self.broken(error)));
        reading.outcome(result)
    }

    /// Returns the error for a connection that fails after the response has started.
    fn broken(&self, error: io::Error) -> ChatError {
        match self.error(error.into()) {
            ApiError::Protocol { source, .. } => {
                ChatError::Malformed { words: error::clean(&source.to_string()) }
            }
            // The connection existed, so the server closed it.
            ApiError::Connect { address, .. } => ApiError::Closed { address }.into(),
            error => error.into(),
        }
    }

    /// Sends the request. Returns the body of a successful response.
    fn open(&self, body: &Value) -> Result<impl Read + use<>, ChatError> {
        let response = self.send(CHAT_PATH, body)?;
        let status = response.status();
        if status.is_redirection() {
            let location = header_text(&response, header::LOCATION);
            return Err(ServerError::redirect(status.as_u16(), location.as_deref()).into());
        }
        let encoding = header_text(&response, header::CONTENT_ENCODING);
        let body = response.into_body().into_reader();
        if matches!(status.as_u16(), 204 | 205) {
            return Err(ChatError::NoContent { status: status.as_u16() });
        }
        if !status.is_success() {
            let mut response = Vec::new();
            // A partly read error message still says more than the read error.
            let _ = body.take(MAX_RESPONSE_BYTES as u64).read_to_end(&mut response);
            return Err(ServerError::from_response(status.as_u16(), &response).into());
        }
        match encoding.filter(|encoding| !encoding.is_empty() && encoding != "identity") {
            Some(encoding) => Err(ChatError::Compressed { encoding: error::clean(&encoding) }),
            None => Ok(body),
        }
    }
}

/// Reads a recorded response body as [`Client::chat`] does.
pub fn replay(response: impl Read, request: &Value, receiver: &mut dyn Receiver) -> ChatOutcome {
    let mut reading = Reading::new(request, None, receiver);
    let closed = |_| ApiError::Closed { address: "a recording".to_owned() }.into();
    let result = read(response, &mut reading, &closed);
    reading.outcome(result)
}

fn header_text(response: &http::Response<ureq::Body>, name: header::HeaderName) -> Option<String> {
    Some(String::from_utf8_lossy(response.headers().get(name)?.as_bytes()).into_owned())
}
