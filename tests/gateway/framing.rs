//! The bodies of requests: how they are delimited, how large they may be.

use std::io::Write as _;

use super::backend::Backend;
use super::http;
use super::stage::{Stage, settings};
use super::{CHAT, TINY};

fn echo() -> Backend {
    Backend::running(|request, stream| {
        http::respond(stream, 200, &serde_json::json!({ "bytes": request.body.len() }).to_string());
    })
}

#[test]
fn chunked_request_gets_a_length() {
    let backend = echo();
    let stage = Stage::new(&backend, settings());
    let (first, second) = TINY.split_at(9);
    let request = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    assert_eq!(http::exchange(stage.port, &request).status(), 200);
    let sent = backend.requests().remove(0);
    assert_eq!((sent.text().as_str(), sent.header("transfer-encoding")), (TINY, None));
    assert_eq!(sent.header("content-length"), Some(TINY.len().to_string().as_str()));
}

#[test]
fn two_lengths_and_length_beside_chunked_are_refused() {
    let backend = echo();
    let stage = Stage::new(&backend, settings());
    for headers in [
        "Content-Length: 30\r\nContent-Length: 5",
        "Content-Length: 30, 5",
        "Content-Length: +30",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
    ] {
        let request = format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{TINY}");
        assert_eq!(http::exchange(stage.port, &request).status(), 400, "{headers}");
    }
    assert_eq!(backend.requests(), []);
}

#[test]
fn compressed_body_is_415() {
    let backend = echo();
    let stage = Stage::new(&backend, settings());
    let asked = |coding: &str| {
        let length = TINY.len();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: {coding}\r\nContent-Length: {length}"
        );
        http::exchange(stage.port, &format!("{head}\r\n\r\n{TINY}"))
    };
    let refused = asked("gzip");
    assert_eq!(refused.status(), 415);
    let message = "the body is compressed: send it without `Content-Encoding`";
    assert_eq!(refused.json()["error"]["message"], message);
    assert_eq!(backend.requests(), []);
    assert_eq!(asked("identity").status(), 200);
}

#[test]
fn another_protocol_of_the_server_is_502() {
    let backend = Backend::running(|_, stream| {
        http::write(stream, "HTTP/1.1 101 Other\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n");
    });
    let stage = Stage::new(&backend, settings());
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert_eq!(response.status(), 502);
    assert_eq!(response.json()["error"]["message"], "ollama switched to another protocol, unasked");
}

#[test]
fn expect_100_continue_is_met() {
    let backend = echo();
    let stage = Stage::new(&backend, settings());
    let mut client = http::connect(stage.port);
    let length = TINY.len();
    http::write(
        &mut client,
        &format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        ),
    );
    assert_eq!(http::read(&mut client, false).expect("a response").status(), 100);
    http::write(&mut client, TINY);
    assert_eq!(http::read(&mut client, false).expect("a response").status(), 200);
    assert_eq!(backend.requests().remove(0).header("expect"), None);
}

#[test]
fn sixty_megabytes_pass_and_more_is_413() {
    let backend = echo();
    let stage = Stage::new(&backend, settings());
    let body = |size: usize| {
        let head = "{\"model\":\"tiny\",\"messages\":\"";
        format!("{head}{}\"}}", "x".repeat(size - head.len() - 2))
    };
    let send = |size: usize| {
        let mut client = http::connect(stage.port);
        client.write_all(http::post(CHAT, &body(size)).as_bytes()).expect("it reads all of it");
        http::read(&mut client, false).expect("a response")
    };
    let size = 60 * 1024 * 1024;
    assert_eq!(send(size).json()["bytes"], size);
    let refused = send(65 * 1024 * 1024);
    assert_eq!(refused.status(), 413);
    assert_eq!(refused.json()["error"]["message"], "the body is larger than 64 MiB");
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn body_without_a_model_is_400() {
    let backend = echo();
    let stage = Stage::new(&backend, settings());
    let long = format!("{{\"model\":\"{}\"}}", "x".repeat(1 << 20));
    for body in ["", "[]", "{}", "{\"model\":7}", "{\"model\":\"tiny\"", &long] {
        let response = http::exchange(stage.port, &http::post(CHAT, body));
        assert_eq!(response.status(), 400, "{body}");
        assert!(response.body.len() < 1000, "it is not repeated");
        assert_eq!(response.json()["error"]["param"], "model");
    }
    let response = http::exchange(stage.port, &http::post("/v1/messages", "{}"));
    assert_eq!(response.json()["type"], "error");
    assert_eq!(backend.requests(), []);
}
