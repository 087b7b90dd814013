//! The server of the fake runtime: the paths of each server that fusion uses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::agents;
use crate::{Fake, forever, wait_until};

/// Binds as the faults say, and answers until a signal ends it.
pub(crate) fn serve(fake: &Arc<Fake>) -> ExitCode {
    if let Some(delay) = fake.faults.millis("bind-after") {
        std::thread::sleep(delay);
    }
    if let Some(path) = fake.faults.text("bind-when") {
        eprintln!("waiting for {path}");
        wait_until(|| Path::new(path).exists());
    }
    if fake.faults.has("never-bind") {
        forever();
    }
    let listener = match if fake.faults.has("hands-over-socket") { handed_over() } else { bind(fake) } {
        Ok(listener) => listener,
        Err(error) => return bind_failed(fake, &error),
    };
    eprintln!("listening on {}:{}", fake.host, fake.port);
    for stream in listener.incoming().flatten() {
        let fake = Arc::clone(fake);
        std::thread::spawn(move || {
            // The server outlives a client that closes its connection.
            let _ = answer(&fake, stream);
        });
    }
    ExitCode::SUCCESS
}

pub(crate) fn bind(fake: &Fake) -> std::io::Result<TcpListener> {
    TcpListener::bind((fake.host.as_str(), fake.port))
}

/// The socket of the process that started this one.
fn handed_over() -> std::io::Result<TcpListener> {
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// The real Ollama reports that and exits, `mlx_lm.server` prints a traceback and runs on without listening.
fn bind_failed(fake: &Fake, error: &std::io::Error) -> ExitCode {
    if fake.mlx {
        eprintln!("Traceback (most recent call last):\nOSError: [Errno 98] Address already in use");
        forever();
    }
    eprintln!("Error: listen tcp {}:{}: bind: address already in use ({error})", fake.host, fake.port);
    ExitCode::FAILURE
}

pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) body: Value,
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim_end().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if header.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Ok(Request { line, body: serde_json::from_slice(&body).unwrap_or_default() })
}

fn answer(fake: &Fake, mut stream: TcpStream) -> std::io::Result<()> {
    let request = read_request(&stream)?;
    if !fake.faults.has("quiet") {
        eprintln!("{}", request.line);
    }
    if fake.faults.has("hang") {
        forever();
    }
    if let Some(path) = fake.faults.text("hang-while") {
        wait_until(|| !Path::new(path).exists());
    }
    if let Some(status) = fake.faults.number("status") {
        return response(fake, &mut stream, status, &failure(fake));
    }
    if fake.faults.millis("loading").is_some_and(|loading| fake.started.elapsed() < loading) {
        return response(fake, &mut stream, 503, &json!({"error": "loading", "status": "loading"}));
    }
    let is_chat = request.line == "POST /v1/chat/completions";
    if is_chat && fake.faults.text("chat-loading-while").is_some_and(|path| Path::new(path).exists()) {
        return response(fake, &mut stream, 503, &error(fake, "the model is loading"));
    }
    if let Some(answered) = fake.llama.as_ref().and_then(|llama| llama.answer(fake, &mut stream, &request)) {
        return answered;
    }
    if let Some(answered) = agents::answer(fake, &mut stream, &request) {
        return answered;
    }
    match (fake.mlx, request.line.as_str()) {
        (_, "POST /v1/chat/completions") => chat(fake, stream, &request.body),
        (false, "GET /") => response(fake, &mut stream, 200, &json!("Ollama is running")),
        (false, "GET /api/version") => {
            let version = fake.faults.text("version").unwrap_or("0.0.0-fake");
            response(fake, &mut stream, 200, &json!({"version": version}))
        }
        (false, "GET /api/ps" | "GET /api/tags") => {
            let names = models(fake);
            let models: Vec<Value> = names.iter().map(|name| model(fake, name)).collect();
            response(fake, &mut stream, 200, &json!({"models": models}))
        }
        (false, "POST /api/show") => response(
            fake,
            &mut stream,
            200,
            &json!({"template": "{{ .Messages }}", "capabilities": ["completion"]}),
        ),
        (false, "POST /api/generate") => {
            let name = request.body["model"].as_str().unwrap_or_default();
            if models(fake).iter().any(|known| known == name) {
                return response(fake, &mut stream, 200, &json!({"model": name, "done": true}));
            }
            response(fake, &mut stream, 404, &json!({"error": format!("model '{name}' not found")}))
        }
        (true, "GET /health") => response(fake, &mut stream, 200, &json!({"status": "ok"})),
        (_, "GET /v1/models") => {
            let data: Vec<Value> = models(fake)
                .iter()
                .map(|id| json!({"id": id, "object": "model", "owned_by": fake.owner}))
                .collect();
            response(fake, &mut stream, 200, &json!({"object": "list", "data": data}))
        }
        _ => response(fake, &mut stream, 404, &error(fake, "no such path")),
    }
}

