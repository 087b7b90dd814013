//! A program that plays any runtime, and its faults.
//!
//! `fake-runtime ROLE [FAULT]... [ARGUMENT]...`: `ROLE` is `ollama` or `mlx`; without it the name under which the
//! program was started decides. Faults are words like `bind-after=2000` (see [`Faults`]); more of them may stand
//! in the variable `FAKE_RUNTIME`. Other arguments are those of the real server: `--host`, `--port`, `--model`.
//!
//! `fake-runtime on-terminal TERMINAL PROGRAM [ARGUMENT]...` becomes a program on its own controlling terminal;
//! `fake-runtime with-blocked-signals PROGRAM [ARGUMENT]...` one that starts with every signal blocked;
//! `fake-runtime measured REPORT PROGRAM [ARGUMENT]...` runs one, and writes how much memory it held.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::exit,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::zombie_processes,
    reason = "a program of its own: it has an environment, prints, exits in the middle and leaves children"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd;
use serde_json::{Value, json};

/// Faults and behaviours, by name; each with its value, empty where it has none.
///
/// | fault | what happens |
/// |---|---|
/// | `print=TEXT`, `print-hex=HEX` | writes that to stderr first |
/// | `die=CODE` | exits at once |
/// | `die-after=MS` | exits with code 1 after a while |
/// | `signal=NUMBER` | ends itself by that signal at once |
/// | `bind-after=MS` | binds late |
/// | `bind-when=FILE` | binds when that file exists |
/// | `never-bind` | lives without listening |
/// | `hang` | binds, and answers nothing |
/// | `hang-while=FILE` | answers nothing while that file exists |
/// | `loading=MS` | answers 503 for so long |
/// | `status=CODE` | answers everything with that status |
/// | `chat-status=CODE` | answers chats with that status |
/// | `chat-hang` | answers everything but chats |
/// | `die-on-chat` | ends when it is asked something |
/// | `token-after=MS` | waits before each token |
/// | `ignore-term` | does not end on SIGTERM |
/// | `slow-end=MS` | takes so long to end on SIGTERM |
/// | `end-when=FILE` | ends on SIGTERM when that file exists |
/// | `children=N` | has so many children, |
/// | `children-ignore-term` | who do not end on SIGTERM, |
/// | `children-own-session` | who have sessions of their own |
/// | `leave-children` | ends by itself 50 ms after it answered its first request, children stay |
/// | `daemonize` | starts itself in a new session, and exits with 0 |
/// | `flood=BYTES` | writes so much to the log, in lines of 100 bytes |
/// | `quiet` | does not print the requests |
/// | `dump=FILE` | writes what it was started with to that file |
/// | `models=A,B` | the models it knows |
struct Faults(BTreeMap<String, String>);

impl Faults {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
    }

    fn millis(&self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_millis)
    }
}

const FAULTS: &[&str] = &[
    "print",
    "print-hex",
    "die",
    "die-after",
    "signal",
    "bind-after",
    "bind-when",
    "never-bind",
    "hang",
    "hang-while",
    "loading",
    "status",
    "chat-status",
    "chat-hang",
    "die-on-chat",
    "token-after",
    "ignore-term",
    "slow-end",
    "end-when",
    "children",
    "children-ignore-term",
    "children-own-session",
    "leave-children",
    "daemonize",
    "flood",
    "quiet",
    "dump",
    "models",
    "child",
];

struct Fake {
    mlx: bool,
    /// Who its models belong to, as llama.cpp tells.
    owner: &'static str,
    faults: Faults,
    host: String,
    port: u16,
    model: Option<String>,
    started: Instant,
    asked: AtomicBool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, terminal, program, rest @ ..] = arguments.as_slice()
        && word == "on-terminal"
    {
        return on_terminal(Path::new(terminal), program, rest);
    }
    if let [_, word, program, rest @ ..] = arguments.as_slice()
        && word == "with-blocked-signals"
    {
        SigSet::all().thread_block().expect("signals can be blocked");
        let error = Command::new(program).args(rest).exec();
        panic!("{program}: {error}");
    }
    if let [_, word, report, program, rest @ ..] = arguments.as_slice()
        && word == "measured"
    {
        return measured(report, program, rest);
    }
    let fake = Arc::new(parse(&arguments));
    if fake.faults.has("child") {
        return child(&fake.faults);
    }
    prologue(&fake, &arguments);
    if fake.faults.has("daemonize") {
        let rest = arguments[1..].iter().filter(|word| *word != "daemonize");
        let started = Command::new(std::env::current_exe().expect("own path"))
            .args(role(&fake))
            .args(rest)
            .args(["child-session-leader"])
            .spawn();
        started.expect("the daemon starts");
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|word| word == "child-session-leader") {
        unistd::setsid().expect("a session of its own");
    }
    handle_term(&fake.faults);
    spawn_children(&fake);
    serve(&fake)
}

