//! An answer that is being read: bytes of the response in, text and reasoning out, and the end that it came to.

use std::io::{self, Read};
use std::mem;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use serde_json::Value;

use super::chunk::{self, Anything, Chunk, Delta, ToolCallDelta};
use super::repetition::Repetition;
use super::shape::ChunkShape;
use super::split::{AnswerPart, Stop, Think};
use super::{Answer, Arrivals, ChatError, ChatOutcome, Receiver, TokenUsage, ToolCall};
use crate::core::api::MAX_RESPONSE_BYTES;
use crate::core::api::error::{self, ServerError};
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::api::sse::{BYTE_ORDER_MARK, Item, MAX_EVENT_BYTES, Parser, TooLong};

/// Number of bytes in one read.
const READ_BYTES: usize = 32 * 1024;

/// A byte that is in no text. It fills the buffer before each read: when a chunk is malformed, ureq has decoded into the
/// buffer what came before it in the same packet, and returns the error alone.
const UNWRITTEN: u8 = 0xff;

/// Timeout for the usage and the end of the response, after the finish reason.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads a response body to the end of the answer; `explain` converts an error of the connection.
pub(super) fn read(
    mut body: impl Read,
    reading: &mut Reading<'_>,
    explain: &dyn Fn(io::Error) -> ChatError,
) -> Result<(), ChatError> {
    let mut buffer = vec![UNWRITTEN; READ_BYTES];
    let ending = loop {
        match body.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(length) => {
                reading.push(&buffer[..length])?;
                buffer[..length].fill(UNWRITTEN);
            }
            Err(error) => {
                let end = buffer.iter().rposition(|byte| *byte != UNWRITTEN).map_or(0, |last| last + 1);
                if end > 0 {
                    reading.push(&buffer[..end])?;
                }
                break Err(error);
            }
        }
        if reading.done || reading.finished.is_some_and(|then| then.elapsed() > CLOSE_TIMEOUT) {
            return Ok(());
        }
        reading.receiver.flush().map_err(ChatError::Receiver)?;
    };
    match ending {
        // The answer is complete since the finish reason.
        _ if reading.answer.finish_reason.is_some() => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(explain(error)),
        _ => reading.end(),
    }
}

/// The form of a response. Its first character shows it; the content type is often wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Only white space so far.
    Unknown,
    Events,
    /// One JSON value, or an HTML page.
    Whole,
}

/// An answer that is being read.
pub(super) struct Reading<'r> {
    receiver: &'r mut dyn Receiver,
    idle_timeout: Option<&'r IdleTimeout>,
    answer: Answer,
    /// Time of the finish reason.
    finished: Option<Instant>,
    arrivals: Arrivals,
    /// Number of calls of `push`.
    pushes: u64,
    repetition: Repetition,
    /// The number of arrivals after which a chunk named no model.
    unnamed_after: Option<u64>,
    template: ChunkShape,
    think: Think,
    stop: Stop,
    /// Whether the answer is over, so the rest is ignored.
    done: bool,
    /// Whether a stop text was found, so the held text is dropped.
    stopped: bool,
    shape: Shape,
    parser: Parser,
    /// Whether the stream had an event or a comment.
    understood: bool,
    /// The whole response if it is not a stream; else the first 64 KiB of a stream that is not `understood`.
    whole: Vec<u8>,
    /// Number of leading bytes of `whole` known to be white space. Without it, 16 MiB of white space took 4 s.
    blank: usize,
}

impl<'r> Reading<'r> {
    pub(super) fn new(
        request: &Value,
        idle_timeout: Option<&'r IdleTimeout>,
        receiver: &'r mut dyn Receiver,
    ) -> Self {
        let stop = match &request["stop"] {
            Value::String(text) => vec![text.clone()],
            Value::Array(texts) => texts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        Self {
            receiver,
            idle_timeout,
            answer: Answer::default(),
            finished: None,
            arrivals: Arrivals::default(),
            pushes: 0,
            repetition: Repetition::default(),
            unnamed_after: None,
            template: ChunkShape::default(),
            think: Think::default(),
            stop: Stop::new(stop),
            done: false,
            stopped: false,
            shape: Shape::Unknown,
            parser: Parser::default(),
            understood: false,
            whole: Vec::new(),
            blank: 0,
        }
    }

    /// Takes the next bytes of the response.
    fn push(&mut self, bytes: &[u8]) -> Result<(), ChatError> {
        self.pushes += 1;
        match self.shape {
            Shape::Events => return self.push_events(bytes),
            _ if self.whole.len() + bytes.len() > MAX_EVENT_BYTES => return Err(TooLong.into()),
            Shape::Whole | Shape::Unknown => self.whole.extend_from_slice(bytes),
        }
        if self.shape == Shape::Unknown {
            self.shape = shape_of(&self.whole, self.blank);
            if self.whole.len() > BYTE_ORDER_MARK.len() {
                self.blank = self.whole.len();
            }
            if self.shape == Shape::Events {
                self.answer.streamed = true;
                let beginning = mem::take(&mut self.whole);
                return self.push_events(&beginning);
            }
        }
        Ok(())
    }

    /// Returns whether the last chunk names no model, although another does or nothing else came.
    fn model_has_died(&self) -> bool {
        let count = self.arrivals.count();
        self.unnamed_after == Some(count) && (count == 0 || self.answer.model.is_some())
    }

    /// Counts a part of the answer.
    fn arrived(&mut self, text: &str) {
        self.repetition.add(text);
        self.arrivals.add(self.idle_timeout.map_or(self.pushes, IdleTimeout::reads));
    }

    fn push_events(&mut self, mut bytes: &[u8]) -> Result<(), ChatError> {
        if !self.understood {
            let room = MAX_RESPONSE_BYTES - self.whole.len();
            self.whole.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        let mut parser = mem::take(&mut self.parser);
        let mut result = Ok(());
        while result.is_ok() && !self.done {
            result = match parser.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(item)) => self.item(&item),
                Err(error) => Err(error.into()),
            };
        }
        self.parser = parser;
        result
    }

