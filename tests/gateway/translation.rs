//! Requests in a wire that the server lacks.

use std::net::TcpStream;

use super::backend::Backend;
use super::http::{self, Message};
use super::stage::{Stage, settings};
use super::{DONE, LAST, TOKEN};

const MESSAGES: &str = "/v1/messages";
const ASKED: &str = r#"{"model":"fast","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
const ASKED_STREAM: &str =
    r#"{"model":"fast","max_tokens":5,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"tiny","choices":[{"index":0,
    "message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;

/// A server that has only chat completions, and a gateway in front of it.
fn stage(script: impl Fn(&Message, &mut TcpStream) + Send + Sync + 'static) -> (Backend, Stage) {
    let backend = Backend::running(script);
    backend.set_version("0.13.9");
    let stage = Stage::new(&backend, settings());
    (backend, stage)
}

#[test]
fn messages_become_chat_completions() {
    let (backend, stage) = stage(|_, stream| http::respond(stream, 200, ANSWER));
    let response = http::exchange(stage.port, &http::post(MESSAGES, ASKED)).json();
    assert_eq!(response["type"], "message");
    assert_eq!(response["content"][0]["text"], "Hi");
    assert_eq!(response["usage"]["input_tokens"], 3);
    let sent = backend.requests().remove(0);
    assert_eq!(sent.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(sent.json()["model"], "tiny");
    let response =
        http::exchange(stage.port, &http::post("/v1/responses", r#"{"model":"tiny","input":"hi"}"#));
    assert_eq!(response.json()["output"][0]["content"][0]["text"], "Hi");
}

#[test]
fn time_to_retry_outlives_the_translation() {
    let (_backend, stage) = stage(|_, stream| {
        http::write(
            stream,
            "HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        );
    });
    let response = http::exchange(stage.port, &http::post(MESSAGES, ASKED));
    assert_eq!((response.status(), response.header("retry-after")), (429, Some("7")));
}

#[test]
fn translated_stream_ends_with_its_mark() {
    let (_backend, stage) = stage(|_, stream| {
        http::begin_stream(stream);
        for data in [TOKEN, LAST, DONE, ""] {
            http::chunk(stream, data);
        }
    });
    let response = http::exchange(stage.port, &http::post(MESSAGES, ASKED_STREAM));
    assert!(response.is_whole);
    let text = response.text();
    assert!(text.starts_with("event: message_start\n"), "{text}");
    assert!(text.contains("\"text\":\"Hi\""), "{text}");
    assert!(text.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"), "{text}");
}

#[test]
fn translated_stream_that_is_cut_is_aborted() {
    for path in [MESSAGES, "/v1/responses"] {
        let (_backend, stage) = stage(|_, stream| {
            http::begin_stream(stream);
            http::chunk(stream, TOKEN);
            http::chunk(stream, "");
        });
        let body =
            ASKED_STREAM.replace("\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]", "\"input\":\"hi\"");
        let body = if path == MESSAGES { ASKED_STREAM } else { &body.replace("\"max_tokens\":5,", "") };
        let response = http::exchange(stage.port, &http::post(path, body));
        assert!(!response.is_whole, "{path}");
        assert!(response.text().contains("error"), "{}", response.text());
    }
}

#[test]
fn missing_api_is_noticed_once() {
    let (backend, stage) = stage(|request, stream| {
        if request.line.contains("/v1/messages") {
            http::respond(stream, 404, "404 page not found");
        } else {
            http::respond(stream, 200, ANSWER);
        }
    });
    // A version that does not tell.
    backend.set_version("0.0.0");
    for _ in 0..2 {
        let response = http::exchange(stage.port, &http::post(MESSAGES, ASKED)).json();
        assert_eq!(response["content"][0]["text"], "Hi");
    }
    let lines: Vec<String> = backend.requests().into_iter().map(|request| request.line).collect();
    let chat = "POST /v1/chat/completions HTTP/1.1";
    assert_eq!(lines, ["POST /v1/messages HTTP/1.1", chat, chat]);
}

#[test]
fn server_with_the_api_gets_it_unchanged() {
    let (backend, stage) = stage(|_, stream| http::respond(stream, 200, "{}"));
    backend.set_version("0.14.0");
    http::exchange(stage.port, &http::post(MESSAGES, ASKED));
    assert_eq!(backend.requests().remove(0).text(), ASKED.replace("fast", "tiny"));
}

#[test]
fn tokens_are_counted_without_a_generation() {
    let (backend, stage) = stage(|_, stream| http::respond(stream, 500, "{}"));
    let response = http::exchange(stage.port, &http::post("/v1/messages/count_tokens", ASKED)).json();
    assert!(response["input_tokens"].as_u64().is_some_and(|count| count > 0), "{response}");
    assert_eq!(backend.requests(), []);
}

/// Ollama has the API of messages without this path.
#[test]
fn missing_count_says_nothing_of_messages() {
    for version in ["0.14.0", "0.0.0"] {
        let (backend, stage) = stage(|request, stream| {
            let status = if request.line.contains("count_tokens") { 404 } else { 200 };
            http::respond(stream, status, "{\"own\":true}");
        });
        backend.set_version(version);
        let response = http::exchange(stage.port, &http::post("/v1/messages/count_tokens", ASKED));
        assert_eq!(response.status(), 200, "{version}: {}", response.text());
        assert!(response.json()["input_tokens"].as_u64().is_some_and(|count| count > 0));
        assert_eq!(http::exchange(stage.port, &http::post(MESSAGES, ASKED)).json()["own"], true, "{version}");
    }
}

#[test]
fn untranslatable_request_is_refused_by_name() {
    let (backend, stage) = stage(|_, stream| http::respond(stream, 200, ANSWER));
    let body = ASKED.replace("\"max_tokens\":5", "\"max_tokens\":5,\"mcp_servers\":[{\"type\":\"url\"}]");
    let response = http::exchange(stage.port, &http::post(MESSAGES, &body));
    assert_eq!(response.status(), 400);
    assert!(response.text().contains("mcp_servers"), "{}", response.text());
    assert_eq!(backend.requests(), []);
}

#[test]
fn error_of_the_server_is_translated() {
    let (_backend, stage) =
        stage(|_, stream| http::respond(stream, 500, r#"{"error":{"message":"out of memory"}}"#));
    let response = http::exchange(stage.port, &http::post(MESSAGES, ASKED));
    assert_eq!(response.status(), 500);
    assert_eq!(response.json()["error"]["message"], "out of memory");
    assert_eq!(response.json()["type"], "error");
}

#[test]
fn some_statuses_mean_a_missing_api() {
    for (status, is_missing) in [(405, true), (501, true), (400, false), (429, false), (500, false)] {
        let (backend, stage) = stage(move |request, stream| {
            if request.line.contains("/v1/messages") {
                http::respond(stream, status, "{\"own\":true}");
            } else {
                http::respond(stream, 200, ANSWER);
            }
        });
        backend.set_version("0.0.0");
        let response = http::exchange(stage.port, &http::post(MESSAGES, ASKED));
        let expected = if is_missing { 200 } else { status };
        assert_eq!(response.status(), expected, "{status}");
        assert_eq!(response.json()["own"] == true, !is_missing, "{status}");
        assert_eq!(backend.requests().len(), if is_missing { 2 } else { 1 }, "{status}");
    }
}

#[test]
fn translated_stream_is_marked_as_one() {
    let (_backend, stage) = stage(|_, stream| {
        http::begin_stream(stream);
        for data in [TOKEN, LAST, DONE, ""] {
            http::chunk(stream, data);
        }
    });
    let response = http::exchange(stage.port, &http::post(MESSAGES, ASKED_STREAM));
    assert_eq!(response.header("x-accel-buffering"), Some("no"));
    assert_eq!(response.header("cache-control"), Some("no-cache"));
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
}
