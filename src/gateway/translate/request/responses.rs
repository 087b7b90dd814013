//! OpenAI's `/v1/responses` to chat completions: the request.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::super::wire::ApiFailure;
use super::object::{Object, is_string, list, refused, text};
use super::{
    Call, CalledFunction, ChatRequest, ChatTool, Content, ContentPart, Function, ImageUrl, JsonSchema,
    Message, ResponseFormat, ToolChoice,
};

/// Fields without an effect on a chat completion.
const IGNORED: [&str; 13] = [
    "client_metadata",
    "include",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream_options",
    "top_k",
    "user",
];

const READ: [&str; 12] = [
    "input",
    "instructions",
    "max_output_tokens",
    "model",
    "stream",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
];

/// The separator between the texts of several leading system messages: most chat templates take only one.
const SYSTEM_SEPARATOR: &str = "\n\n";

/// Reads a request into one for `model`.
pub(super) fn chat_request<'a>(body: &'a str, model: &'a str) -> Result<ChatRequest<'a>, ApiFailure> {
    let body = Object::read(body, "the body")?;
    body.only(&READ, &IGNORED, None)?;
    refuse_unless(&body, "truncation", "\"disabled\"")?;
    refuse_unless(&body, "top_logprobs", "0")?;
    let mut messages = Vec::new();
    let instructions = body.text_or_empty("instructions")?;
    if !instructions.is_empty() {
        messages.push(Message::new("system", Content::Text(instructions)));
    }
    match body.get("input") {
        Some(input) if is_string(input) => {
            messages.push(Message::new("user", Content::Text(text(input, "input")?)));
        }
        Some(input) => {
            for item in list(input, "input")? {
                push_item(&mut messages, &Object::read(item.get(), "an input item")?)?;
            }
        }
        None => return Err(ApiFailure::new(400, "`input` is missing")),
    }
    let mut chat = ChatRequest::new(model, messages, body.flag("stream")?);
    chat.max_tokens = body.get("max_output_tokens");
    chat.temperature = body.get("temperature");
    chat.top_p = body.get("top_p");
    chat.tools = body.list("tools")?.into_iter().map(tool).collect::<Result<_, _>>()?;
    chat.tool_choice = body.get("tool_choice").map(tool_choice).transpose()?;
    chat.response_format = body.get("text").map(response_format).transpose()?.flatten();
    Ok(chat)
}

/// Refuses a field that has another value than its default.
fn refuse_unless(body: &Object<'_>, key: &str, default: &str) -> Result<(), ApiFailure> {
    match body.get(key) {
        Some(value) if value.get() != default => Err(refused(key)),
        _ => Ok(()),
    }
}

fn push_item<'a>(messages: &mut Vec<Message<'a>>, item: &Object<'a>) -> Result<(), ApiFailure> {
    let kind = item.text_or_empty("type")?;
    match kind.as_ref() {
        "" | "message" => push_message(messages, item),
        "function_call" => push_call(messages, item),
        "function_call_output" => push_output(messages, item),
        "reasoning" => Ok(()),
        _ => Err(refused(&format!("input item '{kind}'"))),
    }
}

fn push_message<'a>(messages: &mut Vec<Message<'a>>, item: &Object<'a>) -> Result<(), ApiFailure> {
    item.only(&["type", "role", "content"], &["id", "status", "phase"], Some("a message"))?;
    let role = match item.text("role")?.as_ref() {
        "user" => "user",
        "assistant" => "assistant",
        "developer" | "system" => "system",
        role => return Err(refused(&format!("role '{role}'"))),
    };
    let content = item.get("content").ok_or_else(|| ApiFailure::new(400, "a message has no `content`"))?;
    let content = Content::of(parts(content, "content")?);
    match (messages.as_mut_slice(), content) {
        ([Message { role: "system", content: Content::Text(before), .. }], Content::Text(text))
            if role == "system" =>
        {
            let before = before.to_mut();
            before.push_str(SYSTEM_SEPARATOR);
            before.push_str(&text);
        }
        (_, content) => messages.push(Message::new(role, content)),
    }
    Ok(())
}

/// Adds a tool call to the answer that it was part of.
fn push_call<'a>(messages: &mut Vec<Message<'a>>, item: &Object<'a>) -> Result<(), ApiFailure> {
    let read = ["type", "call_id", "name", "arguments"];
    item.only(&read, &["id", "status"], Some("input item 'function_call'"))?;
    let function = CalledFunction { name: item.text("name")?, arguments: item.text("arguments")? };
    let call = Call { id: item.text("call_id")?, r#type: "function", function };
    match messages.last_mut() {
        Some(last) if last.role == "assistant" => last.tool_calls.push(call),
        _ => messages.push(Message {
            tool_calls: vec![call],
            ..Message::new("assistant", Content::Text(Cow::Borrowed("")))
        }),
    }
    Ok(())
}

