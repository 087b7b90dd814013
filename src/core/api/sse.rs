//! Server-sent events: bytes in, events out, by the rules of the WHATWG HTML standard, section 9.2.6
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>).
//!
//! Two deliberate differences: the field `error`, in which older llama.cpp servers report failures, becomes an item;
//! and `retry` is ignored, because fusion never sends a prompt twice.

use std::borrow::Cow;
use std::mem;

/// Maximum length of a line, and of the data of an event, in bytes: far more than any answer.
pub const MAX_EVENT_BYTES: usize = 16 << 20;

/// Maximum length of a kept comment in bytes; the rest is cut.
const MAX_COMMENT_BYTES: usize = 256;

/// U+FEFF in UTF-8, which may begin a stream.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One item of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    Event(SseEvent<'a>),
    /// A comment without its colon, perhaps cut. Servers send comments to keep the connection open.
    Comment(Cow<'a, str>),
    /// The value of a field named `error`.
    Error(Cow<'a, str>),
}

/// A dispatched event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// Its type; `message` if the stream gives none.
    pub name: &'a str,
    /// Its data lines, joined by newlines.
    pub data: Cow<'a, str>,
    /// The last event id.
    pub id: &'a str,
}

/// A line or the data of an event is longer than [`MAX_EVENT_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event longer than {} MiB", MAX_EVENT_BYTES >> 20)]
pub struct TooLong;

/// A parser of a stream in parts. It takes time linear in the bytes, and allocates nothing for an event that lies
/// within one part.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about the bytes so far")]
pub struct Parser {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// Whether `line` was returned as a whole line, and must be cleared.
    line_used: bool,
    /// Whether the last byte was a carriage return, so a line feed now belongs to it.
    after_return: bool,
    /// Whether a line has started, so a byte order mark is no longer possible.
    past_first_line: bool,
    /// The data of the coming event, each line followed by a newline.
    data: Vec<u8>,
    name: String,
    id: String,
    /// Whether the event was returned, and its data and name must be cleared.
    dispatched: bool,
}

/// A line: in the input, or in [`Parser::line`] if it arrived in parts.
enum InputLine<'a> {
    Whole(&'a [u8]),
    Assembled,
}

/// The effect of a line.
enum Meaning {
    Nothing,
    Dispatch,
    /// Dispatch the value of this line, which is the only data line of its event.
    DispatchLine,
    Comment,
    Error,
}

impl Parser {
    /// Returns the next item that `input` completes, and removes the bytes that were read from its front. `None`
    /// means that all of `input` was read.
    ///
    /// At the end of the stream, an event without its blank line is dropped, as the standard says.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Item<'a>>, TooLong> {
        if mem::take(&mut self.dispatched) {
            self.data.clear();
            self.name.clear();
        }
        let (meaning, line) = loop {
            let Some(line) = self.read_line(input)? else { return Ok(None) };
            match self.interpret(&line, input)? {
                Meaning::Nothing => {}
                meaning => break (meaning, line),
            }
        };
        let line: &'a [u8] = match line {
            InputLine::Whole(line) => line,
            InputLine::Assembled => &self.line,
        };
        let event = |data: &'a [u8]| {
            let name = if self.name.is_empty() { "message" } else { &self.name };
            Item::Event(SseEvent { name, data: decoded(data), id: &self.id })
        };
        Ok(Some(match meaning {
            Meaning::Comment => Item::Comment(decoded(&line[1..])),
            Meaning::Error => Item::Error(decoded(field(line).1)),
            Meaning::DispatchLine => event(field(line).1),
            Meaning::Dispatch | Meaning::Nothing => {
                event(self.data.strip_suffix(b"\n").unwrap_or(&self.data))
            }
        }))
    }

    fn read_line<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<InputLine<'a>>, TooLong> {
        if mem::take(&mut self.line_used) {
            self.line.clear();
        }
        if let [first, rest @ ..] = *input
            && mem::take(&mut self.after_return)
            && *first == b'\n'
        {
            *input = rest;
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', input) else {
            self.keep(mem::take(input))?;
            return Ok(None);
        };
        let (line, rest) = input.split_at(end);
        *input = self.skip_line_end(rest);
        if self.line.is_empty() {
            let line = if self.past_first_line { line } else { without_mark(line) };
            self.past_first_line = true;
            return Ok(Some(InputLine::Whole(line)));
        }
        self.keep(line)?;
        if !self.past_first_line && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        self.past_first_line = true;
        self.line_used = true;
        Ok(Some(InputLine::Assembled))
    }

    /// Returns `input` without the line end at its front. A carriage return may be the first half of one.
    fn skip_line_end<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        match input {
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
            [b'\r', rest @ ..] => {
                self.after_return = rest.is_empty();
                rest
            }
            _ => input,
        }
    }

    /// Keeps a part of a line; of a comment only its beginning.
    fn keep(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        let is_comment = |line: &[u8]| without_mark(line).first() == Some(&b':');
        let limit = if is_comment(&self.line) { MAX_COMMENT_BYTES } else { MAX_EVENT_BYTES };
        let room = limit.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room && !is_comment(&self.line) { Err(TooLong) } else { Ok(()) }
    }

    fn interpret(&mut self, line: &InputLine<'_>, input: &mut &[u8]) -> Result<Meaning, TooLong> {
        let (bytes, whole) = match line {
            InputLine::Whole(line) => (*line, true),
            InputLine::Assembled => (self.line.as_slice(), false),
        };
        if bytes.is_empty() {
            if self.data.is_empty() {
                self.name.clear();
                return Ok(Meaning::Nothing);
            }
            self.dispatched = true;
            return Ok(Meaning::Dispatch);
        }
        let (name, value) = field(bytes);
        match name {
            b"" => return Ok(Meaning::Comment),
            b"error" => return Ok(Meaning::Error),
            b"data" if whole && self.data.is_empty() && matches!(input.first(), Some(b'\n' | b'\r')) => {
                *input = self.skip_line_end(input);
                self.dispatched = true;
                return Ok(Meaning::DispatchLine);
            }
            b"data" if self.data.len() + value.len() >= MAX_EVENT_BYTES => return Err(TooLong),
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => set(&mut self.name, value),
            b"id" if !value.contains(&0) => set(&mut self.id, value),
            _ => {}
        }
        Ok(Meaning::Nothing)
    }
}

/// Returns the text, with U+FFFD for bytes that are not UTF-8. Valid text, which is nearly all, takes the fast check.
fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Splits a field at its first colon into name and value, and drops one space before the value.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    // Nearly every line is a data line, which needs no search for the colon.
    if let Some(value) = line.strip_prefix(b"data: ") {
        return (b"data", value);
    }
    let Some(colon) = memchr::memchr(b':', line) else { return (line, b"") };
    let value = &line[colon + 1..];
    (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
}

fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
}

fn set(text: &mut String, value: &[u8]) {
    text.clear();
    text.push_str(&String::from_utf8_lossy(value));
}
