//! A stream of chat completions on the other wires: chunks in, events out, as they come.

mod messages;
mod responses;

use std::mem;

use self::messages::MessageEvents;
use self::responses::ResponseEvents;
use super::super::end_mark::TokenCounts;
use super::super::wire::{ApiFailure, Wire};
use super::Stamp;
use super::completion::{Finish, call_id, model};
use crate::core::api::chat::chunk::{Choice, Chunk, Delta, ToolCallDelta};
use crate::core::api::chat::{TokenUsage, without_lone_halves};
use crate::core::api::error::{ServerError, clean};
use crate::core::api::sse::{Item, Parser, SseEvent};

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// With its end mark.
    Whole,
    /// With an error, which an event reports.
    Failed,
}

/// Writes the events of one wire. At most one block is open: text, reasoning, or a call.
trait EventWriter: Send {
    fn begin(&mut self, model: &str, out: &mut Vec<u8>);
    fn reasoning(&mut self, text: &str, out: &mut Vec<u8>);
    fn text(&mut self, text: &str, out: &mut Vec<u8>);
    /// Opens a call.
    fn call(&mut self, id: &str, name: &str, out: &mut Vec<u8>);
    /// Adds to the arguments of the open call.
    fn arguments(&mut self, text: &str, out: &mut Vec<u8>);
    fn finish(&mut self, finish: Finish, usage: Option<TokenUsage>, out: &mut Vec<u8>);
    fn fail(&mut self, failure: &ApiFailure, out: &mut Vec<u8>);
}

/// A stream that is being translated.
pub struct Translator {
    parser: Parser,
    events: Box<dyn EventWriter>,
    stamp: Stamp,
    /// The model that was asked for.
    model: String,
    has_started: bool,
    call: Option<OpenCall>,
    /// Number of calls so far.
    calls: usize,
    finish: Option<Finish>,
    usage: Option<TokenUsage>,
    ending: Option<StreamEnd>,
}

/// The call whose arguments are arriving.
struct OpenCall {
    index: Option<u64>,
    /// As the server gave it, which may be empty.
    id: String,
}

impl Translator {
    /// Begins a stream for a client of `wire`, which asked for `model`.
    pub fn new(wire: Wire, model: &str, stamp: Stamp) -> Self {
        let events: Box<dyn EventWriter> = match wire {
            Wire::Messages => Box::new(MessageEvents::new(stamp.clone())),
            Wire::Responses | Wire::Chat => Box::new(ResponseEvents::new(stamp.clone())),
        };
        Self {
            parser: Parser::default(),
            events,
            stamp,
            model: model.to_owned(),
            has_started: false,
            call: None,
            calls: 0,
            finish: None,
            usage: None,
            ending: None,
        }
    }

