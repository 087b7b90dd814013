//! Reduces the error response of any server to a one-line message and a kind.
//!
//! The formats are those of Ollama, `mlx_lm.server`, llama.cpp, LM Studio, vLLM, its framework, and common proxies;
//! `tests/cases/error_bodies.json` has an example and the source of each.

use serde_json::Value;
use ureq::http::StatusCode;

use super::MAX_RESPONSE_BYTES;

/// Maximum length of a message in characters. A longer one is cut and ends in an ellipsis.
const MAX_MESSAGE_CHARS: usize = 300;

/// Maximum depth of unwrapping a message that is itself JSON: gateways wrap the bodies of other servers.
const MAX_UNWRAP_DEPTH: usize = 2;

/// An error that a server reports, with its message. The HTTP status is shown unless the message has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", self.status_beside_message())]
pub struct ServerError {
    /// The HTTP status code; 200 if the error came inside a successful response.
    pub status: u16,
    /// The server's message on one line, or `HTTP 502 Bad Gateway` if it had none.
    pub message: String,
    pub kind: ServerErrorKind,
}

/// The kind of an error that a server reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerErrorKind {
    /// An API key is missing or wrong.
    Auth,
    /// The request is malformed.
    BadRequest,
    /// The server has too many requests.
    Busy,
    /// The request was canceled.
    Canceled,
    /// The prompt does not fit into the model's context.
    ContextLength,
    /// The server refuses this client.
    Forbidden,
    /// The model or the server is still loading.
    Loading,
    /// The server does not have the model.
    ModelMissing,
    /// The model does not fit into memory.
    OutOfMemory,
    /// A proxy responded, not the model server.
    Proxy,
    /// The response is a redirect, which fusion does not follow.
    Redirect,
    /// The server failed.
    ServerCrash,
    /// There is nothing at this path.
    WrongUrl,
}

impl ServerError {
    /// Reads a response's status and its body, of which 64 KiB are enough. It ignores the content type, which is
    /// often wrong for JSON.
    pub fn from_response(status: u16, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&body[..body.len().min(MAX_RESPONSE_BYTES)]);
        let is_cut = body.len() >= MAX_RESPONSE_BYTES;
        let json = parse(&text).or_else(|| is_cut.then(|| parse_cut(&text)).flatten());
        let words = match json {
            Some(json) => message_of(&json),
            None => words_of(status, &text),
        };
        Self::new(status, words, &text)
    }

    /// Reads an event or object that reports an error inside a successful response. Text that is not JSON is the
    /// message.
    pub fn from_event(data: &str) -> Self {
        let words = match parse(data) {
            Some(json) => message_of(&json),
            None => Some(data.to_owned()),
        };
        Self::new(200, words, data)
    }

    /// Returns the error for a redirect, which would carry the prompt to another server.
    pub(super) fn redirect(status: u16, location: Option<&str>) -> Self {
        let to = location.map(|location| format!(" to {location}")).unwrap_or_default();
        let message = clean(&format!("{}: a redirect{to}, which is not followed", status_line(status)));
        Self { status, message, kind: ServerErrorKind::Redirect }
    }

    /// Returns ` (HTTP 404)`, or nothing.
    fn status_beside_message(&self) -> String {
        if self.status == 200 || self.message.starts_with("HTTP ") {
            return String::new();
        }
        format!(" (HTTP {})", self.status)
    }

    /// Builds the error. `text` is the whole response, which decides the kind if there are no `words`.
    fn new(status: u16, words: Option<String>, text: &str) -> Self {
        let words = words.map(|words| clean(&words)).filter(|words| !words.is_empty());
        let kind = classify(status, words.as_deref().unwrap_or(text));
        let message = words.unwrap_or_else(|| match status {
            200 => "the server reported an error without a message".to_owned(),
            _ => status_line(status),
        });
        Self { status, message, kind }
    }
}

/// Returns a line like `HTTP 502 Bad Gateway`.
pub(super) fn status_line(status: u16) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    format!("HTTP {status} {}", reason.unwrap_or_default()).trim_end().to_owned()
}

fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()
}

/// Parses an error object that was cut because its message is too long.
fn parse_cut(text: &str) -> Option<Value> {
    ["\"}", "\"}}"].iter().find_map(|end| parse(&format!("{text}{end}")))
}