/// Adds a tool's output. Its images become a message of the user, because a message of a tool has only text.
fn push_output<'a>(messages: &mut Vec<Message<'a>>, item: &Object<'a>) -> Result<(), ApiFailure> {
    let read = ["type", "call_id", "output"];
    item.only(&read, &["id", "status"], Some("input item 'function_call_output'"))?;
    let output = item.get("output").ok_or_else(|| ApiFailure::new(400, "`output` is missing"))?;
    let is_text = |part: &ContentPart<'_>| matches!(part, ContentPart::Text { .. });
    let (texts, images): (Vec<_>, Vec<_>) = parts(output, "output")?.into_iter().partition(is_text);
    let id = item.text("call_id")?;
    let result = Message { tool_call_id: Some(id), ..Message::new("tool", Content::of(texts)) };
    // All results of an answer follow it at once, so the images of the ones before come behind this one.
    if let [.., Message { role: "tool", .. }, Message { role: "user", content: Content::Parts(before), .. }] =
        messages.as_mut_slice()
    {
        before.extend(images);
        messages.insert(messages.len() - 1, result);
        return Ok(());
    }
    messages.push(result);
    if !images.is_empty() {
        messages.push(Message::new("user", Content::Parts(images)));
    }
    Ok(())
}

/// Returns the parts of a content, which may be a text alone.
fn parts<'a>(content: &'a RawValue, what: &str) -> Result<Vec<ContentPart<'a>>, ApiFailure> {
    if is_string(content) {
        return Ok(vec![ContentPart::Text { text: text(content, what)? }]);
    }
    let part = |part: &'a RawValue| part_of(&Object::read(part.get(), "a content part")?);
    list(content, what)?.into_iter().map(part).collect()
}

fn part_of<'a>(part: &Object<'a>) -> Result<ContentPart<'a>, ApiFailure> {
    let kind = part.text("type")?;
    let of = format!("content part '{kind}'");
    match kind.as_ref() {
        "input_text" | "output_text" | "text" => {
            part.only(&["type", "text"], &["annotations", "logprobs"], Some(&of))?;
            Ok(ContentPart::Text { text: part.text("text")? })
        }
        "refusal" => Ok(ContentPart::Text { text: part.text("refusal")? }),
        "input_image" => {
            part.only(&["type", "image_url", "detail"], &[], Some(&of))?;
            let detail = part.get("detail").map(|detail| text(detail, "detail")).transpose()?;
            let detail = detail.filter(|detail| detail != "auto");
            Ok(ContentPart::ImageUrl { image_url: ImageUrl { url: part.text("image_url")?, detail } })
        }
        _ => Err(refused(&of)),
    }
}

fn tool(tool: &RawValue) -> Result<ChatTool<'_>, ApiFailure> {
    let tool = Object::read(tool.get(), "a tool")?;
    let kind = tool.text("type")?;
    if kind != "function" {
        return Err(refused(&format!("tool '{kind}'")));
    }
    let name = tool.text("name")?;
    let read = ["type", "name", "description", "parameters", "strict"];
    tool.only(&read, &[], Some(&format!("tool '{name}'")))?;
    let (description, parameters, strict) =
        (tool.get("description"), tool.get("parameters"), tool.get("strict"));
    Ok(ChatTool { r#type: "function", function: Function { name, description, parameters, strict } })
}

fn tool_choice(choice: &RawValue) -> Result<ToolChoice<'_>, ApiFailure> {
    if is_string(choice) {
        return Ok(match text(choice, "tool_choice")?.as_ref() {
            "auto" => ToolChoice::Mode("auto"),
            "none" => ToolChoice::Mode("none"),
            "required" => ToolChoice::Mode("required"),
            mode => return Err(refused(&format!("tool_choice '{mode}'"))),
        });
    }
    let choice = Object::read(choice.get(), "tool_choice")?;
    match choice.text("type")?.as_ref() {
        "function" => Ok(ToolChoice::named(choice.text("name")?)),
        kind => Err(refused(&format!("tool_choice '{kind}'"))),
    }
}

/// Reads `text`, the format of the answer.
fn response_format(text: &RawValue) -> Result<Option<ResponseFormat<'_>>, ApiFailure> {
    let text = Object::read(text.get(), "text")?;
    text.only(&["format"], &["verbosity"], Some("text"))?;
    let Some(format) = text.get("format") else { return Ok(None) };
    let format = Object::read(format.get(), "text.format")?;
    match format.text("type")?.as_ref() {
        "text" => Ok(None),
        "json_object" => Ok(Some(ResponseFormat::JsonObject)),
        "json_schema" => {
            let schema =
                format.get("schema").ok_or_else(|| ApiFailure::new(400, "`text.format` has no `schema`"))?;
            let json_schema = JsonSchema { name: format.text("name")?, schema, strict: format.get("strict") };
            Ok(Some(ResponseFormat::JsonSchema { json_schema }))
        }
        kind => Err(refused(&format!("text.format '{kind}'"))),
    }
}
