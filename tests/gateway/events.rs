//! What happens, as it is told over the WebSocket and as server-sent events.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::backend::Backend;
use super::http::{self, Message};
use super::stage::{Stage, settings};
use super::{CHAT, TINY};

const ANSWER: &str = r#"{"choices":[{"finish_reason":"stop"}]}"#;

fn stage(backend: &Backend) -> Stage {
    Stage::new(backend, settings())
}

/// Reads a stream of events until one of the type comes, and returns it.
fn next_event(stream: &mut TcpStream, kind: &str) -> Value {
    let mut read = Vec::new();
    let mut byte = [0];
    loop {
        assert_eq!(stream.read(&mut byte).expect("an event comes"), 1, "{}", String::from_utf8_lossy(&read));
        read.push(byte[0]);
        let text = String::from_utf8_lossy(&read);
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        if let Some(event) = events.into_iter().find(|event| event["type"] == kind) {
            return event;
        }
    }
}

fn listen(stage: &Stage, last: Option<&str>) -> TcpStream {
    let mut stream = http::connect(stage.port);
    let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
    http::write(&mut stream, &format!("GET /api/events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n"));
    stream
}

fn ask(stage: &Stage) -> Message {
    http::exchange(stage.port, &http::post(CHAT, TINY))
}

#[test]
fn request_that_ends_is_an_event() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let mut events = listen(&stage, None);
    // The response to the first part shows that it listens.
    let mut head = [0; 12];
    events.read_exact(&mut head).expect("a head");
    ask(&stage);
    let event = next_event(&mut events, "request_finished");
    assert_eq!((&event["service"], &event["outcome"]), (&json!("ollama"), &json!("ok")));
    let id = event["id"].as_u64().expect("an id");
    // One that comes back gets what it has missed, once.
    ask(&stage);
    let mut again = listen(&stage, Some(&id.to_string()));
    let event = next_event(&mut again, "request_finished");
    // What is measured at intervals may come between them.
    assert!(event["id"].as_u64() > Some(id), "{event}");
    for unknown in ["1", "abc", "9007199254740991"] {
        assert_eq!(next_event(&mut listen(&stage, Some(unknown)), "resync")["type"], "resync", "{unknown}");
    }
}

#[test]
fn change_of_state_is_an_event() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let act = |deed: &str| {
        let path = format!("/api/instances/ollama/{deed}");
        assert_eq!(http::exchange(stage.port, &http::post(&path, "")).status(), 200, "{deed}");
    };
    act("start");
    let mut events = listen(&stage, None);
    // It shows that the service was seen while it ran.
    assert_eq!(next_event(&mut events, "metrics_updated")["service"], "ollama");
    act("stop");
    let event = next_event(&mut events, "status_changed");
    assert_eq!(event["service"], "ollama");
    assert_eq!((&event["previous"], &event["state"]), (&json!("ready"), &json!("stopped")));
}

#[test]
fn change_of_health_is_an_event() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let started = http::exchange(stage.port, &http::post("/api/instances/ollama/start", ""));
    assert_eq!(started.status(), 200);
    let mut events = listen(&stage, None);
    assert_eq!(next_event(&mut events, "metrics_updated")["service"], "ollama");
    for is_well in [false, true] {
        backend.set_well(is_well);
        let event = next_event(&mut events, "health_changed");
        assert_eq!((&event["service"], &event["healthy"]), (&json!("ollama"), &json!(is_well)));
    }
}

#[test]
fn broken_configuration_is_an_event() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let mut events = listen(&stage, None);
    events.read_exact(&mut [0; 12]).expect("a head");
    let file = stage.directory.path().join("config.toml");
    for (text, is_ok) in [("[gateway]\nport = \"x\"\n", false), ("[aliases]\nother = \"tiny\"\n", true)] {
        std::fs::write(&file, text).expect("its own directory");
        let event = next_event(&mut events, "config_changed");
        assert_eq!(event["ok"], is_ok, "{event}");
        assert_eq!(
            event["message"].as_str().is_some_and(|message| message.contains("port")),
            !is_ok,
            "{event}"
        );
        assert_eq!(event["service"], Value::Null);
    }
}

/// Opens a WebSocket with further headers; returns the connection and the status.
fn open(stage: &Stage, headers: &str) -> (TcpStream, String) {
    let mut stream = http::connect(stage.port);
    http::write(
        &mut stream,
        &format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        ),
    );
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    (stream, String::from_utf8_lossy(&head).into_owned())
}

/// Reads one text frame of the server.
fn frame(stream: &mut TcpStream) -> Value {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a frame");
    assert_eq!((head[0], head[1] & 0x80), (0x81, 0), "a whole text frame, not masked");
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a length");
            usize::from(u16::from_be_bytes(length))
        }
        length => usize::from(length),
    };
    let mut text = vec![0; length];
    stream.read_exact(&mut text).expect("the text");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn websocket_tells_the_same_events() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let (mut socket, head) = open(&stage, "Sec-WebSocket-Protocol: fusion\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The example of RFC 6455, section 1.3.
    assert!(head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert!(head.to_lowercase().contains("sec-websocket-protocol: fusion\r\n"), "{head}");
    ask(&stage);
    let event =
        std::iter::repeat_with(|| frame(&mut socket)).find(|event| event["type"] == "request_finished");
    assert_eq!(event.map(|event| event["service"].clone()), Some(json!("ollama")));
    // A close frame, masked as a client must.
    socket.write_all(&[0x88, 0x80, 1, 2, 3, 4]).expect("a socket");
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).expect("it is closed");
    assert!(rest.windows(2).any(|two| two == [0x88, 0x00]), "the close is answered");
}

#[test]
fn foreign_page_gets_no_websocket() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    for header in ["Origin: http://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        let (_, head) = open(&stage, header);
        assert!(head.starts_with("HTTP/1.1 403 "), "{header}: {head}");
    }
}

#[test]
fn malformed_key_opens_no_websocket() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE="] {
        let handshake = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        let response = http::exchange(stage.port, &handshake);
        assert_eq!(response.status(), 400, "{key}");
        let message = "the key of the handshake is not 16 bytes in base64";
        assert_eq!(response.json()["error"]["message"], message, "{key}");
    }
}

#[test]
fn head_opens_no_websocket() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let mut client = http::connect(stage.port);
    http::write(
        &mut client,
        "HEAD /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let mut head = [0; 12];
    client.read_exact(&mut head).expect("a response");
    assert_eq!(&head, b"HTTP/1.1 426");
}
