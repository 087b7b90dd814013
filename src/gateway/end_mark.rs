//! Reads along in an event stream that is passed on: its end mark, its usage, and whether it reports an error.
//!
//! Nearly every event is one token of text, so an event is searched for a few keys and parsed only when it has one.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::Value;

use crate::core::api::sse::{Item, Parser, SseEvent};

/// Events whose name alone ends a stream.
const LAST_EVENTS: [&str; 8] = [
    "message_stop",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "image_generation.completed",
    "image_edit.completed",
    "speech.audio.done",
    "transcript.text.done",
];

/// The keys for which every event is searched; a searcher is made once.
static FINISH_REASON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"finish_reason\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));

/// The usage of a request, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCounts {
    pub prompt: u64,
    pub completion: u64,
}

/// The reader of a stream, and what it has seen.
#[derive(Debug, Default)]
pub struct EndMark {
    parser: Parser,
    pub seen: Marks,
}

/// What the events of a stream have told so far.
#[derive(Debug, Default)]
pub struct Marks {
    /// Whether the end mark was seen: what follows is no part of the answer.
    pub is_whole: bool,
    /// Whether the server reported an error.
    pub has_error: bool,
    pub usage: Option<TokenCounts>,
    /// Whether an event was too long to be read, so nothing is known of the rest.
    pub is_lost: bool,
}

impl EndMark {
    /// Takes the next bytes of the stream, cut anywhere.
    pub fn push(&mut self, mut bytes: &[u8]) {
        let Self { parser, seen } = self;
        while !seen.is_lost {
            match parser.next(&mut bytes) {
                Ok(Some(Item::Event(event))) => seen.event(&event),
                Ok(Some(Item::Error(_))) => seen.has_error = true,
                Ok(Some(Item::Comment(_))) => {}
                Ok(None) => break,
                Err(_) => seen.is_lost = true,
            }
        }
    }
}

impl Marks {
    /// Returns whether the stream may end here: after its end mark, or where the marks could not be read.
    pub fn may_end(&self) -> bool {
        self.is_whole || self.is_lost
    }

    fn event(&mut self, event: &SseEvent<'_>) {
        let data = event.data.as_ref();
        if data == "[DONE]" {
            self.is_whole = true;
            return;
        }
        let name = if event.name == "message" { type_of(data) } else { event.name };
        if !name.is_empty() {
            self.is_whole |= LAST_EVENTS.contains(&name);
            self.has_error |= matches!(name, "error" | "response.failed");
        }
        let bytes = data.as_bytes();
        self.is_whole |= values(bytes, &FINISH_REASON).any(is_text);
        if values(bytes, &ERROR).any(|value| !value.starts_with(b"null")) {
            self.has_error |= is_error(data);
        }
        if let Some(usage) = values(bytes, &USAGE).find_map(usage) {
            let known = self.usage.unwrap_or_default();
            // Anthropic reports the prompt's tokens at the start and the rest at the end.
            self.usage = Some(TokenCounts {
                prompt: usage.prompt.max(known.prompt),
                completion: usage.completion.max(known.completion),
            });
        }
    }
}

/// Returns the usage of a whole response, which is not a stream.
pub fn usage_of_response(body: &[u8]) -> Option<TokenCounts> {
    values(body, &USAGE).filter_map(usage).last()
}

/// Returns what follows each occurrence of a key. Inside of JSON text, quotes are escaped, so only keys are found.
fn values<'d>(data: &'d [u8], key: &'static Finder<'static>) -> impl Iterator<Item = &'d [u8]> {
    let mut rest = data;
    // The iterator of the searcher would copy it for each event.
    std::iter::from_fn(move || {
        loop {
            rest = &rest[key.find(rest)? + key.needle().len()..];
            if let Some(value) = rest.trim_ascii_start().strip_prefix(b":") {
                return Some(value.trim_ascii_start());
            }
        }
    })
}

/// Returns whether the value is a string with content.
fn is_text(value: &[u8]) -> bool {
    matches!(value, [b'"', next, ..] if *next != b'"')
}

