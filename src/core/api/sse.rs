//! Server-sent events: bytes in, events out, by the rules of the WHATWG HTML standard, section 9.2.6
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>).
//!
//! Two deliberate differences: a field named `error`, with which older llama.cpp servers report failures, is
//! handed out instead of being dropped; and `retry` is dropped like an unknown field, because a prompt is never
//! sent a second time.

use std::borrow::Cow;
use std::mem;

/// How long a line, and the data of an event, may be: far above any answer of a model, and little enough memory.
pub const EVENT_LIMIT: usize = 16 << 20;

/// How much of a comment is kept; a longer one is cut.
const COMMENT_LIMIT: usize = 256;

/// U+FEFF in UTF-8, with which a stream may begin.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One thing that the stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// An event was dispatched.
    Event(Event<'a>),
    /// A comment, without its colon; a long one may be cut. Servers send them to keep the connection alive.
    Comment(Cow<'a, str>),
    /// The value of a field named `error`.
    Error(Cow<'a, str>),
}

/// A dispatched event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its type: `message` where the stream gives none.
    pub name: &'a str,
    /// Its data lines, joined by newlines.
    pub data: Cow<'a, str>,
    /// The last event id.
    pub id: &'a str,
}

/// A line or the data of an event is longer than [`EVENT_LIMIT`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event longer than {} MiB", EVENT_LIMIT >> 20)]
pub struct TooLong;

/// The state between two pieces of a stream. Takes time linear in the bytes, however they are cut into pieces,
/// and allocates nothing for an event that lies whole in one piece.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Independent facts about the bytes so far.
pub struct Parser {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// `line` was handed out as a whole line, and is to be emptied.
    line_used: bool,
    /// The last byte was a carriage return, so that a line feed now belongs to it.
    after_return: bool,
    /// A line was seen, so that no byte order mark can come any more.
    past_first_line: bool,
    /// The data of the coming event, each line followed by a newline.
    data: Vec<u8>,
    name: String,
    id: String,
    /// The event was handed out, and its data and name are to be emptied.
    dispatched: bool,
}

/// A line: in the input or, when it arrived in pieces, in [`Parser::line`].
enum Line<'a> {
    Whole(&'a [u8]),
    Assembled,
}

/// What a line means for the caller.
enum Meaning {
    Nothing,
    Dispatch,
    /// Dispatch the value of this line, which is the only data line of its event.
    DispatchLine,
    Comment,
    Error,
}

impl Parser {
    /// The next item that `input` completes; what was read is taken from the front of `input`. When there is none,
    /// all of `input` was read, and the next piece is wanted.
    ///
    /// At the end of the stream an event without its blank line is dropped, as the standard says.
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
            Line::Whole(line) => line,
            Line::Assembled => &self.line,
        };
        let event = |data: &'a [u8]| {
            let name = if self.name.is_empty() { "message" } else { &self.name };
            Item::Event(Event { name, data: decoded(data), id: &self.id })
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

    fn read_line<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Line<'a>>, TooLong> {
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
            return Ok(Some(Line::Whole(line)));
        }
        self.keep(line)?;
        if !self.past_first_line && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        self.past_first_line = true;
        self.line_used = true;
        Ok(Some(Line::Assembled))
    }

    /// Without the line end with which `input` begins. A carriage return may be the first half of one.
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

    /// Keeps a piece of a line, of a comment only its beginning.
    fn keep(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        let is_comment = |line: &[u8]| without_mark(line).first() == Some(&b':');
        let limit = if is_comment(&self.line) { COMMENT_LIMIT } else { EVENT_LIMIT };
        let room = limit.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room && !is_comment(&self.line) { Err(TooLong) } else { Ok(()) }
    }

    fn interpret(&mut self, line: &Line<'_>, input: &mut &[u8]) -> Result<Meaning, TooLong> {
        let (bytes, whole) = match line {
            Line::Whole(line) => (*line, true),
            Line::Assembled => (self.line.as_slice(), false),
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
            b"data" if self.data.len() + value.len() >= EVENT_LIMIT => return Err(TooLong),
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

/// Text, with U+FFFD for what is not UTF-8. Valid text, which is nearly all, is looked through many bytes at a time.
fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The name and value of a field: cut at the first colon, one space after it dropped.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    // Nearly every line is of this kind, and its colon need not be looked for.
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