/// Runs the program, and writes the most memory that it held at once to `report`, in bytes.
fn measured(report: &str, program: &str, arguments: &[String]) -> ExitCode {
    let status = Command::new(program).args(arguments).status().expect("the program starts");
    let largest = getrusage(UsageWho::RUSAGE_CHILDREN).expect("own usage").max_rss();
    // Bytes on macOS, kilobytes elsewhere (getrusage(2)).
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    std::fs::write(report, (largest.unsigned_abs() * unit).to_string()).expect("the report is writable");
    ExitCode::from(u8::try_from(status.code().expect("it exits")).expect("an exit code"))
}

/// Becomes `program` in a session of its own, which has the terminal as its controlling terminal: the first one that
/// the leader of a session opens.
fn on_terminal(terminal: &Path, program: &str, arguments: &[String]) -> ExitCode {
    unistd::setsid().expect("a session of its own");
    let stream = || {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(terminal);
        Stdio::from(opened.expect("the terminal"))
    };
    let error =
        Command::new(program).args(arguments).stdin(stream()).stdout(stream()).stderr(stream()).exec();
    panic!("{program}: {error}");
}

fn role(fake: &Fake) -> [&'static str; 1] {
    [if fake.mlx { "mlx" } else { "ollama" }]
}

fn parse(arguments: &[String]) -> Fake {
    let variable = std::env::var("FAKE_RUNTIME").unwrap_or_default();
    let mut faults = BTreeMap::new();
    for word in arguments.iter().map(String::as_str).chain(variable.split_whitespace()) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if FAULTS.contains(&name) {
            faults.insert(name.to_owned(), value.to_owned());
        }
    }
    let option = |name: &str| {
        let position = arguments.iter().position(|word| word == name)?;
        arguments.get(position + 1).cloned()
    };
    let role = arguments.get(1).map_or("", String::as_str);
    let mlx = role == "mlx" || (role != "ollama" && arguments[0].ends_with("mlx_lm.server"));
    let ollama_host = std::env::var("OLLAMA_HOST").unwrap_or_default();
    let (host, port) = ollama_host.rsplit_once(':').unwrap_or(("127.0.0.1", "0"));
    let host = option("--host").unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
    let port = option("--port").unwrap_or_else(|| port.to_owned()).parse().expect("a port");
    Fake {
        mlx,
        owner: if arguments[0].ends_with("llama-server") { "llamacpp" } else { "library" },
        faults: Faults(faults),
        host,
        port,
        model: option("--model"),
        started: Instant::now(),
        asked: AtomicBool::new(false),
    }
}

/// What happens before anything is served.
fn prologue(fake: &Fake, arguments: &[String]) {
    let faults = &fake.faults;
    if let Some(path) = faults.text("dump") {
        dump(Path::new(path), arguments);
    }
    if let Some(text) = faults.text("print") {
        eprintln!("{text}");
    }
    if let Some(hex) = faults.text("print-hex") {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect();
        std::io::stderr().write_all(&bytes).expect("stderr is writable");
    }
    if let Some(bytes) = faults.number("flood") {
        flood(bytes);
    }
    if let Some(number) = faults.number("signal") {
        let number = i32::try_from(number).expect("a signal");
        let _ = signal::raise(Signal::try_from(number).expect("a signal"));
    }
    if let Some(code) = faults.number("die") {
        std::process::exit(i32::try_from(code).expect("an exit code"));
    }
    if let Some(delay) = faults.millis("die-after") {
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            eprintln!("fatal: the fake runtime was told to die");
            std::process::exit(1);
        });
    }
}

fn flood(bytes: u64) {
    let mut stderr = std::io::BufWriter::with_capacity(1 << 16, std::io::stderr());
    for number in 0..bytes / 100 {
        writeln!(stderr, "{number:099}").expect("stderr is writable");
    }
    stderr.flush().expect("stderr is writable");
}

/// Arguments, environment, directory, session, signal mask and descriptors, as JSON.
fn dump(path: &Path, arguments: &[String]) {
    let descriptors = std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd"));
    let descriptors: Vec<String> = descriptors
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    let targets: BTreeMap<String, String> = descriptors
        .iter()
        .filter_map(|name| {
            let target = std::fs::read_link(format!("/proc/self/fd/{name}")).ok()?;
            Some((name.clone(), target.to_string_lossy().into_owned()))
        })
        .collect();
    let blocked = SigSet::thread_get_mask().expect("the signal mask");
    let blocked: Vec<&str> = blocked.iter().map(Signal::as_str).collect();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    let facts = json!({
        "arguments": arguments,
        "environment": std::env::vars().collect::<BTreeMap<_, _>>(),
        "directory": std::env::current_dir().ok(),
        "pid": std::process::id(),
        "session": unistd::getsid(None).expect("a session").as_raw(),
        "group": unistd::getpgrp().as_raw(),
        "descriptors": targets,
        "blocked": blocked,
        "ignored": ignored,
    });
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, facts.to_string()).expect("the dump is writable");
    std::fs::rename(&temporary, path).expect("the dump is writable");
}

