//! The tables of `tests/cases/gateway/cases.json`: what the gateway reads, refuses, replaces and translates.

use base64::prelude::{BASE64_STANDARD, Engine};
use fusion::core::address::Address;
use fusion::core::api::sse::{Item, Parser};
use fusion::gateway::guard::Guard;
use fusion::gateway::translate::{self, Stamp, StreamEnd, Translator};
use fusion::gateway::wire::Wire;
use fusion::gateway::{framing, splice};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use serde_json::{Value, json};

fn cases(table: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("cases/gateway/cases.json")).unwrap();
    let cases = all[table].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

/// A table that no test reads would be skipped without a word.
#[test]
fn every_table_is_known() {
    let all: Value = serde_json::from_str(include_str!("cases/gateway/cases.json")).unwrap();
    let names: Vec<&str> = all.as_object().unwrap().keys().map(String::as_str).collect();
    let known = [
        "about",
        "splice",
        "hosts",
        "origins",
        "framing",
        "translate_request",
        "translate_stream",
        // In `gateway/admin.rs`.
        "refused_instances",
    ];
    assert_eq!(std::collections::BTreeSet::from_iter(names), std::collections::BTreeSet::from(known));
}

fn decode(base64: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap()
}

fn wire(name: &Value) -> Wire {
    match name.as_str() {
        Some("messages") => Wire::Messages,
        Some("responses") => Wire::Responses,
        _ => panic!("no wire {name}"),
    }
}

fn stamp() -> Stamp {
    Stamp { tag: "1".to_owned(), created_at: 0 }
}

/// The model behind an alias or a name with its service.
fn resolved(case: &Value, model: &str) -> String {
    let alias = case["aliases"][model].as_str();
    let in_service = model.split_once('/').filter(|(service, model)| case["services"][service] == *model);
    alias.or(in_service.map(|(_, model)| model)).unwrap_or(model).to_owned()
}

#[test]
fn bodies_are_spliced_byte_for_byte() {
    for case in cases("splice") {
        let body = decode(&case["body_base64"]);
        let fields = splice::fields(&body).unwrap();
        let model = resolved(&case, &fields.model);
        let sent = splice::with_model(&body.into(), &fields, &model).concat();
        assert_eq!(sent, decode(&case["at_backend_base64"]), "{}", case["name"]);
    }
}

fn guard() -> Guard {
    Guard {
        bound: Address { host: "127.0.0.1".to_owned(), port: 8767 },
        hosts: Vec::new(),
        cors_origins: Vec::new(),
        token: None,
    }
}

#[test]
fn hosts_are_allowed_as_listed() {
    for case in cases("hosts") {
        let host = HeaderValue::from_str(case["host"].as_str().unwrap()).unwrap();
        let headers = HeaderMap::from_iter([(http::header::HOST, host)]);
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            let checked = guard().check(&method, "/v1/models", &headers);
            assert_eq!(checked.is_ok(), case["allowed"], "{method} {case}");
        }
    }
}

#[test]
fn origins_are_allowed_as_listed() {
    for case in cases("origins") {
        let mut headers = HeaderMap::new();
        for (name, key) in [("host", "host"), ("origin", "origin"), ("sec-fetch-site", "sec_fetch_site")] {
            if let Some(value) = case[key].as_str() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        for path in ["/v1/models", "/api/instances", "/ws", "/"] {
            let checked = guard().check(&Method::GET, path, &headers);
            assert_eq!(checked.is_ok(), case["allowed"], "{path} {case}");
        }
    }
}

/// The headers of lines, or `None` if a line is malformed in itself, which hyper refuses.
fn parsed(lines: &Value) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines.as_array().unwrap() {
        let (name, value) = line.as_str().unwrap().split_once(':')?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?);
    }
    Some(headers)
}

#[test]
fn ambiguous_framing_is_refused_as_listed() {
    for case in cases("framing") {
        let passes = parsed(&case["headers"])
            .is_some_and(|headers| framing::check(Version::HTTP_11, &headers).is_ok());
        if case["refused"] == true {
            assert!(!passes, "{case}");
        } else {
            // Both a length and a coding may be refused or framed anew; here they are refused.
            assert_eq!(passes, !case["note"].as_str().unwrap().starts_with("400"), "{case}");
        }
    }
}

