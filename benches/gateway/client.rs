//! A client over a raw socket, which costs as little as possible.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

pub fn one_token() -> String {
    post(r#"{"model":"tiny","messages":[{"role":"user","content":"Say one word."}]}"#)
}

pub fn stream(tokens: usize) -> String {
    post(&format!(r#"{{"model":"tiny","stream":true,"messages":[],"x":{{"tokens":{tokens}}}}}"#))
}

/// A stream that stays open after its first token.
pub fn idle() -> String {
    post(r#"{"model":"tiny","stream":true,"messages":[],"user":"idle"}"#)
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

impl Client {
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024] })
    }

    pub fn send(&mut self, request: &str) -> Result<()> {
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    pub fn read_some(&mut self) -> Result<usize> {
        let count = self.stream.read(&mut self.buffer)?;
        ensure!(count > 0, "the connection was closed");
        Ok(count)
    }

    /// Reads to the first event of a stream, or to an error, and returns what came.
    pub fn first_event(&mut self) -> Result<String> {
        let mut text = String::new();
        while !text.contains("\ndata: ") && !text.contains("\"error\"") {
            let count = self.read_some()?;
            text += &String::from_utf8_lossy(&self.buffer[..count]);
        }
        Ok(text)
    }

    /// Sends a request, and returns the size of the response.
    pub fn exchange(&mut self, request: &str) -> Result<usize> {
        self.send(request)?;
        let mut size = self.read_some()?;
        let head = String::from_utf8_lossy(&self.buffer[..size]).into_owned();
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        let lower = head.to_ascii_lowercase();
        if let Some(rest) = lower.split("content-length: ").nth(1) {
            let length: usize = rest.split('\r').next().context("a length")?.parse()?;
            let whole = head.find("\r\n\r\n").context("a head")? + 4 + length;
            while size < whole {
                size += self.read_some()?;
            }
            return Ok(size);
        }
        let mut last = self.buffer[size.saturating_sub(5)..size].to_vec();
        while !last.ends_with(b"0\r\n\r\n") {
            let count = self.read_some()?;
            size += count;
            last.extend_from_slice(&self.buffer[count.saturating_sub(5)..count]);
            last.drain(..last.len().saturating_sub(5));
        }
        Ok(size)
    }
}