    fn item(&mut self, item: &Item<'_>) -> Result<(), ChatError> {
        self.understood = true;
        match item {
            Item::Comment(comment) => {
                if let Some((done, total)) = prefill_progress(comment) {
                    self.receiver.progress(done, total);
                }
                Ok(())
            }
            Item::Error(words) => Err(ServerError::from_event(words).into()),
            Item::Event(event) => match (event.name, event.data.as_ref()) {
                ("message", "[DONE]") => {
                    self.done = true;
                    if self.answer.finish_reason.is_some() { Ok(()) } else { Err(ChatError::Cut) }
                }
                ("message", data) => self.chunk(data),
                ("error", data) => Err(ServerError::from_event(data).into()),
                _ => Ok(()),
            },
        }
    }

    fn chunk(&mut self, data: &str) -> Result<(), ChatError> {
        if let Some(text) = self.template.text(data) {
            return self.content(text).map_err(ChatError::Receiver);
        }
        let mended;
        let (mut data, mut parsed) = (data, Chunk::parse(data));
        if parsed.is_err()
            && let Some(text) = chunk::without_lone_halves(data)
        {
            mended = text;
            (data, parsed) = (&mended, Chunk::parse(&mended));
        }
        match parsed {
            Ok(chunk) if chunk.error.is_said() || chunk.object.0 == "error" => {
                Err(ServerError::from_event(data).into())
            }
            Ok(chunk) => {
                if let Some(text) = chunk.only_text() {
                    self.template.learn(data, text);
                }
                self.apply(chunk)
            }
            // The answer is complete, so the rest does not matter.
            Err(_) if self.answer.finish_reason.is_some() || is_sign_of_life(data) => Ok(()),
            Err(_) => Err(ChatError::Malformed { words: error::clean(data) }),
        }
    }

    fn apply(&mut self, chunk: Chunk<'_>) -> Result<(), ChatError> {
        if let Anything::Text(model) = &chunk.model {
            self.unnamed_after = model.is_empty().then(|| self.arrivals.count());
            if !model.is_empty() && self.answer.model.is_none() {
                self.answer.model = Some(model.to_string());
            }
        }
        if chunk.usage.is_some() {
            self.answer.usage = chunk.usage.map(TokenUsage::summed);
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = choice.delta.or(choice.message) {
                self.delta(delta).map_err(ChatError::Receiver)?;
            }
            // After a stop text, fusion has ended the answer.
            if !choice.finish_reason.is_empty() && !self.stopped {
                let reason = choice.finish_reason.0.into_owned();
                let failed = reason == "error";
                self.finish_with(reason);
                if failed {
                    let words = "the server ended the answer with the finish reason `error`";
                    return Err(ServerError::from_event(words).into());
                }
                if let Some(idle_timeout) = self.idle_timeout {
                    idle_timeout.set_timeout(CLOSE_TIMEOUT.min(idle_timeout.timeout()));
                }
            }
        }
        Ok(())
    }

    fn delta(&mut self, delta: Delta<'_>) -> io::Result<()> {
        let reasoning =
            if delta.reasoning_content.is_empty() { delta.reasoning } else { delta.reasoning_content };
        if !reasoning.is_empty() {
            self.arrived(&reasoning.0);
            self.receiver.reasoning(&reasoning.0)?;
        }
        for call in delta.tool_calls {
            self.tool_call(call);
        }
        self.content(&delta.content.0)
    }

    fn content(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.arrived(text);
        let (receiver, stop, stopped) = (&mut *self.receiver, &mut self.stop, &mut self.stopped);
        self.think.push(text, |piece| give(piece, stop, stopped, receiver))?;
        if self.stopped {
            self.done = true;
            self.finish_with("stop".to_owned());
        }
        Ok(())
    }

    fn finish_with(&mut self, reason: String) {
        self.answer.finish_reason = Some(reason);
        self.finished.get_or_insert_with(Instant::now);
    }

