//! A client that leaves: the server stops generating, whatever the client waited for.

use std::net::Shutdown;
use std::sync::Arc;

use super::backend::Backend;
use super::http;
use super::stage::{Stage, settings};
use super::{CHAT, TINY, TINY_STREAM, TOKEN, wait_until};

/// The routes that are passed on.
const ROUTES: [&str; 7] = [
    CHAT,
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/audio/speech",
    "/v1/images/generations",
];

/// Returns a server that says nothing, or `first`, and waits until the client is gone.
fn silent(first: &'static str) -> (Arc<Backend>, Stage) {
    let backend = Arc::new(Backend::running(|_, _| {}));
    let own = backend.handle();
    backend.set_script(move |_, stream| {
        http::write(stream, first);
        own.wait_until_gone(stream);
    });
    let stage = Stage::new(&backend, settings());
    (backend, stage)
}

#[test]
fn client_gone_during_prefill_on_every_route() {
    let (backend, stage) = silent("");
    for (number, path) in ROUTES.into_iter().enumerate() {
        for (more, body) in [TINY, TINY_STREAM].into_iter().enumerate() {
            let mut client = http::connect(stage.port);
            http::write(&mut client, &http::post(path, body));
            wait_until("the request is there", || backend.requests().len() > 2 * number + more);
            drop(client);
            wait_until("the server notices", || backend.gone() > 2 * number + more);
        }
    }
}

#[test]
fn client_gone_in_mid_stream() {
    let (backend, stage) = silent(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n: x\n\r\n",
    );
    let mut client = http::connect(stage.port);
    http::write(&mut client, &http::post(CHAT, TINY_STREAM));
    let mut some = [0; 64];
    assert!(std::io::Read::read(&mut client, &mut some).expect("the head") > 0);
    drop(client);
    wait_until("the server notices", || backend.gone() == 1);
}

#[test]
fn client_that_closes_its_sending_half_is_gone() {
    let (backend, stage) = silent("");
    let mut client = http::connect(stage.port);
    http::write(&mut client, &http::post(CHAT, TINY));
    wait_until("the request is there", || backend.requests().len() == 1);
    client.shutdown(Shutdown::Write).expect("a socket");
    wait_until("the server notices", || backend.gone() == 1);
}

#[test]
fn client_gone_during_a_cold_start_sends_nothing() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, TOKEN));
    let stage = Stage::new(&backend, settings());
    *stage.driver.listens.lock().expect("no panic") = false;
    let mut client = http::connect(stage.port);
    http::write(&mut client, &http::post(CHAT, TINY));
    wait_until("it starts", || stage.driver.starts() == 1);
    drop(client);
    // The start belongs to nobody: it goes on.
    stage.driver.begin_to_listen(backend.port);
    let other = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert_eq!(other.text(), TOKEN);
    assert_eq!((backend.requests().len(), stage.driver.starts()), (1, 1));
}

/// There, the gateway reads the answer itself.
#[test]
fn client_gone_where_the_answer_is_translated() {
    const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n: x\n\r\n";
    const PART: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    const ERROR: &str = "HTTP/1.1 500 No\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    for first in ["", STREAM, PART, ERROR] {
        let (backend, stage) = silent(first);
        backend.set_version("0.13.9");
        for (number, path) in ["/v1/messages", "/v1/responses"].into_iter().enumerate() {
            let body = if path == "/v1/messages" {
                r#"{"model":"tiny","stream":true,"max_tokens":1,"messages":[]}"#
            } else {
                r#"{"model":"tiny","input":"x"}"#
            };
            let mut client = http::connect(stage.port);
            http::write(&mut client, &http::post(path, body));
            wait_until("the request is there", || backend.requests().len() > number);
            assert!(backend.requests()[number].line.starts_with("POST /v1/chat/completions "));
            drop(client);
            wait_until("the server notices", || backend.gone() > number);
        }
    }
}

#[test]
fn client_gone_after_comments_sends_nothing() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, "{}"));
    let stage = Stage::new(&backend, settings());
    *stage.driver.listens.lock().expect("no panic") = false;
    let mut client = http::connect(stage.port);
    http::write(&mut client, &http::post(CHAT, TINY_STREAM));
    let (mut read, mut some) = (Vec::new(), [0; 512]);
    while !String::from_utf8_lossy(&read).contains(": loading") {
        let count = std::io::Read::read(&mut client, &mut some).expect("a comment comes");
        assert!(count > 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&some[..count]);
    }
    drop(client);
    let is_counted = || {
        let line = "fusion_requests_total{service=\"ollama\",outcome=\"client_gone\"} 1";
        http::get(stage.port, "/metrics").text().lines().any(|known| known == line)
    };
    wait_until("the gateway notices", is_counted);
    stage.driver.begin_to_listen(backend.port);
    assert_eq!(http::exchange(stage.port, &http::post(CHAT, TINY)).status(), 200);
    assert_eq!((backend.requests().len(), stage.driver.starts()), (1, 1));
}