/// Returns a chat request with the arguments of its tool calls as JSON in place of text.
fn with_parsed_arguments(mut chat: Value) -> Value {
    for message in chat["messages"].as_array_mut().unwrap() {
        for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
            let arguments = &mut call["function"]["arguments"];
            *arguments = serde_json::from_str(arguments.as_str().unwrap()).unwrap();
        }
    }
    chat
}

#[test]
fn requests_are_translated_as_listed() {
    for case in cases("translate_request") {
        let body = case["request"].to_string();
        let translated = translate::request(wire(&case["wire"]), body.as_bytes(), "org/tiny-m");
        if let Some(message) = case["refused"].as_str() {
            let failure = translated.expect_err(&body);
            assert_eq!((failure.status, failure.message.as_str()), (400, message), "{body}");
        } else {
            let chat: Value = serde_json::from_slice(&translated.expect(&body)).unwrap();
            assert_eq!(with_parsed_arguments(chat), with_parsed_arguments(case["chat"].clone()), "{body}");
        }
    }
}

/// The events of a stream with their data, in which ids are replaced by their order of appearance.
fn events(stream: &[u8]) -> Vec<(String, Value)> {
    let mut parser = Parser::default();
    let mut rest = stream;
    let mut events = Vec::new();
    while let Some(item) = parser.next(&mut rest).unwrap() {
        if let Item::Event(event) = item {
            events.push((event.name.to_owned(), serde_json::from_str(&event.data).unwrap()));
        }
    }
    let mut ids = Vec::new();
    for (_, data) in &mut events {
        number_ids(data, &mut ids);
    }
    events
}

fn number_ids(value: &mut Value, ids: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| number_ids(item, ids)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(id) if key == "id" || key == "item_id" => {
                        let known = ids.iter().position(|known| known == id);
                        let number = known.unwrap_or_else(|| {
                            ids.push(id.clone());
                            ids.len() - 1
                        });
                        *value = number.into();
                    }
                    value => number_ids(value, ids),
                }
            }
        }
        _ => {}
    }
}

/// The server's stream of a case.
fn chat_stream(case: &Value, end: &str) -> Vec<u8> {
    let chunks = case["chat"].as_array().unwrap().iter().map(|chunk| format!("data: {chunk}\n\n"));
    (chunks.collect::<String>() + end).into_bytes()
}

fn translated(wire: Wire, pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<u8>, StreamEnd) {
    let mut translator = Translator::new(wire, "m", stamp());
    let mut out = Vec::new();
    pieces.for_each(|piece| translator.push(&piece, &mut out));
    let ending = translator.end(&mut out);
    (out, ending)
}

#[test]
fn streams_are_translated_as_listed() {
    for case in cases("translate_stream") {
        for name in ["messages", "responses"] {
            let expected = events(case[name].as_str().unwrap().as_bytes());
            for end in ["data: [DONE]\n\n", ""] {
                let stream = chat_stream(&case, end);
                for size in [1, 7, stream.len()] {
                    let pieces = stream.chunks(size).map(<[u8]>::to_vec);
                    let (out, ending) = translated(wire(&json!(name)), pieces);
                    assert_eq!(ending, StreamEnd::Whole);
                    assert_eq!(events(&out), expected, "{} as {name}", case["name"]);
                }
            }
        }
    }
}

#[test]
fn cut_streams_never_end_whole() {
    for case in cases("translate_stream") {
        let finish = case["chat"].as_array().unwrap().iter().position(|chunk| {
            chunk["choices"].as_array().unwrap().iter().any(|choice| !choice["finish_reason"].is_null())
        });
        for (name, last) in [("messages", "error"), ("responses", "response.failed")] {
            let chunks = &case["chat"].as_array().unwrap()[..finish.unwrap()];
            for end in ["data: [DONE]\n\n", ""] {
                let stream = chat_stream(&json!({ "chat": chunks }), end);
                let (out, ending) = translated(wire(&json!(name)), std::iter::once(stream));
                assert_eq!(ending, StreamEnd::Failed);
                assert_eq!(events(&out).last().unwrap().0, last, "{}", String::from_utf8_lossy(&out));
            }
        }
    }
}
