//! The server behind both: it answers as Ollama does where it is recognised, with one token, or with a stream.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::Result;

const TOKEN: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";

const LAST: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

pub struct Backend {
    pub port: u16,
    /// When the connections of idle streams were closed.
    ends: Receiver<Instant>,
}

impl Backend {
    pub fn start() -> Result<Self> {
        Self::at("127.0.0.1:0")
    }

    pub fn at(address: &str) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let port = listener.local_addr()?.port();
        let (sender, ends) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                // Thousands of them wait, so their stacks are small.
                let thread = std::thread::Builder::new().stack_size(64 * 1024);
                drop(thread.spawn(move || serve(stream, &sender)));
            }
        });
        Ok(Self { port, ends })
    }

    pub fn forget_ends(&self) {
        while self.ends.try_recv().is_ok() {}
    }

    pub fn next_end(&self) -> Option<Instant> {
        self.ends.recv_timeout(Duration::from_secs(5)).ok()
    }
}

fn serve(mut stream: TcpStream, ends: &Sender<Instant>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 8192]);
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four: &[u8]| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer).ok()? {
                0 => return None,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length =
            head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
        let whole = end + length.unwrap_or(0_usize);
        while bytes.len() < whole {
            match stream.read(&mut buffer).ok()? {
                0 => return None,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        let body = String::from_utf8_lossy(&bytes[end..whole]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        bytes.drain(..whole);
        match path.as_str() {
            "/api/version" => json(&mut stream, r#"{"version":"0.14.0"}"#)?,
            "/api/tags" | "/api/ps" => json(&mut stream, r#"{"models":[{"name":"tiny","model":"tiny"}]}"#)?,
            _ if body.contains("\"idle\"") => {
                begin(&mut stream)?;
                chunk(&mut stream, TOKEN)?;
                while !matches!(stream.read(&mut buffer), Ok(0) | Err(_)) {}
                return ends.send(Instant::now()).ok();
            }
            _ if body.contains("\"stream\":true") && !body.contains("\"tokens\":") => {
                stream_tokens(&mut stream, 1)?;
            }
            _ => match body.split("\"tokens\":").nth(1).and_then(|rest| rest.split('}').next()?.parse().ok())
            {
                Some(tokens) => stream_tokens(&mut stream, tokens)?,
                None => json(
                    &mut stream,
                    r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#,
                )?,
            },
        }
    }
}

fn stream_tokens(stream: &mut TcpStream, tokens: usize) -> Option<()> {
    begin(stream)?;
    for _ in 0..tokens {
        chunk(stream, TOKEN)?;
    }
    chunk(stream, LAST)?;
    chunk(stream, "data: [DONE]\n\n")?;
    stream.write_all(b"0\r\n\r\n").ok()
}

fn json(stream: &mut TcpStream, body: &str) -> Option<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()
}

fn begin(stream: &mut TcpStream) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).ok()
}

fn chunk(stream: &mut TcpStream, data: &str) -> Option<()> {
    stream.write_all(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes()).ok()
}
