//! HTTP over raw sockets: what is sent is exactly what the test says.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A request or a response as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body ended as its headers announced.
    pub is_whole: bool,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

/// Reads one message; `None` at the end of the connection.
pub fn read(stream: &mut TcpStream, is_request: bool) -> Option<Message> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if read_some(stream, &mut bytes) == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut message = Message { line, headers, body: Vec::new(), is_whole: true };
    let mut rest = bytes.split_off(end + 4);
    if message.line.contains(" 100 ") {
        assert!(rest.is_empty(), "nothing follows before the body is sent");
        return Some(message);
    }
    let length = message.header("content-length").and_then(|length| length.parse::<usize>().ok());
    if message.header("transfer-encoding") == Some("chunked") {
        message.is_whole = read_chunks(stream, &mut rest, &mut message.body);
    } else if let Some(length) = length {
        while rest.len() < length && read_some(stream, &mut rest) > 0 {}
        message.is_whole = rest.len() >= length;
        message.body = rest;
    } else if !is_request && !matches!(message.status(), 204 | 304) {
        while read_some(stream, &mut rest) > 0 {}
        message.body = rest;
    }
    Some(message)
}

/// Returns whether the last chunk came.
fn read_chunks(stream: &mut TcpStream, rest: &mut Vec<u8>, body: &mut Vec<u8>) -> bool {
    loop {
        let Some(at) = rest.windows(2).position(|two| two == b"\r\n") else {
            if read_some(stream, rest) == 0 {
                return false;
            }
            continue;
        };
        let size = String::from_utf8_lossy(&rest[..at]).into_owned();
        let size =
            usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("{size:?} is a chunk size"));
        while rest.len() < at + 2 + size + 2 {
            if read_some(stream, rest) == 0 {
                body.extend_from_slice(&rest[(at + 2).min(rest.len())..]);
                return false;
            }
        }
        body.extend_from_slice(&rest[at + 2..at + 2 + size]);
        rest.drain(..at + 2 + size + 2);
        if size == 0 {
            return true;
        }
    }
}

fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> usize {
    let mut buffer = [0; 16 * 1024];
    let count = stream.read(&mut buffer).unwrap_or(0);
    bytes.extend_from_slice(&buffer[..count]);
    count
}

/// Writes a JSON response with a length.
pub fn respond(stream: &mut TcpStream, status: u16, body: &str) {
    let length = body.len();
    write(
        stream,
        &format!(
            "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    );
}

/// Writes the head of a chunked event stream.
pub fn begin_stream(stream: &mut TcpStream) {
    write(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
}

/// Writes one chunk; the empty one is the last.
pub fn chunk(stream: &mut TcpStream, data: &str) {
    write(stream, &format!("{:x}\r\n{data}\r\n", data.len()));
}

/// Writes what the other side may no longer read.
pub fn write(stream: &mut TcpStream, text: &str) {
    drop(stream.write_all(text.as_bytes()));
}

/// Closes the connection with a reset.
pub fn reset(stream: &TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger).expect("a socket");
    drop(stream.shutdown(std::net::Shutdown::Both));
}

/// Connects to the gateway.
pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the gateway listens");
    // Only a failing test waits that long.
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Returns the bytes of a request with a JSON body.
pub fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends the bytes on a new connection and reads the response.
pub fn exchange(port: u16, request: &str) -> Message {
    let mut stream = connect(port);
    write(&mut stream, request);
    read(&mut stream, false).unwrap_or_else(|| panic!("no response to {request}"))
}

/// Sends a `GET`.
pub fn get(port: u16, path: &str) -> Message {
    exchange(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}