/// SIGTERM is blocked in every thread of a process that is to decide for itself when it ends.
fn handle_term(faults: &Faults) {
    let term = SigSet::from(Signal::SIGTERM);
    if faults.has("ignore-term") {
        term.thread_block().expect("SIGTERM can be blocked");
    } else if faults.has("slow-end") || faults.has("end-when") {
        term.thread_block().expect("SIGTERM can be blocked");
        let delay = faults.millis("slow-end").unwrap_or_default();
        let path = faults.text("end-when").map(PathBuf::from);
        std::thread::spawn(move || {
            term.wait().expect("signals can be waited for");
            std::thread::sleep(delay);
            wait_until(|| path.as_ref().is_none_or(|path| path.exists()));
            eprintln!("ended in peace");
            std::process::exit(0);
        });
    }
}

fn spawn_children(fake: &Fake) {
    let mut behaviour = vec!["child"];
    for (fault, word) in
        [("children-ignore-term", "ignore-term"), ("children-own-session", "child-session-leader")]
    {
        if fake.faults.has(fault) {
            behaviour.push(word);
        }
    }
    for _ in 0..fake.faults.number("children").unwrap_or(0) {
        let child = Command::new(std::env::current_exe().expect("own path"))
            .args(role(fake))
            .args(&behaviour)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        // The child says when it is as it should be.
        let mut child = child.expect("the child starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the child speaks");
        assert_eq!(line, "settled\n");
    }
}

/// A helper process of the server: lives until it is ended.
fn child(faults: &Faults) -> ExitCode {
    if std::env::args().any(|word| word == "child-session-leader") {
        unistd::setsid().expect("a session of its own");
    }
    handle_term(faults);
    println!("settled");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn serve(fake: &Arc<Fake>) -> ExitCode {
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
    let listener = match TcpListener::bind((fake.host.as_str(), fake.port)) {
        Ok(listener) => listener,
        Err(error) => return bind_failed(fake, &error),
    };
    eprintln!("listening on {}:{}", fake.host, fake.port);
    for stream in listener.incoming().flatten() {
        let fake = Arc::clone(fake);
        std::thread::spawn(move || {
            // A client that went away is no concern of the server.
            let _ = answer(&fake, stream);
        });
    }
    ExitCode::SUCCESS
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// As the real ones: Ollama says so and exits, `mlx_lm.server` prints a traceback and lives on without listening.
fn bind_failed(fake: &Fake, error: &std::io::Error) -> ExitCode {
    if fake.mlx {
        eprintln!("Traceback (most recent call last):\nOSError: [Errno 98] Address already in use");
        forever();
    }
    eprintln!("Error: listen tcp {}:{}: bind: address already in use ({error})", fake.host, fake.port);
    ExitCode::FAILURE
}

struct Request {
    line: String,
    body: Value,
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
    if fake.faults.has("leave-children") && !fake.asked.swap(true, Ordering::Relaxed) {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            std::process::exit(3);
        });
    }
    if fake.faults.has("hang") {
        forever();
    }
    if let Some(path) = fake.faults.text("hang-while") {
        wait_until(|| !Path::new(path).exists());
    }
    if let Some(status) = fake.faults.number("status") {
        return reply(&mut stream, status, &error(fake, "the fake runtime was told to fail"));
    }
    if fake.faults.millis("loading").is_some_and(|loading| fake.started.elapsed() < loading) {
        return reply(&mut stream, 503, &json!({"error": "loading", "status": "loading"}));
    }
    match (fake.mlx, request.line.as_str()) {
        (_, "POST /v1/chat/completions") => chat(fake, stream, &request.body),
        (false, "GET /api/version") => reply(&mut stream, 200, &json!({"version": "0.0.0-fake"})),
        (false, "GET /api/ps" | "GET /api/tags") => {
            let names = models(fake);
            let models: Vec<Value> =
                names.iter().map(|name| json!({"name": name, "model": name, "size": 1})).collect();
            reply(&mut stream, 200, &json!({"models": models}))
        }
        (true, "GET /health") => reply(&mut stream, 200, &json!({"status": "ok"})),
        (_, "GET /v1/models") => {
            let data: Vec<Value> = models(fake)
                .iter()
                .map(|id| json!({"id": id, "object": "model", "owned_by": fake.owner}))
                .collect();
            reply(&mut stream, 200, &json!({"object": "list", "data": data}))
        }
        _ => reply(&mut stream, 404, &error(fake, "no such path")),
    }
}

fn models(fake: &Fake) -> Vec<String> {
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

fn reply(stream: &mut TcpStream, status: u64, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} Fake\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
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
        return reply(&mut stream, status, &error(fake, "the fake runtime was told to fail"));
    }
    let model = body["model"].as_str().unwrap_or_default();
    let is_default = fake.mlx && model == "default_model";
    if !is_default && !models(fake).iter().any(|known| known == model) {
        return reply(&mut stream, 404, &error(fake, &format!("model '{model}' not found")));
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
    reply(&mut stream, 200, &answer)
}
