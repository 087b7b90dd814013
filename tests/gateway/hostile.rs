//! Clients that send anything: each connection ends, the gateway lives, and a server gets no request that is not one.

use std::io::Read as _;
use std::net::Shutdown;

use super::backend::Backend;
use super::http;
use super::stage::{Stage, settings};
use super::{CHAT, Numbers, TINY, rounds};

/// What is worth putting anywhere.
const PIECES: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b"\xff",
    b"Content-Length: 0\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b" folded\r\n",
    b"Host: evil.example\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close, content-length\r\n",
    b"Upgrade: h2c\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
];

fn seeds() -> Vec<Vec<u8>> {
    let chunked = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{:x};x=y\r\n{TINY}\r\n0\r\nX: y\r\n\r\n",
        TINY.len()
    );
    let form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ntiny\r\n--b--\r\n";
    let form = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let upgrade = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x01\x7f";
    let texts = [
        http::post(CHAT, TINY),
        http::post("/v1/messages", r#"{"model":"fast","max_tokens":1,"messages":[]}"#),
        chunked,
        form,
        upgrade.to_owned(),
        "GET /api/instances?status=ready&tag=%41%zz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /v1/models/%2e%2e/%00 HTTP/1.0\r\nHost: [::1]:80\r\n\r\n".to_owned(),
        http::post("/api/instances/none/load", TINY),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}

/// Changes a request in a few places.
fn mutate(mut bytes: Vec<u8>, numbers: &mut Numbers) -> Vec<u8> {
    let at = |bytes: &Vec<u8>, numbers: &mut Numbers| {
        usize::try_from(numbers.below(bytes.len() as u64 + 1)).expect("it is short")
    };
    for _ in 0..=numbers.below(3) {
        let (one, other) = (at(&bytes, numbers), at(&bytes, numbers));
        let (start, end) = (one.min(other), one.max(other));
        match numbers.below(6) {
            0 => {
                if let Some(byte) = bytes.get_mut(start) {
                    *byte = u8::try_from(numbers.below(256)).expect("a byte");
                }
            }
            1 => drop(bytes.drain(start..end.min(start + 8))),
            2 => {
                let piece = bytes[start..end].to_vec();
                bytes.splice(start..start, piece);
            }
            3 => bytes.truncate(end),
            4 => {
                // A head that is far too long, now and then.
                let count = if numbers.below(40) == 0 { 100_000 } else { 20 };
                bytes.splice(start..start, std::iter::repeat_n(b'a', count));
            }
            _ => {
                let piece = PIECES[usize::try_from(numbers.below(PIECES.len() as u64)).expect("it is small")];
                bytes.splice(start..start, piece.iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn no_bytes_of_a_client_do_harm() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let stage = Stage::new(&backend, settings());
    let (seeds, mut numbers) = (seeds(), Numbers(42));
    for round in 0..rounds(1500) {
        let seed = &seeds[round % seeds.len()];
        let request = mutate(seed.clone(), &mut numbers);
        let mut client = http::connect(stage.port);
        let mut answer = Vec::new();
        // It may have been refused before all is sent.
        let _ = std::io::Write::write_all(&mut client, &request);
        let _ = client.shutdown(Shutdown::Write);
        let ended = client.read_to_end(&mut answer);
        // A refused connection may be reset; one that stays open would run into the timeout of the client.
        let is_open = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        let shown = String::from_utf8_lossy(&request).into_owned();
        assert!(!is_open, "round {round} is not ended: {shown:?}");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "round {round}: {shown:?}");
        for sent in backend.requests().drain(..) {
            let count = |name: &str| sent.headers.iter().filter(|(known, _)| known == name).count();
            assert_eq!(
                (count("content-length"), count("host"), count("transfer-encoding")),
                (1, 1, 0),
                "{shown:?}"
            );
            assert_eq!(
                sent.header("host"),
                Some(format!("127.0.0.1:{}", backend.port).as_str()),
                "{shown:?}"
            );
            assert_eq!(
                sent.header("content-length"),
                Some(sent.body.len().to_string().as_str()),
                "{shown:?}"
            );
        }
        backend.forget_requests();
    }
    assert_eq!(http::get(stage.port, "/health").status(), 200);
    assert_eq!(http::exchange(stage.port, &http::post(CHAT, TINY)).status(), 200);
    assert_eq!(stage.driver.starts(), 0);
}
