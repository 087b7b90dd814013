//! A server whose every byte the test decides: how a response is framed, in which pieces it is written, how it ends.
//!
//! Libraries that mock HTTP servers cannot stall within an event or cut a stream.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::TEST_TIMEOUT;

/// How the body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Chunked,
    /// Chunked, with a trailer after the last chunk.
    ChunkedTrailers,
    /// Chunked, without the last chunk.
    ChunkedTruncated,
    ContentLength,
    /// The header announces more than comes.
    ContentLengthShort,
    /// HTTP/1.0: until the end of the connection.
    Close,
    /// Nothing at all is sent.
    None,
    /// Only the pieces, without any HTTP.
    Raw,
}

/// How the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Fin,
    Rst,
    /// Not before the client closes it.
    Hang,
}

/// One response.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub content_type: String,
    pub headers: Vec<(String, String)>,
    pub framing: Framing,
    pub end: End,
    /// One write each.
    pub pieces: Vec<Vec<u8>>,
    /// One byte per write, and this pause between them.
    pub drip: Option<Duration>,
    /// How often the pieces are sent.
    pub times: usize,
}

impl Response {
    /// An event stream, chunked, one write for each piece.
    pub fn stream<P: Into<Vec<u8>>>(pieces: impl IntoIterator<Item = P>) -> Self {
        Self {
            status: 200,
            content_type: "text/event-stream".to_owned(),
            headers: Vec::new(),
            framing: Framing::Chunked,
            end: End::Fin,
            pieces: pieces.into_iter().map(Into::into).collect(),
            drip: None,
            times: 1,
        }
    }

