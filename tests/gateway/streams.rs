//! Streams of events, and how they may end.

use std::net::TcpStream;

use super::backend::Backend;
use super::http::{self, Message};
use super::stage::{Stage, settings};
use super::{CHAT, DONE, LAST, TINY, TINY_STREAM, TOKEN};

/// Returns what a client gets of a stream that `script` writes.
fn streamed(path: &str, script: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Message {
    let backend = Backend::running(move |_, stream| script(stream));
    let stage = Stage::new(&backend, settings());
    http::exchange(stage.port, &http::post(path, TINY_STREAM))
}

#[test]
fn whole_stream_passes_unchanged() {
    let response = streamed(CHAT, |stream| {
        http::begin_stream(stream);
        for data in [": hello\n\n", TOKEN, "data: {\"usage\":{\"prompt_tokens\":1}}\n\n", LAST, DONE] {
            http::chunk(stream, data);
        }
        http::chunk(stream, "");
    });
    assert!(response.is_whole);
    let expected = format!(": hello\n\n{TOKEN}data: {{\"usage\":{{\"prompt_tokens\":1}}}}\n\n{LAST}{DONE}");
    assert_eq!(response.text(), expected);
}

#[test]
fn proxies_are_told_not_to_buffer_streams() {
    let stream = streamed(CHAT, |stream| {
        http::write(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: yes\r\n\
             Cache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        for data in [LAST, ""] {
            http::chunk(stream, data);
        }
    });
    let told = |response: &Message| {
        let values = |name: &str| -> Vec<String> {
            let all = response.headers.iter().filter(|(known, _)| known == name);
            all.map(|(_, value)| value.clone()).collect()
        };
        (values("x-accel-buffering").join(","), values("cache-control").join(","))
    };
    assert_eq!(told(&stream), ("no".to_owned(), "no-cache".to_owned()));
    let whole = streamed(CHAT, |stream| http::respond(stream, 200, "{}"));
    assert_eq!(told(&whole), (String::new(), String::new()));
}

#[test]
fn server_dead_in_mid_stream_is_an_error() {
    let backend = Backend::stopped(|_, _| {});
    let own = backend.handle();
    backend.set_script(move |_, stream| {
        http::begin_stream(stream);
        http::chunk(stream, TOKEN);
        // As the end of its process does.
        own.stop();
    });
    let stage = Stage::new(&backend, settings());
    let response = http::exchange(stage.port, &http::post(CHAT, TINY_STREAM));
    assert!(!response.is_whole);
    assert!(response.text().starts_with(TOKEN) && response.text().contains("stream_cut"), "{response:?}");
}

#[test]
fn stream_that_ends_without_its_mark_is_aborted() {
    let response = streamed(CHAT, |stream| {
        http::begin_stream(stream);
        http::chunk(stream, TOKEN);
        http::chunk(stream, "");
    });
    assert!(!response.is_whole);
    let text = response.text();
    let (before, event) = text.split_at(TOKEN.len());
    assert_eq!(before, TOKEN);
    let event = event.trim_start().strip_prefix("data: ").expect("an event").trim_end();
    let error: serde_json::Value = serde_json::from_str(event).expect("JSON");
    assert_eq!(error["error"]["code"], "stream_cut");
}

#[test]
fn finish_reason_is_an_end_mark() {
    let response = streamed(CHAT, |stream| {
        http::begin_stream(stream);
        http::chunk(stream, LAST);
        http::chunk(stream, "");
    });
    assert!(response.is_whole);
    assert_eq!(response.text(), LAST);
}

#[test]
fn reset_in_mid_stream_is_aborted() {
    let response = streamed(CHAT, |stream| {
        http::begin_stream(stream);
        http::chunk(stream, TOKEN);
        // The reset would overtake the bytes.
        std::thread::sleep(std::time::Duration::from_millis(100));
        http::reset(stream);
    });
    assert!(!response.is_whole);
    assert!(response.text().contains("stream_cut"), "{}", response.text());
}

#[test]
fn cut_event_does_not_hide_the_error() {
    let response = streamed(CHAT, |stream| {
        http::begin_stream(stream);
        http::chunk(stream, "data: {\"choices\":[{\"del");
        http::chunk(stream, "");
    });
    assert!(!response.is_whole);
    assert!(response.text().contains("\n\ndata: {\"error\""), "{}", response.text());
}

/// There, the end of the connection is the end of the body: only the content tells a cut from an end.
#[test]
fn old_http_is_judged_by_its_content() {
    let head = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let whole = streamed(CHAT, move |stream| {
        http::write(stream, &format!("{head}{TOKEN}{LAST}{DONE}"));
        drop(stream.shutdown(std::net::Shutdown::Both));
    });
    assert!(whole.is_whole);
    assert_eq!(whole.text(), format!("{TOKEN}{LAST}{DONE}"));
    let cut = streamed(CHAT, move |stream| {
        http::write(stream, &format!("{head}{TOKEN}"));
        drop(stream.shutdown(std::net::Shutdown::Both));
    });
    assert!(!cut.is_whole);
    assert!(cut.text().contains("stream_cut"), "{}", cut.text());
}

#[test]
fn cut_json_of_old_http_is_aborted() {
    for (body, is_whole) in [
        ("{\"choices\":[{\"finish_reason\":\"stop\"}]}\n", true),
        ("[1, 2]", true),
        ("{\"choices\":[{\"finish_reason\":\"sto", false),
        ("", false),
    ] {
        let response = streamed(CHAT, move |stream| {
            http::write(stream, &format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}"));
            drop(stream.shutdown(std::net::Shutdown::Both));
        });
        assert_eq!((response.is_whole, response.text().as_str()), (is_whole, body));
    }
}

#[test]
fn cut_messages_end_in_anthropics_error_event() {
    let response = streamed("/v1/messages", |stream| {
        http::begin_stream(stream);
        http::chunk(stream, "event: message_start\ndata: {\"type\":\"message_start\"}\n\n");
        http::chunk(stream, "");
    });
    assert!(!response.is_whole);
    assert!(response.text().contains("event: error\ndata: {"), "{}", response.text());
    let whole = streamed("/v1/messages", |stream| {
        http::begin_stream(stream);
        http::chunk(stream, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
        http::chunk(stream, "");
    });
    assert!(whole.is_whole);
}

#[test]
fn error_after_partial_output_passes_as_it_is() {
    let error = "data: {\"error\":{\"message\":\"out of memory\"}}\n\n";
    let response = streamed(CHAT, move |stream| {
        http::begin_stream(stream);
        http::chunk(stream, TOKEN);
        http::chunk(stream, error);
        http::chunk(stream, "");
    });
    assert!(response.text().starts_with(&format!("{TOKEN}{error}")), "{}", response.text());
    assert!(!response.text().contains("stream_cut"), "{}", response.text());
}

#[test]
fn short_body_is_not_a_whole_one() {
    let backend = Backend::running(|_, stream| {
        http::write(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{}",
        );
        drop(stream.shutdown(std::net::Shutdown::Both));
    });
    let stage = Stage::new(&backend, settings());
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert!(!response.is_whole);
}

#[test]
fn closed_before_its_head_is_502() {
    let backend = Backend::running(|_, stream| drop(stream.shutdown(std::net::Shutdown::Both)));
    let stage = Stage::new(&backend, settings());
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert_eq!(response.status(), 502);
    assert_eq!(response.json()["error"]["message"], "ollama closed the connection without a response");
    // A fresh connection is used once.
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn stream_options_are_not_added() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let stage = Stage::new(&backend, settings());
    let body = " {\"temperature\": 1.0,\t\"model\" : \"fast\", \"stream\":true, \"x\":{\"model\":\"fast\"}} ";
    http::exchange(stage.port, &http::post(CHAT, body));
    let sent = backend.requests().remove(0);
    assert_eq!(sent.text(), body.replacen("\"fast\"", "\"tiny\"", 1));
    assert_eq!(sent.header("content-length"), Some(sent.body.len().to_string().as_str()));
}