/// Returns the message of an error object, unwrapped if it is JSON itself.
fn message_of(json: &Value) -> Option<String> {
    let mut message = find_message(json)?;
    for _ in 0..MAX_UNWRAP_DEPTH {
        let inner = parse(&message).filter(Value::is_object);
        match inner.as_ref().and_then(find_message) {
            Some(inner) => message = inner,
            None => break,
        }
    }
    Some(message)
}

fn find_message(json: &Value) -> Option<String> {
    let json = json.get(0).unwrap_or(json);
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    text(&json["error"]["message"])
        .or_else(|| text(&json["error"]))
        .or_else(|| text(&json["message"]))
        .or_else(|| text(&json["detail"]))
        .or_else(|| json["detail"].as_array().and_then(|details| validation_errors(details)))
}

/// Returns `[{"loc": ["body", "messages"], "msg": "Field required"}]` as `body.messages: Field required`.
fn validation_errors(details: &[Value]) -> Option<String> {
    let lines = details.iter().filter_map(|detail| {
        let place = detail["loc"].as_array()?.iter().map(plain).collect::<Vec<_>>().join(".");
        Some(format!("{place}: {}", detail["msg"].as_str()?))
    });
    Some(lines.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the message of a body that is not JSON: of a page its title, unless the status says the same; of a JSON
/// object that was cut, nothing.
fn words_of(status: u16, text: &str) -> Option<String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    match text.as_bytes().first()? {
        b'{' | b'[' => None,
        b'<' => {
            let status_line = status_line(status);
            let title = title(text).filter(|title| !status_line.contains(&clean(title)));
            title.map(|title| format!("{status_line} ({title})"))
        }
        _ => Some(text.to_owned()),
    }
}

/// Returns the title of an HTML page.
pub(super) fn title(page: &str) -> Option<&str> {
    // The same length as `page`, because only ASCII letters change.
    let lower = page.to_ascii_lowercase();
    let tag = lower.find("<title")?;
    let start = tag + lower[tag..].find('>')? + 1;
    let end = start + lower[start..].find("</title>")?;
    Some(page[start..end].trim()).filter(|title| !title.is_empty())
}

/// Returns the text on one line, without control characters, cut at 300 characters.
pub fn clean(text: &str) -> String {
    let visible: String =
        text.chars().filter(|character| character.is_whitespace() || !character.is_control()).collect();
    let line = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_MESSAGE_CHARS) {
        None => line,
        Some(_) => line.chars().take(MAX_MESSAGE_CHARS - 1).chain(['…']).collect(),
    }
}

/// Returns the kind, first from the words: servers use 404 and 500 for nearly everything.
fn classify(status: u16, words: &str) -> ServerErrorKind {
    let words = words.to_lowercase();
    let says = |any: &[&str]| any.iter().any(|part| words.contains(part));
    let about_model = says(&["model", "repository", "snapshot", "hub"]);
    if says(&[
        "no models loaded",
        "invalid model identifier",
        "try pulling it",
        "repository not found",
        "cannot find an appropriate cached snapshot folder",
        "cannot find the appropriate snapshot folder",
        "cannot find the requested files in the disk cache",
    ]) || (about_model && says(&["not found", "does not exist", "model_not_found", "no such file"]))
    {
        return ServerErrorKind::ModelMissing;
    }
    if says(&["requires more system memory", "out of memory", "insufficient memory"]) {
        return ServerErrorKind::OutOfMemory;
    }
    if says(&["context size", "context length", "context window", "maximum context"]) {
        return ServerErrorKind::ContextLength;
    }
    if says(&["unexpected endpoint"]) {
        return ServerErrorKind::WrongUrl;
    }
    match status {
        401 => ServerErrorKind::Auth,
        403 => ServerErrorKind::Forbidden,
        // A server with its own text for a 404 knows the path.
        404 if !(words.trim().is_empty() || says(&["not found", "404"])) => ServerErrorKind::ServerCrash,
        404 | 405 | 501 => ServerErrorKind::WrongUrl,
        499 => ServerErrorKind::Canceled,
        503 if words.contains("loading") => ServerErrorKind::Loading,
        429 | 503 => ServerErrorKind::Busy,
        502 | 504 => ServerErrorKind::Proxy,
        400..=498 => ServerErrorKind::BadRequest,
        _ => ServerErrorKind::ServerCrash,
    }
}
