//! A program that plays any runtime, and its faults.
//!
//! `fake-runtime ROLE [FAULT]... [ARGUMENT]...`: `ROLE` is `ollama`, `mlx` or `llama`. Without it, the name under
//! which the program was started decides. Faults are words like `bind-after=2000` (see [`faults`]), also in the
//! variable `FAKE_RUNTIME`. Other arguments are those of the real server: `--host`, `--port`, `--model`.
//!
//! `fake-runtime on-terminal TERMINAL PROGRAM [ARGUMENT]...` becomes a program on its own controlling terminal;
//! `fake-runtime with-blocked-signals PROGRAM [ARGUMENT]...` one that starts with every signal blocked;
//! `fake-runtime measured REPORT PROGRAM [ARGUMENT]...` runs one and writes its peak memory.

#![allow(
    clippy::disallowed_methods,
    clippy::exit,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::zombie_processes,
    reason = "a program of its own: it has an environment, prints, exits in the middle and leaves children"
)]

mod agents;
mod faults;
mod llama;
mod server;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd;
use serde_json::json;

use faults::{FAULTS, Faults};

struct Fake {
    mlx: bool,
    /// What only `llama-server` has, if it plays that.
    llama: Option<llama::Llama>,
    /// The owner of its models in `/v1/models`.
    owner: &'static str,
    faults: Faults,
    host: String,
    port: u16,
    model: Option<String>,
    started: Instant,
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
    if fake.faults.has("fork-away") {
        let rest = arguments[1..].iter().filter(|word| *word != "fork-away");
        let program = std::env::current_exe().expect("own path");
        let is_left = fake.faults.has("forks-twice");
        let mut server = Command::new(if is_left { Path::new("/bin/sh") } else { &program });
        if is_left {
            server.args(["-c", "\"$0\" \"$@\" &"]).arg(&program);
        }
        server.args(role(&fake)).args(rest).args(["child-session-leader"]);
        let socket =
            fake.faults.has("hands-over-socket").then(|| server::bind(&fake).expect("the port is free"));
        if let Some(socket) = &socket {
            server.stdin(OwnedFd::from(socket.try_clone().expect("a descriptor")));
        }
        let (lingers, until) = (fake.faults.millis("lingers"), fake.faults.text("lingers-until"));
        if lingers.is_some() || until.is_some() {
            server.env_remove("FUSION_INSTANCE");
        }
        let mut server = server.spawn().expect("the server starts");
        if is_left {
            server.wait().expect("the shell ends");
        }
        std::thread::sleep(lingers.unwrap_or_default());
        wait_until(|| until.is_none_or(|path| Path::new(path).exists()));
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|word| word == "child-session-leader") {
        unistd::setsid().expect("a session of its own");
    }
    handle_term(&fake.faults);
    spawn_children(&fake);
    server::serve(&fake)
}

/// Runs the program and writes its peak memory in bytes to `report`.
fn measured(report: &str, program: &str, arguments: &[String]) -> ExitCode {
    let status = Command::new(program).args(arguments).status().expect("the program starts");
    let largest = getrusage(UsageWho::RUSAGE_CHILDREN).expect("own usage").max_rss();
    // Bytes on macOS, kilobytes elsewhere (getrusage(2)).
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    std::fs::write(report, (largest.unsigned_abs() * unit).to_string()).expect("the report is writable");
    ExitCode::from(u8::try_from(status.code().expect("it exits")).expect("an exit code"))
}

/// Becomes `program` in its own session. The terminal becomes the controlling terminal, because it is the first that
/// the leader of the session opens.
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
    match fake {
        Fake { mlx: true, .. } => ["mlx"],
        Fake { llama: Some(_), .. } => ["llama"],
        _ => ["ollama"],
    }
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
    let is_llama = role == "llama" || (!mlx && role != "ollama" && arguments[0].ends_with("llama-server"));
    let llama = is_llama
        .then(|| llama::Llama { directory: option("--models-dir"), loaded: std::sync::Mutex::default() });
    let ollama_host = std::env::var("OLLAMA_HOST").unwrap_or_default();
    let (host, port) = ollama_host.rsplit_once(':').unwrap_or(("127.0.0.1", "0"));
    let host = option("--host").unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
    let port = option("--port").unwrap_or_else(|| port.to_owned()).parse().expect("a port");
    Fake {
        mlx,
        llama,
        owner: if arguments[0].ends_with("tabby-server") { "tabby" } else { "library" },
        faults: Faults(faults),
        host,
        port,
        model: option("--alias").or_else(|| option("--model")).or_else(|| option("-m")),
        started: Instant::now(),
    }
}

/// Everything before the server listens.
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
    if let Some(path) = faults.text("die-when").map(PathBuf::from) {
        std::thread::spawn(move || {
            wait_until(|| path.exists());
            std::process::exit(3);
        });
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

/// Blocks SIGTERM in every thread of a process that decides itself when it ends.
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
            eprintln!("told to end");
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
        // The child reports when its faults are in force.
        let mut child = child.expect("the child starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the child speaks");
        assert_eq!(line, "settled\n");
    }
}

/// A helper process of the server, which lives until a signal ends it.
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