    /// One JSON body.
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let content_type = "application/json".to_owned();
        Self { status, content_type, framing: Framing::ContentLength, ..Self::stream([body]) }
    }

    pub fn end(self, end: End) -> Self {
        Self { end, ..self }
    }

    pub fn framing(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST /v1/chat/completions HTTP/1.1`
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the request is JSON")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The server. Dropping it fails the test if it got no request.
pub struct StubServer {
    port: u16,
    requests: Receiver<Request>,
    seen: Mutex<Vec<Request>>,
    /// One message for each connection that the client closed before the response was complete.
    gone: Receiver<()>,
    stopping: Arc<AtomicBool>,
    was_used: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Answers that show what a server is: those of Ollama and `mlx_lm.server`. They are no part of the test's own requests.
fn mark(line: &str) -> Option<Response> {
    match line.strip_suffix(" HTTP/1.1")? {
        "GET /api/version" => Some(Response::json(200, r#"{"version":"0.0.0-stub"}"#)),
        "GET /health" => {
            let headers = vec![("Server".to_owned(), "BaseHTTP/0.6 Python/3.11.7".to_owned())];
            Some(Response { headers, ..Response::json(200, r#"{"status": "ok"}"#) })
        }
        "POST /api/show" => Some(Response::json(200, r#"{"template":"{{ .Messages }}"}"#)),
        _ => None,
    }
}

impl StubServer {
    /// Answers every request with the next of `responses`, and repeats the last one.
    pub fn start(responses: impl IntoIterator<Item = Response>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        Self::serve(listener, port, responses, mark)
    }

    /// At a port of the caller's choice.
    pub fn at(port: u16, responses: impl IntoIterator<Item = Response>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        Self::serve(listener, port, responses, mark)
    }

    /// At a port of the caller's choice, and of no kind that is known.
    pub fn unmarked(port: u16, responses: impl IntoIterator<Item = Response>) -> Self {
        Self::marked(port, responses, |_| None)
    }

    /// At a port of the caller's choice, and of the kind that `mark` shows.
    pub fn marked(
        port: u16,
        responses: impl IntoIterator<Item = Response>,
        mark: fn(&str) -> Option<Response>,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        Self::serve(listener, port, responses, mark)
    }

    fn serve(
        listener: TcpListener,
        port: u16,
        responses: impl IntoIterator<Item = Response>,
        mark: fn(&str) -> Option<Response>,
    ) -> Self {
        let responses =
            Arc::new(Responses { list: responses.into_iter().collect(), used: AtomicUsize::new(0), mark });
        let stopping = Arc::new(AtomicBool::new(false));
        let was_used = Arc::new(AtomicBool::new(false));
        let (request_sender, requests) = mpsc::channel();
        let (gone_sender, gone) = mpsc::channel();
        let thread = std::thread::spawn({
            let (stopping, was_used) = (Arc::clone(&stopping), Arc::clone(&was_used));
            move || {
                let mut connections = Vec::new();
                for stream in listener.incoming() {
                    let Ok(stream) = stream else { continue };
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    was_used.store(true, Ordering::SeqCst);
                    let responses = Arc::clone(&responses);
                    let (requests, gone) = (request_sender.clone(), gone_sender.clone());
                    let stopping = Arc::clone(&stopping);
                    connections.push(std::thread::spawn(move || {
                        serve_one(stream, &responses, &requests, &gone, &stopping);
                    }));
                }
                for connection in connections {
                    let _ = connection.join();
                }
            }
        });
        Self { port, requests, seen: Mutex::default(), gone, stopping, was_used, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the next request that no previous call returned.
    #[track_caller]
    pub fn request(&self) -> Request {
        let request = self.requests.recv_timeout(TEST_TIMEOUT).expect("a request comes");
        self.seen.lock().expect("no panic while it is held").push(request.clone());
        request
    }

    /// Returns the first lines of the requests that no previous call returned.
    pub fn lines(&self) -> Vec<String> {
        self.requests.try_iter().map(|request| request.line).collect()
    }

    /// Waits until a client has closed its connection before the response was complete.
    #[track_caller]
    pub fn wait_for_disconnect(&self) {
        self.gone.recv_timeout(TEST_TIMEOUT).expect("the client closes the connection");
    }
}

impl Drop for StubServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let was_used = self.was_used.load(Ordering::SeqCst);
        assert!(was_used || std::thread::panicking(), "the stub server got no request");
    }
}

/// What is answered.
struct Responses {
    list: Vec<Response>,
    /// How many were used.
    used: AtomicUsize,
    mark: fn(&str) -> Option<Response>,
}

fn serve_one(
    mut stream: TcpStream,
    responses: &Responses,
    requests: &Sender<Request>,
    gone: &Sender<()>,
    stopping: &AtomicBool,
) {
    let _ = stream.set_nodelay(true);
    let Some(request) = read_request(&mut stream) else { return };
    if let Some(response) = (responses.mark)(&request.line) {
        let _ = write_response(&mut stream, &response);
        return;
    }
    let next = responses.used.fetch_add(1, Ordering::SeqCst);
    let response = &responses.list[next.min(responses.list.len() - 1)];
    let _ = requests.send(request);
    if write_response(&mut stream, response).is_err() {
        let _ = gone.send(());
        return;
    }
    match response.end {
        End::Fin => {
            let _ = stream.shutdown(Shutdown::Write);
            wait_for_close(&mut stream, stopping);
        }
        End::Rst => reset(&stream),
        End::Hang => {
            if wait_for_close(&mut stream, stopping) {
                let _ = gone.send(());
            }
        }
    }
}

/// Closing with a linger time of zero sends RST instead of FIN.
fn reset(stream: &TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger)
        .expect("a socket option");
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = bytes[head + 4..].to_vec();
    while body.len() < length {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => body.extend_from_slice(&buffer[..read]),
        }
    }
    Some(Request { line, headers, body })
}

fn write_response(stream: &mut TcpStream, response: &Response) -> std::io::Result<()> {
    if response.framing == Framing::None {
        return Ok(());
    }
    if response.framing != Framing::Raw {
        let length: usize = response.pieces.iter().map(Vec::len).sum::<usize>() * response.times;
        let version = if response.framing == Framing::Close { "1.0" } else { "1.1" };
        let mut head = format!("HTTP/{version} {} Reason\r\n", response.status);
        if !response.content_type.is_empty() {
            head.push_str("Content-Type: ");
            head.push_str(&response.content_type);
            head.push_str("\r\n");
        }
        for (name, value) in &response.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let delimiter = match response.framing {
            Framing::Chunked | Framing::ChunkedTrailers | Framing::ChunkedTruncated => {
                "Transfer-Encoding: chunked\r\n".to_owned()
            }
            Framing::ContentLength => format!("Content-Length: {length}\r\n"),
            Framing::ContentLengthShort => format!("Content-Length: {}\r\n", length + 1000),
            Framing::Close | Framing::None | Framing::Raw => String::new(),
        };
        stream.write_all((head + &delimiter + "\r\n").as_bytes())?;
    }
    let is_chunked =
        matches!(response.framing, Framing::Chunked | Framing::ChunkedTrailers | Framing::ChunkedTruncated);
    for _ in 0..response.times {
        for piece in response.pieces.iter().filter(|piece| !piece.is_empty()) {
            let framed = if is_chunked {
                [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
            } else {
                piece.clone()
            };
            match response.drip {
                None => stream.write_all(&framed)?,
                Some(pause) => {
                    for byte in framed {
                        stream.write_all(&[byte])?;
                        std::thread::sleep(pause);
                    }
                }
            }
        }
    }
    match (response.framing, response.end) {
        (_, End::Hang) => Ok(()),
        (Framing::Chunked, _) => stream.write_all(b"0\r\n\r\n"),
        (Framing::ChunkedTrailers, _) => stream.write_all(b"0\r\nX-Sum: abc\r\n\r\n"),
        _ => Ok(()),
    }
}

/// Waits until the client closes the connection; `false` when the test ends first.
fn wait_for_close(stream: &mut TcpStream, stopping: &AtomicBool) -> bool {
    let deadline = Instant::now() + TEST_TIMEOUT;
    let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
    let mut buffer = [0; 1024];
    while Instant::now() < deadline && !stopping.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return true,
        }
    }
    false
}
