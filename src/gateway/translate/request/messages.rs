//! Anthropic's `/v1/messages` to chat completions: the request.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::super::wire::ApiFailure;
use super::object::{Object, is_string, list, refused, text};
use super::{
    Call, CalledFunction, ChatRequest, ChatTool, Content, ContentPart, Function, ImageUrl, JsonSchema,
    Message, ResponseFormat, ToolChoice,
};

/// Fields without an effect on a chat completion.
const IGNORED: [&str; 5] = ["cache_control", "metadata", "service_tier", "thinking", "top_k"];

const READ: [&str; 13] = [
    "context_management",
    "max_tokens",
    "messages",
    "model",
    "output_config",
    "output_format",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
];

/// Reads a request into one for `model`.
pub(super) fn chat_request<'a>(body: &'a str, model: &'a str) -> Result<ChatRequest<'a>, ApiFailure> {
    let body = Object::read(body, "the body")?;
    body.only(&READ, &IGNORED, None)?;
    let mut messages = Vec::new();
    if let Some(system) = body.get("system") {
        let content = Content::of(text_parts(system, "system")?);
        if !content.is_empty() {
            messages.push(Message::new("system", content));
        }
    }
    for message in body.list("messages")? {
        push_message(&mut messages, &Object::read(message.get(), "a message")?)?;
    }
    let mut chat = ChatRequest::new(model, messages, body.flag("stream")?);
    chat.max_tokens = body.get("max_tokens");
    chat.temperature = body.get("temperature");
    chat.top_p = body.get("top_p");
    chat.stop = body.get("stop_sequences").filter(|stop| stop.get() != "[]");
    chat.tools = body.list("tools")?.into_iter().map(tool).collect::<Result<_, _>>()?;
    chat.tool_choice = body.get("tool_choice").map(tool_choice).transpose()?;
    chat.response_format = response_format(&body)?;
    check_context_management(&body)?;
    Ok(chat)
}

/// Adds a message of the conversation. One of Anthropic's may be several of chat completions: tool results are
/// messages of their own there.
fn push_message<'a>(messages: &mut Vec<Message<'a>>, message: &Object<'a>) -> Result<(), ApiFailure> {
    message.only(&["role", "content"], &["cache_control"], Some("a message"))?;
    let content = message.get("content").ok_or_else(|| ApiFailure::new(400, "a message has no `content`"))?;
    let role = match message.text("role")?.as_ref() {
        "user" => "user",
        "assistant" => "assistant",
        "system" => "system",
        role => return Err(refused(&format!("role '{role}'"))),
    };
    match role {
        "user" if !is_string(content) => push_user(messages, content),
        "assistant" if !is_string(content) => push_assistant(messages, content),
        _ => {
            messages.push(Message::new(role, Content::of(text_parts(content, "content")?)));
            Ok(())
        }
    }
}

fn push_user<'a>(messages: &mut Vec<Message<'a>>, content: &'a RawValue) -> Result<(), ApiFailure> {
    let mut parts = Vec::new();
    for block in blocks(content)? {
        match block.text("type")?.as_ref() {
            "tool_result" => {
                let (result, images) = tool_result(&block)?;
                messages.push(result);
                parts.extend(images);
            }
            _ => parts.push(part(&block)?),
        }
    }
    let content = Content::of(parts);
    // A message of tool results only is not a message of the user.
    let is_only_results = content.is_empty() && messages.last().is_some_and(|last| last.role == "tool");
    if !is_only_results {
        messages.push(Message::new("user", content));
    }
    Ok(())
}

fn push_assistant<'a>(messages: &mut Vec<Message<'a>>, content: &'a RawValue) -> Result<(), ApiFailure> {
    let (mut parts, mut calls) = (Vec::new(), Vec::new());
    for block in blocks(content)? {
        match block.text("type")?.as_ref() {
            "tool_use" => calls.push(call(&block)?),
            "thinking" | "redacted_thinking" => {}
            _ => parts.push(part(&block)?),
        }
    }
    messages.push(Message { tool_calls: calls, ..Message::new("assistant", Content::of(parts)) });
    Ok(())
}

fn blocks(content: &RawValue) -> Result<Vec<Object<'_>>, ApiFailure> {
    list(content, "content")?.into_iter().map(|block| Object::read(block.get(), "a content block")).collect()
}

/// Returns a block of text or an image.
fn part<'a>(block: &Object<'a>) -> Result<ContentPart<'a>, ApiFailure> {
    let kind = block.text("type")?;
    let of = format!("content block '{kind}'");
    match kind.as_ref() {
        "text" => {
            block.only(&["type", "text"], &["cache_control"], Some(&of))?;
            Ok(ContentPart::Text { text: block.text("text")? })
        }
        "image" => {
            block.only(&["type", "source"], &["cache_control"], Some(&of))?;
            let source =
                block.get("source").ok_or_else(|| ApiFailure::new(400, "an image has no `source`"))?;
            image(&Object::read(source.get(), "source")?)
        }
        _ => Err(refused(&of)),
    }
}

fn image<'a>(source: &Object<'a>) -> Result<ContentPart<'a>, ApiFailure> {
    let url = match source.text("type")?.as_ref() {
        "base64" => {
            Cow::Owned(format!("data:{};base64,{}", source.text("media_type")?, source.text("data")?))
        }
        "url" => source.text("url")?,
        kind => return Err(refused(&format!("image source '{kind}'"))),
    };
    Ok(ContentPart::ImageUrl { image_url: ImageUrl { url, detail: None } })
}