/// Returns the type that an event has in its data, if that comes first.
fn type_of(data: &str) -> &str {
    let name =
        || data.strip_prefix('{')?.trim_start().strip_prefix("\"type\"")?.trim_start().strip_prefix(':');
    let name = name().and_then(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    name.unwrap_or_default()
}

/// Returns whether the object reports an error at its top.
fn is_error(data: &str) -> bool {
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    match &data["error"] {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

/// Reads the usage object that begins here. It is not made a `Value`: each answer has one.
fn usage(value: &[u8]) -> Option<TokenCounts> {
    #[derive(Deserialize)]
    struct Counts {
        #[serde(alias = "input_tokens", default)]
        prompt_tokens: Option<u64>,
        #[serde(alias = "output_tokens", default)]
        completion_tokens: Option<u64>,
    }
    let counts = serde_json::Deserializer::from_slice(value).into_iter::<Counts>().next()?.ok()?;
    if counts.prompt_tokens.is_none() && counts.completion_tokens.is_none() {
        return None;
    }
    Some(TokenCounts {
        prompt: counts.prompt_tokens.unwrap_or_default(),
        completion: counts.completion_tokens.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result for a stream in one piece, which must be the same byte by byte.
    fn watched(stream: &str) -> (bool, bool, Option<TokenCounts>) {
        let seen = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut mark = EndMark::default();
            pieces.for_each(|piece| mark.push(piece));
            (mark.seen.is_whole, mark.seen.has_error, mark.seen.usage)
        };
        let whole = seen(&mut std::iter::once(stream.as_bytes()));
        assert_eq!(seen(&mut stream.as_bytes().chunks(1)), whole, "{stream:?}");
        whole
    }

    const fn counts(prompt: u64, completion: u64) -> TokenCounts {
        TokenCounts { prompt, completion }
    }

    #[test]
    fn each_wire_has_its_end_marks() {
        for (stream, is_whole) in [
            ("", false),
            ("data: [DONE]\n\n", true),
            ("data: [DONE]", false),
            ("data: {\"choices\":[{\"finish_reason\":null}]}\n\n", false),
            ("data: {\"choices\":[{\"finish_reason\":\"\"}]}\n\n", false),
            ("data: {\"choices\":[{\"finish_reason\": \"stop\"}]}\r\n\r\n", true),
            ("data: {\"choices\":[{\"finish_reason\" :\"length\"}]}\r\r", true),
            (r#"data: {"choices":[{"delta":{"content":"\"finish_reason\":\"stop\""}}]}"#, false),
            ("data: {\"choices\":[{\"delta\":{\"content\":\"finish_reason\"}}]}\n\n", false),
            ("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", true),
            ("data: {\"type\":\"message_stop\"}\n\n", true),
            ("event: message_delta\ndata: {\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n", false),
            ("event: response.completed\ndata: {}\n\n", true),
            ("event: response.incomplete\ndata: {}\n\n", true),
            ("event: response.output_text.delta\ndata: {\"delta\":\"[DONE]\"}\n\n", false),
            (": ping\n\n", false),
        ] {
            let stream = format!("{stream}{}", if stream.contains("\\\"") { "\n\n" } else { "" });
            assert_eq!(watched(&stream).0, is_whole, "{stream:?}");
        }
    }

    #[test]
    fn reported_errors_are_seen() {
        for (stream, has_error) in [
            ("data: {\"error\":{\"message\":\"x\"}}\n\n", true),
            ("data: {\"error\":\"x\"}\n\n", true),
            ("error: {\"message\":\"x\"}\n", true),
            ("event: error\ndata: {}\n\n", true),
            ("event: response.failed\ndata: {}\n\n", true),
            ("data: {\"type\":\"error\",\"message\":\"x\"}\n\n", true),
            ("data: {\"error\":null,\"choices\":[]}\n\n", false),
            ("data: {\"error\":\"\",\"choices\":[]}\n\n", false),
            ("data: {\"a\":{\"error\":\"x\"}}\n\n", false),
            ("data: {\"choices\":[{\"delta\":{\"content\":\"error\"}}]}\n\n", false),
        ] {
            assert_eq!(watched(stream).1, has_error, "{stream:?}");
        }
    }

    #[test]
    fn usage_is_read_from_each_wire() {
        let chat =
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":2,\"x\":{}}}\n\n";
        assert_eq!(watched(chat).2, Some(counts(11, 2)));
        let messages = "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n\
            event: message_delta\ndata: {\"usage\":{\"output_tokens\":30}}\n\n";
        assert_eq!(watched(messages).2, Some(counts(9, 30)));
        let responses = "event: response.completed\ndata: {\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":6}}}\n\n";
        assert_eq!(watched(responses).2, Some(counts(5, 6)));
        assert_eq!(watched("data: {\"usage\":null}\n\n").2, None);
        let whole = br#"{"choices":[{"message":{"content":"\"usage\":{}"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
        assert_eq!(usage_of_response(whole), Some(counts(3, 4)));
        assert_eq!(usage_of_response(b"{}"), None);
    }

    #[test]
    fn too_long_event_loses_the_marks() {
        let mut mark = EndMark::default();
        mark.push(b"data: ");
        (0..17).for_each(|_| mark.push(&vec![b'x'; 1 << 20]));
        assert!(mark.seen.is_lost && mark.seen.may_end() && !mark.seen.is_whole);
    }
}