    /// Takes the next bytes of the server's stream, cut anywhere, and appends the events for the client.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        let mut parser = mem::take(&mut self.parser);
        while self.ending.is_none() {
            match parser.next(&mut bytes) {
                Ok(Some(item)) => self.item(&item, out),
                Ok(None) => break,
                Err(error) => self.fail(&ApiFailure::new(502, format!("the server sent {error}")), out),
            }
        }
        self.parser = parser;
    }

    /// Takes a whole response, of a server that does not stream.
    pub fn push_whole(&mut self, body: &[u8], out: &mut Vec<u8>) {
        self.chunk(&String::from_utf8_lossy(body), out);
    }

    /// Handles the end of the server's stream. Without a finish reason it was cut, which an event reports.
    pub fn end(&mut self, out: &mut Vec<u8>) -> StreamEnd {
        if self.ending.is_none() {
            self.finish_or_cut(out);
        }
        self.ending.unwrap_or(StreamEnd::Failed)
    }

    /// Ends the stream with an error of the gateway's own, unless it has ended.
    pub fn fail(&mut self, failure: &ApiFailure, out: &mut Vec<u8>) {
        if self.ending.is_none() {
            self.begin(None, out);
            self.events.fail(failure, out);
            self.ending = Some(StreamEnd::Failed);
        }
    }

    /// Returns how the stream has ended, if it has. Later bytes are not part of the answer.
    pub fn ending(&self) -> Option<StreamEnd> {
        self.ending
    }

    pub fn usage(&self) -> Option<TokenCounts> {
        self.usage
            .map(|usage| TokenCounts { prompt: usage.prompt_tokens, completion: usage.completion_tokens })
    }

    fn item(&mut self, item: &Item<'_>, out: &mut Vec<u8>) {
        match item {
            // Servers send comments to keep the connection open; the client's connection needs them, too.
            Item::Comment(comment) => out.extend_from_slice(format!(":{comment}\n\n").as_bytes()),
            Item::Error(words) => self.server_error(words, out),
            Item::Event(SseEvent { name: "error", data, .. }) => self.server_error(data, out),
            Item::Event(SseEvent { data, .. }) if data == "[DONE]" => self.finish_or_cut(out),
            Item::Event(SseEvent { name: "message", data, .. }) => self.chunk(data, out),
            Item::Event(_) => {}
        }
    }

    fn server_error(&mut self, data: &str, out: &mut Vec<u8>) {
        self.fail(&ApiFailure::new(502, ServerError::from_event(data).message), out);
    }

    fn chunk(&mut self, data: &str, out: &mut Vec<u8>) {
        let mended;
        let chunk = match serde_json::from_str::<Chunk<'_>>(data) {
            Ok(chunk) => Some(chunk),
            // Some servers send a number or null to keep the connection open.
            Err(_) if !data.starts_with('{') => return,
            Err(_) => {
                mended = without_lone_halves(data);
                mended.as_deref().and_then(|data| serde_json::from_str(data).ok())
            }
        };
        match chunk {
            None => {
                let message = format!("the server sent an event that is not a chunk: {}", clean(data));
                self.fail(&ApiFailure::new(502, message), out);
            }
            Some(chunk) if chunk.error.is_said() || chunk.object.0 == "error" => self.server_error(data, out),
            Some(chunk) => {
                self.begin(model(&chunk), out);
                self.apply(chunk, out);
            }
        }
    }

    fn begin(&mut self, model: Option<&str>, out: &mut Vec<u8>) {
        if mem::replace(&mut self.has_started, true) {
            return;
        }
        self.events.begin(model.unwrap_or(&self.model), out);
    }

    fn apply(&mut self, chunk: Chunk<'_>, out: &mut Vec<u8>) {
        self.usage = chunk.usage.map(TokenUsage::summed).or(self.usage);
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            self.choice(choice, out);
        }
        // The usage comes after the finish reason.
        if self.ending.is_none() && self.finish.is_some() && self.usage.is_some() {
            self.finish_or_cut(out);
        }
    }

    fn choice(&mut self, choice: Choice<'_>, out: &mut Vec<u8>) {
        if let Some(delta) = choice.delta.or(choice.message) {
            self.delta(delta, out);
        }
        if choice.finish_reason.is_empty() || self.ending.is_some() {
            return;
        }
        self.finish = Finish::of(&choice.finish_reason.0);
        if self.finish.is_none() {
            let words = "the server ended the answer with the finish reason `error`";
            self.fail(&ApiFailure::new(502, words), out);
        }
    }

    fn delta(&mut self, delta: Delta<'_>, out: &mut Vec<u8>) {
        let reasoning =
            if delta.reasoning_content.is_empty() { delta.reasoning } else { delta.reasoning_content };
        if !reasoning.is_empty() {
            self.call = None;
            self.events.reasoning(&reasoning.0, out);
        }
        if !delta.content.is_empty() {
            self.call = None;
            self.events.text(&delta.content.0, out);
        }
        for call in delta.tool_calls {
            self.tool_call(call, out);
        }
    }

    fn tool_call(&mut self, delta: ToolCallDelta, out: &mut Vec<u8>) {
        let id = delta.id.unwrap_or_default();
        let name = delta.name.unwrap_or_default();
        // Some servers give every call of an answer the index 0, and others give no index.
        let is_open = self.call.as_ref().is_some_and(|open| {
            let same_index = delta.index.is_none() || delta.index == open.index;
            let same_id = id.is_empty() || id == open.id;
            same_index && same_id && (delta.index.is_some() || name.is_empty())
        });
        if !is_open {
            if name.is_empty() {
                let words =
                    "the server sent parts of a tool call that it did not begin, or that it had ended";
                return self.fail(&ApiFailure::new(502, words), out);
            }
            self.events.call(&call_id(&id, &self.stamp, self.calls), &name, out);
            self.calls += 1;
            self.call = Some(OpenCall { index: delta.index, id });
        }
        let arguments = delta.arguments.unwrap_or_default();
        if !arguments.is_empty() {
            self.events.arguments(&arguments, out);
        }
    }

    fn finish_or_cut(&mut self, out: &mut Vec<u8>) {
        if let Some(finish) = self.finish {
            self.events.finish(finish, self.usage, out);
            self.ending = Some(StreamEnd::Whole);
        } else {
            let words = "the answer was cut: the server ended the stream before its end mark";
            self.fail(&ApiFailure::new(502, words), out);
        }
    }
}

/// Appends an event.
fn write_event(out: &mut Vec<u8>, name: &str, data: &serde_json::Value) {
    out.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
}