    fn tool_call(&mut self, delta: ToolCallDelta) {
        let calls = &mut self.answer.tool_calls;
        // Complete calls may arrive one after the other without an index.
        let index = match delta.index.map(usize::try_from) {
            Some(Ok(index)) => index.min(calls.len()),
            _ => calls.len(),
        };
        if index == calls.len() {
            calls.push(ToolCall::default());
        }
        let call = &mut calls[index];
        call.id.push_str(&delta.id.unwrap_or_default());
        call.name.push_str(&delta.name.unwrap_or_default());
        call.arguments.push_str(&delta.arguments.unwrap_or_default());
    }

    /// Handles the end of a response without a finish reason: only a whole response may be an answer.
    fn end(&mut self) -> Result<(), ChatError> {
        let whole = mem::take(&mut self.whole);
        let text = String::from_utf8_lossy(&whole);
        let text = text.trim_start_matches('\u{feff}').trim();
        match self.shape {
            Shape::Unknown => Err(ChatError::Empty),
            Shape::Whole if text.starts_with('<') => {
                let title = error::title(text).map(|title| format!(": {title}")).unwrap_or_default();
                Err(ChatError::NotAnAnswer { words: error::clean(&format!("an HTML page{title}")) })
            }
            Shape::Whole => self.whole_response(text),
            Shape::Events if self.repetition.is_at_limit() => Err(ChatError::Repetition),
            Shape::Events if self.model_has_died() => Err(ChatError::ModelDied),
            Shape::Events if self.understood || text.lines().any(is_event_line) => Err(ChatError::Cut),
            Shape::Events => Err(ChatError::NotAnAnswer { words: error::clean(text) }),
        }
    }

    fn whole_response(&mut self, text: &str) -> Result<(), ChatError> {
        match serde_json::from_str::<Chunk<'_>>(text) {
            Err(error) if error.is_eof() => Err(ChatError::Cut),
            Ok(chunk) if chunk.choices.is_empty() && !chunk.error.is_said() => {
                let response = ServerError::from_response(200, text.as_bytes());
                if chunk.object.0 == "error" {
                    return Err(response.into());
                }
                Err(ChatError::NotAnAnswer { words: error::clean(text) })
            }
            _ => self.chunk(text),
        }?;
        if self.answer.finish_reason.is_some() { Ok(()) } else { Err(ChatError::Cut) }
    }

    /// Returns the outcome, after it has delivered the held text.
    pub(super) fn outcome(mut self, result: Result<(), ChatError>) -> ChatOutcome {
        let result = match result {
            Err(ChatError::Receiver(error)) => Err(ChatError::Receiver(error)),
            result => self.finish().map_err(ChatError::Receiver).and(result),
        };
        ChatOutcome { answer: self.answer, result, finished: self.finished, arrivals: self.arrivals }
    }

    fn finish(&mut self) -> io::Result<()> {
        let (receiver, stop, stopped) = (&mut *self.receiver, &mut self.stop, &mut self.stopped);
        if !*stopped {
            self.think.finish(|piece| give(piece, stop, stopped, receiver))?;
        }
        if !*stopped {
            stop.finish(|text| receiver.text(text))?;
        }
        Ok(())
    }
}

fn give(
    piece: AnswerPart<'_>,
    stop: &mut Stop,
    stopped: &mut bool,
    receiver: &mut dyn Receiver,
) -> io::Result<()> {
    match piece {
        AnswerPart::Text(text) => *stopped = stop.push(text, |text| receiver.text(text))?,
        AnswerPart::Reasoning(text) => receiver.reasoning(text)?,
    }
    Ok(())
}

/// Returns the form of a response from its beginning; its first `blank` bytes are known to be white space.
fn shape_of(beginning: &[u8], blank: usize) -> Shape {
    if BYTE_ORDER_MARK.starts_with(beginning) {
        return Shape::Unknown;
    }
    let text = match blank {
        0 => beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning),
        _ => &beginning[blank..],
    };
    match text.trim_ascii_start().first() {
        None => Shape::Unknown,
        Some(b'{' | b'[' | b'<') => Shape::Whole,
        Some(_) => Shape::Events,
    }
}

/// Returns whether a line may belong to an event stream.
fn is_event_line(line: &str) -> bool {
    let name = line.split_once(':').map_or(line, |(name, _)| name);
    ["", "data", "event", "id", "retry", "error"].contains(&name) && !line.is_empty()
}

/// Parses `keepalive 512/2048`: the prefill progress of `mlx_lm.server`.
fn prefill_progress(comment: &str) -> Option<(u64, u64)> {
    let (done, total) = comment.trim().strip_prefix("keepalive ")?.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

/// Returns whether the data is JSON, but no object: some proxies send a number or null to keep the connection open.
fn is_sign_of_life(data: &str) -> bool {
    !data.starts_with('{') && serde_json::from_str::<IgnoredAny>(data).is_ok()
}
