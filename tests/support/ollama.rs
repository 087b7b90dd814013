//! An Ollama server on loopback: the part of its native API that manages models, with what it really sends (lines of
//! JSON, an error on a later line of a 200, `null` for an empty list).
//!
//! It lists its requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// A server that runs as long as the test does.
pub struct Ollama {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    models: Vec<String>,
    loaded: Vec<String>,
    pull: Vec<Line>,
    requests: Vec<(String, Value)>,
    cut_off: bool,
}

/// What the server does next in a response to a pull.
#[derive(Debug, Clone)]
pub enum Line {
    /// Sends this line.
    Send(Value),
    /// Closes the connection in the middle of the response.
    Cut,
    /// Sends nothing until the client closes the connection.
    Wait,
}

impl Ollama {
    /// A server with these models, at this port.
    pub fn start(port: u16, models: &[&str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the sandbox's port is free");
        let models = models.iter().map(|name| (*name).to_owned()).collect();
        let shared = Arc::new(Mutex::new(Shared { models, ..Shared::default() }));
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                // The server outlives a client that closes its connection.
                std::thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Self { shared }
    }

    /// Sets the response to a pull.
    pub fn script(&self, lines: &[Line]) {
        self.lock().pull = lines.to_vec();
    }

    /// The requests so far, without those for versions and lists: method and path, and the body.
    pub fn requests(&self) -> Vec<(String, Value)> {
        self.lock().requests.clone()
    }

    /// Whether a client has closed its connection in the middle of a response.
    pub fn was_cut_off(&self) -> bool {
        self.lock().cut_off
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().expect("no panic")
    }
}

fn serve(stream: &TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let request = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        answer(stream, shared, &request, &body)?;
    }
}

fn answer(stream: &TcpStream, shared: &Mutex<Shared>, request: &str, body: &Value) -> std::io::Result<()> {
    let mut state = shared.lock().expect("no panic");
    if !request.starts_with("GET ") {
        state.requests.push((request.to_owned(), body.clone()));
    }
    let name = body["model"].as_str().unwrap_or_default().to_owned();
    let known = state.models.contains(&name);
    let missing = json!({ "error": format!("model '{name}' not found") });
    match request {
        "GET /" => response(stream, "200 OK", "Ollama is running"),
        "GET /api/version" => response(stream, "200 OK", &json!({ "version": "0.99.0" }).to_string()),
        "GET /api/tags" => {
            let models: Vec<Value> = state.models.iter().map(|name| listed(name)).collect();
            let models = if models.is_empty() { Value::Null } else { json!(models) };
            response(stream, "200 OK", &json!({ "models": models }).to_string())
        }
        "GET /api/ps" => {
            let models: Vec<Value> = state.loaded.iter().map(|name| json!({ "name": name })).collect();
            response(stream, "200 OK", &json!({ "models": models }).to_string())
        }
        _ if !known && request != "POST /api/pull" => response(stream, "404 Not Found", &missing.to_string()),
        "POST /api/show" => response(stream, "200 OK", &shown().to_string()),
        "DELETE /api/delete" => {
            state.models.retain(|model| *model != name);
            response(stream, "200 OK", "")
        }
        "POST /api/generate" => {
            state.loaded.retain(|model| *model != name);
            if body["keep_alive"] != json!(0) {
                state.loaded.push(name);
            }
            response(stream, "200 OK", &json!({ "response": "", "done": true }).to_string())
        }
        "POST /api/pull" => {
            let lines = state.pull.clone();
            drop(state);
            pull(stream, shared, &name, &lines)
        }
        _ => response(stream, "404 Not Found", "404 page not found"),
    }
}

/// A chunked response, as Go sends when it does not know the length.
fn pull(mut stream: &TcpStream, shared: &Mutex<Shared>, name: &str, lines: &[Line]) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    for line in lines {
        match line {
            Line::Send(value) => {
                let text = format!("{value}\n");
                stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())?;
                stream.flush()?;
                if value["status"] == "success" {
                    shared.lock().expect("no panic").models.push(name.to_owned());
                }
            }
            Line::Cut => return stream.shutdown(std::net::Shutdown::Both),
            Line::Wait => {
                let mut byte = [0];
                // The end of the stream, or a reset: the client has closed the connection.
                while stream.peek(&mut byte).is_ok_and(|length| length > 0) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                shared.lock().expect("no panic").cut_off = true;
                return Ok(());
            }
        }
    }
    stream.write_all(b"0\r\n\r\n")
}

fn response(mut stream: &TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes())
}

fn listed(name: &str) -> Value {
    json!({
        "name": name, "model": name, "modified_at": "2024-08-04T14:56:49.277302595-07:00", "size": 2_019_393_189_u64,
        "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
        "details": { "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
            "parameter_size": "3.2B", "quantization_level": "Q4_K_M" }
    })
}

fn shown() -> Value {
    json!({
        "license": "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nLlama 3.2 Version Release Date: September 25, 2024\n",
        "template": "{{ range .Messages }}{{ .Content }}{{ end }}",
        "details": { "format": "gguf", "family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M" },
        "model_info": {
            "general.architecture": "llama", "general.parameter_count": 3_212_749_888_u64,
            "llama.attention.head_count": 24, "llama.attention.head_count_kv": 8, "llama.attention.key_length": 128,
            "llama.attention.value_length": 128, "llama.block_count": 28, "llama.context_length": 131_072,
            "llama.embedding_length": 3072, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": null
        },
        "capabilities": ["completion", "tools"]
    })
}