fn model(fake: &Fake, name: &str) -> Value {
    let digest = fake.faults.text("digest").unwrap_or(name);
    let mut model = json!({"name": name, "model": name, "size": 1, "digest": digest});
    if let Some(context) = fake.faults.number("context") {
        model["context_length"] = json!(context);
    }
    if let Some(percent) = fake.faults.number("gpu") {
        (model["size"], model["size_vram"]) = (json!(100), json!(percent));
    }
    model
}

pub(crate) fn models(fake: &Fake) -> Vec<String> {
    if let Some(llama) = &fake.llama {
        return llama.names(fake);
    }
    match (fake.faults.text("models"), &fake.model) {
        (Some(names), _) => names.split(',').map(str::to_owned).collect(),
        (None, Some(model)) => vec![model.clone()],
        (None, None) => vec!["llama3.2:3b".to_owned()],
    }
}

/// The shapes of the real servers' errors.
fn error(fake: &Fake, words: &str) -> Value {
    if fake.mlx {
        json!({ "error": words })
    } else {
        json!({"error": {"message": words, "type": "api_error", "param": null, "code": null}})
    }
}

fn failure(fake: &Fake) -> Value {
    error(fake, fake.faults.text("says").unwrap_or("the fake runtime was told to fail"))
}

pub(crate) fn response(
    fake: &Fake,
    stream: &mut TcpStream,
    status: u64,
    body: &Value,
) -> std::io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} Fake\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        match fake {
            Fake { llama: Some(_), .. } => "Server: llama.cpp\r\n",
            Fake { mlx: true, .. } => "Server: BaseHTTP/0.6 Python/3.11.7\r\n",
            _ => "",
        },
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())
}

fn chat(fake: &Fake, mut stream: TcpStream, body: &Value) -> std::io::Result<()> {
    if fake.faults.has("die-on-chat") {
        eprintln!("fatal: the fake runtime died of a question");
        std::process::exit(1);
    }
    if fake.faults.has("chat-hang") {
        forever();
    }
    if let Some(status) = fake.faults.number("chat-status") {
        return response(fake, &mut stream, status, &failure(fake));
    }
    let model = body["model"].as_str().unwrap_or_default();
    let is_default = fake.mlx && model == "default_model"
        || fake.llama.as_ref().is_some_and(|llama| llama.accepts(fake, model));
    if !is_default && !models(fake).iter().any(|known| known == model) {
        return response(fake, &mut stream, 404, &error(fake, &format!("model '{model}' not found")));
    }
    let limit = usize::try_from(body["max_tokens"].as_u64().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let words = ["Hello", " from", " the", " fake", " runtime."];
    let tokens = &words[..words.len().min(limit)];
    let reason = if tokens.len() < words.len() { "length" } else { "stop" };
    let usage =
        json!({"prompt_tokens": 3, "completion_tokens": tokens.len(), "total_tokens": 3 + tokens.len()});
    let pause = || std::thread::sleep(fake.faults.millis("token-after").unwrap_or_default());
    if body["stream"] == json!(true) {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
        let event = |choices: Value, usage: Option<&Value>| {
            let mut chunk =
                json!({"id": "fake", "object": "chat.completion.chunk", "model": model, "choices": choices});
            if let Some(usage) = usage {
                chunk["usage"] = usage.clone();
            }
            format!("data: {chunk}\n\n")
        };
        for token in tokens {
            pause();
            let choices = json!([{"index": 0, "delta": {"role": "assistant", "content": token}, "finish_reason": null}]);
            stream.write_all(event(choices, None).as_bytes())?;
        }
        let last = json!([{"index": 0, "delta": {}, "finish_reason": reason}]);
        stream.write_all(event(last, None).as_bytes())?;
        stream.write_all(event(json!([]), Some(&usage)).as_bytes())?;
        return stream.write_all(b"data: [DONE]\n\n");
    }
    for _ in tokens {
        pause();
    }
    let message = json!({"role": "assistant", "content": tokens.concat()});
    let choices = json!([{"index": 0, "message": message, "finish_reason": reason}]);
    let answer = json!({"id": "fake", "object": "chat.completion", "model": model, "choices": choices, "usage": usage});
    response(fake, &mut stream, 200, &answer)
}
