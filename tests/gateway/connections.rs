//! Connections to the servers, and the headers on them.

use super::backend::Backend;
use super::http;
use super::stage::{Stage, settings};
use super::{CHAT, TINY};

#[test]
fn hop_by_hop_headers_stop_here() {
    let backend = Backend::running(|_, stream| {
        http::write(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: X-Secret\r\n\
             X-Secret: 1\r\nKeep-Alive: timeout=5\r\nAccess-Control-Allow-Origin: *\r\nX-Kept: yes\r\n\r\n{}",
        );
    });
    let stage = Stage::new(&backend, settings());
    let length = TINY.len();
    let response = http::exchange(
        stage.port,
        &format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: keep-alive, X-Mine\r\n\
             X-Mine: 1\r\nTE: trailers\r\nAccept-Encoding: gzip\r\nAuthorization: Bearer ours\r\nX-Api-Key: ours\r\n\
             X-Stainless-Lang: python\r\n\r\n{TINY}"
        ),
    );
    assert_eq!(response.header("x-kept"), Some("yes"));
    for dropped in ["x-secret", "keep-alive", "access-control-allow-origin"] {
        assert_eq!(response.header(dropped), None, "{dropped}");
    }
    let sent = backend.requests().remove(0);
    for dropped in ["x-mine", "te", "accept-encoding", "authorization", "x-api-key", "connection"] {
        assert_eq!(sent.header(dropped), None, "{dropped}");
    }
    assert_eq!(sent.header("x-stainless-lang"), Some("python"));
    assert_eq!(sent.header("host"), Some(format!("127.0.0.1:{}", backend.port).as_str()));
}

#[test]
fn connection_closed_just_then_fails_no_request() {
    let backend = Backend::running(|_, stream| {
        http::respond(stream, 200, "{}");
        // Just when the next request is on its way.
        drop(stream.shutdown(std::net::Shutdown::Both));
    });
    let stage = Stage::new(&backend, settings());
    let mut client = http::connect(stage.port);
    for number in 0..100 {
        http::write(&mut client, &http::post(CHAT, TINY));
        let response = http::read(&mut client, false).expect("a response");
        assert_eq!(response.status(), 200, "request {number}: {}", response.text());
    }
    // Some came on a connection that was closed already.
    assert!(backend.requests().len() >= 100);
}

#[test]
fn kept_connection_is_used_again() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let stage = Stage::new(&backend, settings());
    http::exchange(stage.port, &http::post(CHAT, TINY));
    let before = backend.connections();
    for _ in 0..20 {
        http::exchange(stage.port, &http::post(CHAT, TINY));
    }
    // A test that is held up for a second opens another one.
    assert!(backend.connections() - before <= 10, "{} new ones", backend.connections() - before);
}

#[test]
fn decoded_body_gets_its_own_framing() {
    let backend = Backend::running(|_, stream| {
        http::write(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
             1;x=y\r\n{\r\n1\r\n}\r\n0\r\nX-Trailer: 1\r\n\r\n",
        );
    });
    let stage = Stage::new(&backend, settings());
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    let framing = ["transfer-encoding", "content-length"];
    let count = response.headers.iter().filter(|(name, _)| framing.contains(&name.as_str())).count();
    assert_eq!((count, response.text().as_str(), response.is_whole), (1, "{}", true), "{response:?}");
    // A client of HTTP/1.0 knows no chunks.
    let length = TINY.len();
    let old = format!("POST {CHAT} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{TINY}");
    let response = http::exchange(stage.port, &old);
    assert_eq!((response.header("transfer-encoding"), response.text().as_str()), (None, "{}"));
}

/// An answer that broke off must not be asked for again: the model would answer twice.
#[test]
fn nothing_is_sent_twice_after_a_byte() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let stage = Stage::new(&backend, settings());
    http::exchange(stage.port, &http::post(CHAT, TINY));
    backend.set_script(|_, stream| {
        http::write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{");
        drop(stream.shutdown(std::net::Shutdown::Both));
    });
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert!(!response.is_whole);
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn compressed_stream_passes_unread() {
    let backend = Backend::running(|_, stream| {
        http::write(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        );
    });
    let stage = Stage::new(&backend, settings());
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert!(response.is_whole);
    assert_eq!((response.text().as_str(), response.header("content-encoding")), ("abc", Some("gzip")));
}

/// Another program listens at the same port of `::1`.
#[test]
fn localhost_is_not_tried_as_ipv6_first() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let Ok(other) = std::net::TcpListener::bind(("::1", backend.port)) else { return };
    other.set_nonblocking(true).expect("a socket");
    let text = format!("[ollama_server]\nhost = \"localhost\"\nport = {}\n", backend.port);
    let directory = std::sync::Arc::new(tempfile::TempDir::new().expect("a temporary directory"));
    let stage = Stage::in_directory(directory, Stage::scripted(&backend), &text, settings());
    for _ in 0..3 {
        assert_eq!(http::exchange(stage.port, &http::post(CHAT, TINY)).status(), 200);
    }
    assert!(other.accept().is_err(), "it was connected to");
}

#[test]
fn old_client_gets_no_chunks() {
    let backend = Backend::running(|_, stream| {
        http::begin_stream(stream);
        for data in [super::TOKEN, super::DONE, ""] {
            http::chunk(stream, data);
        }
    });
    let stage = Stage::new(&backend, settings());
    let length = TINY.len();
    let request =
        format!("POST {CHAT} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{TINY}");
    let response = http::exchange(stage.port, &request);
    assert_eq!((response.status(), response.header("transfer-encoding")), (200, None));
    assert_eq!(response.text(), format!("{}{}", super::TOKEN, super::DONE));
}

/// The same holds for the head: its first bytes show that the server has the request.
#[test]
fn nothing_is_sent_twice_after_half_a_head() {
    for part in ["HTTP/1.1 200 OK\r\nContent-", "nonsense\r\n\r\n", "H"] {
        let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
        let stage = Stage::new(&backend, settings());
        http::exchange(stage.port, &http::post(CHAT, TINY));
        backend.set_script(move |_, stream| {
            http::write(stream, part);
            drop(stream.shutdown(std::net::Shutdown::Both));
        });
        let response = http::exchange(stage.port, &http::post(CHAT, TINY));
        assert_eq!(response.status(), 502, "{part}");
        assert_eq!(backend.requests().len(), 2, "{part}");
    }
}

/// The head came with a length and chunks: one program could read it so, the next one otherwise.
#[test]
fn answer_with_two_framings_gets_one() {
    let backend = Backend::running(|_, stream| {
        http::write(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        );
    });
    let stage = Stage::new(&backend, settings());
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    let framing = ["transfer-encoding", "content-length"];
    let count = response.headers.iter().filter(|(name, _)| framing.contains(&name.as_str())).count();
    assert_eq!((count, response.text().as_str(), response.is_whole), (1, "{}", true), "{response:?}");
    backend.set_script(|_, stream| {
        http::write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}");
    });
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert_eq!(response.status(), 502, "{response:?}");
}

#[test]
fn interim_and_empty_answers_pass() {
    let backend = Backend::running(|_, _| {});
    let stage = Stage::new(&backend, settings());
    for (answer, status, text) in [
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            200,
            "{}",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
        ("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}", 429, "{}"),
    ] {
        backend.set_script(move |_, stream| http::write(stream, answer));
        let response = http::exchange(stage.port, &http::post(CHAT, TINY));
        assert_eq!((response.status(), response.text().as_str()), (status, text), "{answer}");
        assert_eq!(response.header("retry-after").is_some(), status == 429);
    }
}
