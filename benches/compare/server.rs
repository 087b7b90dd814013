//! The stub server: OpenAI-compatible, with the status paths of Ollama and MLX. In this process for prompts, in a
//! process of its own as a service that fusion starts.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

const LOADED: &str = r#"{"models":[{"name":"one","size":1,"size_vram":1,"context_length":32768}]}"#;

/// The text of every token, with the space before it.
pub(crate) const TOKEN: &str = " token";

/// A server in this process, which reports when it sent each token of a paced answer.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) sent: Receiver<Instant>,
}

/// What the server sends; the name of the model asks for it.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// So many tokens, as fast as they are taken.
    Flood(usize),
    /// So many tokens, one every 5 ms.
    Paced(usize),
}

impl Answer {
    pub(crate) fn model(self) -> String {
        match self {
            Self::Flood(tokens) => format!("flood-{tokens}"),
            Self::Paced(tokens) => format!("paced-{tokens}"),
        }
    }

    fn of_model(model: &str) -> Option<Self> {
        let (kind, tokens) = model.split_once('-')?;
        let tokens = tokens.parse().ok()?;
        match kind {
            "flood" => Some(Self::Flood(tokens)),
            "paced" => Some(Self::Paced(tokens)),
            _ => None,
        }
    }
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (sender, sent) = channel();
        thread::spawn(move || serve(&listener, &sender));
        Ok(Self { address, sent })
    }
}

/// Plays a service in this process until it is killed: binds after `delay`, writes the time at which it did to `stamp`
/// (nanoseconds since 1970), and serves.
pub(crate) fn play_service(address: &str, delay: Duration, stamp: &Path) -> Result<()> {
    thread::sleep(delay);
    let listener = TcpListener::bind(address)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    std::fs::write(stamp, now.to_string())?;
    serve(&listener, &channel().0);
    Ok(())
}

fn serve(listener: &TcpListener, sent: &Sender<Instant>) {
    for stream in listener.incoming().flatten() {
        let sent = sent.clone();
        // A client that disconnects ends its own connection only.
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
            "/api/ps" => json(&mut output, LOADED)?,
            "/api/tags" => json(&mut output, r#"{"models":[{"name":"one:latest","digest":"1","size":1}]}"#)?,
            "/api/show" => json(&mut output, r#"{"capabilities":["completion","tools"]}"#)?,
            "/" => text(&mut output, "text/plain", "Ollama is running")?,
            "/health" => json(&mut output, r#"{"status":"ok"}"#)?,
            "/v1/chat/completions" => complete(&mut output, &request.body, sent)?,
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
    /// The client asks for the connection to be closed.
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
    text(output, "application/json", body)
}

fn text(output: &mut TcpStream, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let response =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
    output.write_all(response.as_bytes())
}

/// The answer to a request that brings tools: a call of the one with which fusion tests a model.
const TOOL_CALL: &str = r#"{"model":"one","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"1","type":"function","function":{"name":"get_weather","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#;

/// Sends what the model's name asks for; one token for any other name. A probe for readiness may want it whole.
fn complete(output: &mut TcpStream, body: &[u8], sent: &Sender<Instant>) -> std::io::Result<()> {
    let request: serde_json::Value = serde_json::from_slice(body)?;
    let model = request["model"].as_str().unwrap_or_default();
    if request["tools"].is_array() {
        let event = format!("data: {TOOL_CALL}\n\ndata: [DONE]\n\n");
        output.write_all(STREAM_HEAD)?;
        return output.write_all(format!("{}0\r\n\r\n", chunk(&event)).as_bytes());
    }
    if request["stream"] != true {
        return json(
            output,
            &format!(
                r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{TOKEN}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}}}"#
            ),
        );
    }
    stream(output, model, Answer::of_model(model).unwrap_or(Answer::Flood(1)), sent)
}

fn stream(
    output: &mut TcpStream,
    model: &str,
    answer: Answer,
    sent: &Sender<Instant>,
) -> std::io::Result<()> {
    let token = chunk(&event(model, TOKEN, "null"));
    match answer {
        Answer::Flood(tokens) => {
            let mut stream = Vec::from(STREAM_HEAD);
            for _ in 0..tokens {
                stream.extend_from_slice(token.as_bytes());
            }
            stream.extend_from_slice(end_of_stream(model, tokens).as_bytes());
            output.write_all(&stream)
        }
        Answer::Paced(tokens) => {
            output.write_all(STREAM_HEAD)?;
            for _ in 0..tokens {
                thread::sleep(Duration::from_millis(5));
                let now = Instant::now();
                output.write_all(token.as_bytes())?;
                // Nothing receives it from a server in a process of its own.
                let _ = sent.send(now);
            }
            output.write_all(end_of_stream(model, tokens).as_bytes())
        }
    }
}

/// What a system prompt and a word are in the template of a small model.
const PROMPT_TOKENS: usize = 31;

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// One event as Ollama sends it.
fn event(model: &str, text: &str, finish_reason: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"{model}\",\
         \"system_fingerprint\":\"fp_ollama\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\
         \"content\":\"{text}\"}},\"finish_reason\":{finish_reason}}}]}}\n\n"
    )
}

/// One chunk of HTTP's chunked encoding: a server that flushes after every event writes one for each.
fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// The end that Ollama sends to a client that asks for the usage, with the tokens of its template in the prompt's.
fn end_of_stream(model: &str, tokens: usize) -> String {
    let usage = format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"{model}\",\
         \"system_fingerprint\":\"fp_ollama\",\"choices\":[],\"usage\":{{\"prompt_tokens\":{PROMPT_TOKENS},\
         \"completion_tokens\":{tokens},\"total_tokens\":{}}}}}\n\n",
        PROMPT_TOKENS + tokens
    );
    let events = [event(model, "", "\"stop\""), usage, "data: [DONE]\n\n".to_owned()];
    events.iter().map(|event| chunk(event)).collect::<String>() + "0\r\n\r\n"
}
