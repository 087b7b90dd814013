//! The servers that are measured against: an OpenAI-compatible stub with Ollama's status paths, in this process for
//! prompts, in a process of its own where fusion must start it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The text of every token, with the space before it.
pub(crate) const TOKEN: &str = " token";

/// A server in this process; it tells when it sent each token of a paced answer.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) sent: Receiver<Instant>,
}

/// How an answer is asked for, by the name of the model.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// A whole answer of one token.
    One,
    /// A stream of so many tokens, as fast as they can be taken.
    Flood(usize),
    /// A stream of so many tokens, one every 5 ms.
    Paced(usize),
}

impl Answer {
    pub(crate) fn model(self) -> String {
        match self {
            Self::One => "one".to_owned(),
            Self::Flood(tokens) => format!("flood-{tokens}"),
            Self::Paced(tokens) => format!("paced-{tokens}"),
        }
    }

    fn of(body: &[u8]) -> Self {
        let request: serde_json::Value = serde_json::from_slice(body).expect("a JSON body");
        let model = request["model"].as_str().expect("a model");
        let number = |text: &str| text.parse().expect("a number of tokens");
        match model.split_once('-') {
            Some(("flood", tokens)) => Self::Flood(number(tokens)),
            Some(("paced", tokens)) => Self::Paced(number(tokens)),
            _ => Self::One,
        }
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, sent) = channel();
        thread::spawn(move || serve(&listener, &sender));
        Self { address, sent }
    }
}

/// Plays a runtime in this process for ever: binds after `delay`, writes the time at which it did to `stamp`
/// (nanoseconds since 1970), and serves.
pub(crate) fn play_runtime(address: &str, delay: Duration, stamp: &Path) {
    thread::sleep(delay);
    let listener = TcpListener::bind(address).expect("the address is free");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos();
    std::fs::write(stamp, now.to_string()).expect("a writable directory");
    serve(&listener, &channel().0);
}

fn serve(listener: &TcpListener, sent: &Sender<Instant>) {
    for stream in listener.incoming().flatten() {
        let sent = sent.clone();
        // A client that goes away ends its own connection only.
        thread::spawn(move || drop(converse(stream, &sent)));
    }
}

fn converse(stream: TcpStream, sent: &Sender<Instant>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some(request) = read_request(&mut input)? {
        match request.path.as_str() {
            "/api/version" => json(&mut output, r#"{"version":"1.0.0"}"#)?,
            "/api/ps" => json(&mut output, r#"{"models":[{"name":"one","size":1,"size_vram":1}]}"#)?,
            "/health" => json(&mut output, r#"{"status":"ok"}"#)?,
            "/v1/chat/completions" => answer(&mut output, Answer::of(&request.body), sent)?,
            _ => output.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
        }
        if request.is_last {
            break;
        }
    }
    Ok(())
}

struct Request {
    path: String,
    body: Vec<u8>,
    /// The client wants the connection closed.
    is_last: bool,
}

fn read_request(input: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut is_last) = (0, false);
    loop {
        line.clear();
        input.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("connection", value)) => is_last = value == "close",
            _ if header.is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some(Request { path, body, is_last }))
}

fn json(output: &mut TcpStream, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    output.write_all(format!("{head}{length}\r\n\r\n{body}").as_bytes())
}

fn answer(output: &mut TcpStream, answer: Answer, sent: &Sender<Instant>) -> std::io::Result<()> {
    match answer {
        Answer::One => json(
            output,
            &format!(
                r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"one","choices":[{{"index":0,"message":{{"role":"assistant","content":"{TOKEN}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}}}"#
            ),
        ),
        Answer::Flood(tokens) => {
            let mut stream = Vec::from(STREAM_HEAD);
            let token = chunk(&event(TOKEN, "null"));
            for _ in 0..tokens {
                stream.extend_from_slice(token.as_bytes());
            }
            stream.extend_from_slice(end_of_stream().as_bytes());
            output.write_all(&stream)
        }
        Answer::Paced(tokens) => {
            output.write_all(STREAM_HEAD)?;
            let token = chunk(&event(TOKEN, "null"));
            for _ in 0..tokens {
                thread::sleep(Duration::from_millis(5));
                let now = Instant::now();
                output.write_all(token.as_bytes())?;
                // Nobody listens to a server that is a process of its own.
                let _ = sent.send(now);
            }
            output.write_all(end_of_stream().as_bytes())
        }
    }
}

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// One event as Ollama sends it.
fn event(text: &str, finish_reason: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"one\",\
         \"system_fingerprint\":\"fp_ollama\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\
         \"content\":\"{text}\"}},\"finish_reason\":{finish_reason}}}]}}\n\n"
    )
}

/// One chunk of HTTP's chunked encoding, as a server writes that flushes after every event.
fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn end_of_stream() -> String {
    format!("{}{}{}", chunk(&event("", "\"stop\"")), chunk("data: [DONE]\n\n"), "0\r\n\r\n")
}