/// Returns the texts and images of a content, which may be a text alone.
fn parts<'a>(content: &'a RawValue, what: &str) -> Result<Vec<ContentPart<'a>>, ApiFailure> {
    if is_string(content) {
        return Ok(vec![ContentPart::Text { text: text(content, what)? }]);
    }
    blocks(content)?.iter().map(part).collect()
}

/// Returns the texts of a content that can have nothing else.
fn text_parts<'a>(content: &'a RawValue, what: &str) -> Result<Vec<ContentPart<'a>>, ApiFailure> {
    let parts = parts(content, what)?;
    let is_image = |part: &ContentPart<'_>| matches!(part, ContentPart::ImageUrl { .. });
    if parts.iter().any(is_image) { Err(refused(&format!("an image in `{what}`"))) } else { Ok(parts) }
}

fn call<'a>(block: &Object<'a>) -> Result<Call<'a>, ApiFailure> {
    block.only(
        &["type", "id", "name", "input"],
        &["cache_control", "caller"],
        Some("content block 'tool_use'"),
    )?;
    let arguments = Cow::Borrowed(block.get("input").map_or("{}", RawValue::get));
    let function = CalledFunction { name: block.text("name")?, arguments };
    Ok(Call { id: block.text("id")?, r#type: "function", function })
}

/// Returns the message of a tool result, and its images, which a message of a tool cannot have.
fn tool_result<'a>(block: &Object<'a>) -> Result<(Message<'a>, Vec<ContentPart<'a>>), ApiFailure> {
    let read = ["type", "tool_use_id", "content", "is_error"];
    block.only(&read, &["cache_control"], Some("content block 'tool_result'"))?;
    let parts =
        block.get("content").map(|content| parts(content, "content")).transpose()?.unwrap_or_default();
    let is_text = |part: &ContentPart<'_>| matches!(part, ContentPart::Text { .. });
    let (mut texts, images): (Vec<_>, Vec<_>) = parts.into_iter().partition(is_text);
    if block.flag("is_error")? {
        texts.insert(0, ContentPart::Text { text: Cow::Borrowed("Error: ") });
    }
    let id = block.text("tool_use_id")?;
    Ok((Message { tool_call_id: Some(id), ..Message::new("tool", Content::of(texts)) }, images))
}

fn tool(tool: &RawValue) -> Result<ChatTool<'_>, ApiFailure> {
    let tool = Object::read(tool.get(), "a tool")?;
    let (kind, name) = (tool.text_or_empty("type")?, tool.text("name")?);
    if !matches!(kind.as_ref(), "" | "custom") {
        return Err(refused(&format!("tool '{kind}' ({name})")));
    }
    let read = ["type", "name", "description", "input_schema", "strict"];
    tool.only(&read, &["cache_control", "eager_input_streaming"], Some(&format!("tool '{name}'")))?;
    let (description, parameters, strict) =
        (tool.get("description"), tool.get("input_schema"), tool.get("strict"));
    Ok(ChatTool { r#type: "function", function: Function { name, description, parameters, strict } })
}

fn tool_choice(choice: &RawValue) -> Result<ToolChoice<'_>, ApiFailure> {
    let choice = Object::read(choice.get(), "tool_choice")?;
    choice.only(&["type", "name"], &["disable_parallel_tool_use"], Some("tool_choice"))?;
    Ok(match choice.text("type")?.as_ref() {
        "auto" => ToolChoice::Mode("auto"),
        "any" => ToolChoice::Mode("required"),
        "none" => ToolChoice::Mode("none"),
        "tool" => ToolChoice::named(choice.text("name")?),
        kind => return Err(refused(&format!("tool_choice '{kind}'"))),
    })
}

/// Returns the schema of the answer, which `output_config.format` has, or `output_format` of earlier versions.
fn response_format<'a>(body: &Object<'a>) -> Result<Option<ResponseFormat<'a>>, ApiFailure> {
    let mut format = body.get("output_format");
    if let Some(config) = body.get("output_config") {
        let config = Object::read(config.get(), "output_config")?;
        // Like `thinking`: how long a model thinks.
        config.only(&["format"], &["effort"], Some("output_config"))?;
        format = config.get("format").or(format);
    }
    let Some(format) = format else { return Ok(None) };
    let format = Object::read(format.get(), "output_config.format")?;
    match (format.text("type")?.as_ref(), format.get("schema")) {
        ("json_schema", Some(schema)) => {
            let json_schema = JsonSchema { name: Cow::Borrowed("answer"), schema, strict: None };
            Ok(Some(ResponseFormat::JsonSchema { json_schema }))
        }
        ("json_schema", None) => Err(ApiFailure::new(400, "`output_config.format` has no `schema`")),
        (kind, _) => Err(refused(&format!("output format '{kind}'"))),
    }
}

/// Accepts edits of the conversation that concern thinking only, which is not translated.
fn check_context_management(body: &Object<'_>) -> Result<(), ApiFailure> {
    let Some(management) = body.get("context_management") else { return Ok(()) };
    let management = Object::read(management.get(), "context_management")?;
    management.only(&["edits"], &[], Some("context_management"))?;
    for edit in management.list("edits")? {
        let kind = Object::read(edit.get(), "an edit")?.text("type")?;
        if !kind.starts_with("clear_thinking_") {
            return Err(refused(&format!("context_management '{kind}'")));
        }
    }
    Ok(())
}
