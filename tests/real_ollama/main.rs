//! The real `ollama`, with variants of the tiny model of this repository: no network, no download.

mod models;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use models::{
    a_damaged_download_is_refused, a_missing_model_is_exit_7, a_model_is_pulled_and_pulled_again,
    a_start_keeps_partial_downloads, an_interrupted_pull_is_resumed, damaged_models_are_errors,
    load_keeps_the_model_despite_keep_alive_0, models_load_unload_and_are_removed,
    unload_warns_while_an_answer_runs, up_that_fails_to_load_stops_its_server,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::chat::Chat;
use support::processes::{describe, kill, lives, send};
use support::terminal::Terminal;
use support::tls_registry::TlsRegistry;
use support::{Finished, Invocation, Running, Sandbox, real, wait_for_end, wait_until};

/// The answer of the tiny model at temperature 0.
const SENTENCE: &str = "Hello! This is a tiny model on your own machine.\n";

fn main() -> ExitCode {
    real::main(
        "ollama",
        "ollama",
        real::tests![
            a_server_starts_restarts_and_stops,
            a_port_in_use_is_exit_5,
            an_external_server_is_never_stopped,
            down_and_restart_end_a_stream,
            a_killed_server_leaves_no_runner_after_down,
            a_killed_runner_is_exit_8,
            every_kind_of_prompt_is_answered,
            an_image_for_a_text_model_is_a_warning,
            the_context_to_come_is_shown,
            a_conversation_shows_its_context,
            answers_satisfy_a_schema,
            reasoning_stays_off_stdout,
            tool_calls_are_in_the_json,
            an_interrupt_stops_the_generation,
            models_load_unload_and_are_removed,
            load_keeps_the_model_despite_keep_alive_0,
            unload_warns_while_an_answer_runs,
            a_start_keeps_partial_downloads,
            a_start_that_fails_names_the_cause,
            up_that_fails_to_load_stops_its_server,
            a_missing_model_is_exit_7,
            damaged_models_are_errors,
            a_clipped_prompt_fills_the_context,
            a_full_queue_is_exit_8,
            a_model_is_pulled_and_pulled_again,
            an_interrupted_pull_is_resumed,
            a_damaged_download_is_refused,
            ps_names_a_runner_that_outlives_its_server,
        ],
    )
}

/// A sandbox with the real server in it: its own home, models and port.
struct Real {
    sandbox: Sandbox,
}

impl Real {
    fn new(program: &Path) -> Self {
        Self::configured(program, "")
    }

    fn configured(program: &Path, server: &str) -> Self {
        let sandbox = Sandbox::without_config();
        real::install(&sandbox, program);
        let real = Self { sandbox };
        real.configure(server);
        real
    }

    fn configure(&self, server: &str) {
        let port = self.sandbox.port("ollama");
        self.sandbox.write_config(&format!(
            "[ollama_server]\nport = {port}\n{server}\n\n[ollama_run]\nmodel = \"tiny\"\ntemperature = 0.0\n"
        ));
    }

    /// A server that runs and has the tiny model.
    fn up(program: &Path) -> Self {
        let real = Self::new(program);
        real.ollama(["up"]).run().assert_code(0);
        real.put("tiny", "plain", &[]);
        real
    }

    /// Puts a variant of the tiny model into the server.
    fn put(&self, name: &str, variant: &str, parameters: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/put_ollama_model.py");
        let address = format!("127.0.0.1:{}", self.sandbox.port("ollama"));
        let mut command = Command::new("python3");
        command.arg(script).args([&address, name, variant]);
        for parameter in parameters {
            command.args(["--parameter", parameter]);
        }
        assert!(command.status().expect("Python runs").success(), "the model is created");
    }

    fn ollama<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        self.sandbox.fusion(["ollama"].into_iter().chain(arguments))
    }

    fn ps(&self, code: i32) -> Value {
        self.ollama(["ps", "--json"]).run().assert_code(code).json()
    }

    /// Starts an answer that does not end by itself, and reads its beginning.
    fn endless_answer(&self) -> Child {
        let run = self.ollama(["run", "--stream", "-m", "endless", "Hello"]).into_command();
        real::start_and_read_until(run, "machine.").0
    }

    /// The processes that have a model loaded.
    fn runners(&self) -> Vec<i32> {
        let is_runner = |pid: &i32| describe(*pid).contains(" runner ");
        self.sandbox.processes().into_iter().filter(is_runner).collect()
    }

    /// The files of the model store that are larger than any template: the weights.
    fn weights(&self) -> Vec<PathBuf> {
        let blobs = fs::read_dir(self.sandbox.home().join(".ollama/models/blobs")).expect("a model store");
        let paths = blobs.map(|blob| blob.expect("an entry").path());
        paths.filter(|path| path.metadata().is_ok_and(|data| data.len() > 100_000)).collect()
    }

    /// Stops it, and fails if a process is left.
    fn down(&self) {
        self.ollama(["down"]).run().assert_code(0);
        self.sandbox.assert_nothing_runs();
        assert_eq!(self.ps(3)["state"], "stopped");
    }
}

fn pid_of(ps: &Value) -> i32 {
    ps["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid")
}

fn a_server_starts_restarts_and_stops(program: &Path) {
    let real = Real::new(program);
    let up = real.ollama(["up"]).run();
    let ps = real.ps(0);
    insta::assert_snapshot!(up, @"
    exit 0
    [stdout]
    ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])
    ");
    let pid = pid_of(&ps);
    up.assert_names_pid(pid);
    assert_eq!(ps["state"], "ready");
    assert_eq!(ps["models"], json!([]));
    assert!(ps["version"].is_string(), "{ps}");
    assert!(ps["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 10_000_000), "{ps}");
    real.ollama(["up"]).run().assert_code(0).assert_names_pid(pid);

    real.put("tiny", "plain", &[]);
    real.ollama(["load", "tiny"]).run().assert_code(0);
    assert_eq!(real.ps(0)["models"], json!(["tiny:latest"]));
    let runners = real.runners();
    assert_eq!(runners.len(), 1);
    real.ollama(["restart"]).run().assert_code(0);
    assert!(!lives(pid) && !lives(runners[0]), "the runner ends with its server");
    assert_eq!(real.ps(0)["models"], json!([]));
    real.ollama(["run", "Hello"]).run().assert_stdout(SENTENCE);
    let log = real.ollama(["log"]).run().assert_code(0).stdout();
    assert!(log.contains("/api/version"), "{log}");
    real.down();
}

fn a_port_in_use_is_exit_5(program: &Path) {
    let real = Real::new(program);
    let holder = real::hold(real.sandbox.port("ollama"));
    let up = real.ollama(["up"]).run().assert_code(5);
    assert!(up.stderr().contains(&std::process::id().to_string()), "{}", up.stderr());
    real.sandbox.assert_nothing_runs();
    drop(holder);
}

fn an_external_server_is_never_stopped(program: &Path) {
    let real = Real::new(program);
    let address = format!("127.0.0.1:{}", real.sandbox.port("ollama"));
    let log = fs::File::create(real.sandbox.root().join("log")).expect("a log");
    let mut command = real.sandbox.command(program).env("OLLAMA_HOST", &address).into_command();
    command.arg("serve").stdout(log.try_clone().expect("a log")).stderr(log);
    let mut server = command.spawn().expect("the server starts");
    wait_until("the server answers", || std::net::TcpStream::connect(&address).is_ok());

    real.ollama(["up"]).run().assert_code(0);
    real.put("tiny", "plain", &[]);
    let ps = real.ps(0);
    assert_eq!((&ps["state"], &ps["started_by"]), (&json!("external"), &json!("other")));
    real.ollama(["run", "Hello"]).run().assert_stdout(SENTENCE);
    let down = real.ollama(["down"]).run().assert_code(5);
    down.assert_names_pid(i32::try_from(server.id()).expect("a pid"));
    assert!(server.try_wait().expect("a child").is_none(), "an external server was stopped");
    // Its runner ends with it by SIGTERM, not by SIGKILL.
    send(i32::try_from(server.id()).expect("a pid"), Signal::SIGTERM);
    server.wait().expect("a child ends");
    real.sandbox.assert_nothing_runs();
}

fn down_and_restart_end_a_stream(program: &Path) {
    let real = Real::up(program);
    real.put("endless", "endless", &[]);
    for command in ["restart", "down"] {
        let run = real.endless_answer();
        real.ollama([command]).run().assert_code(0);
        let output = run.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(8), "{command}: {output:?}");
    }
    real.sandbox.assert_nothing_runs();
}

/// Its runner does not end by itself.
fn a_killed_server_leaves_no_runner_after_down(program: &Path) {
    let real = Real::up(program);
    real.ollama(["load", "tiny"]).run().assert_code(0);
    let (server, runners) = (pid_of(&real.ps(0)), real.runners());
    for command in ["up", "down"] {
        kill(pid_of(&real.ollama(["ps", "--json"]).run().json()));
        wait_until("ps sees that it is gone", || {
            real.ollama(["ps", "--json"]).run().json()["state"] != "ready"
        });
        real.ollama([command]).run().assert_code(0);
    }
    assert!(!lives(server) && !runners.iter().any(|runner| lives(*runner)));
    real.sandbox.assert_nothing_runs();
}

fn a_killed_runner_is_exit_8(program: &Path) {
    let real = Real::up(program);
    real.put("endless", "endless", &[]);
    let run = real.endless_answer();
    kill(real.runners()[0]);
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    // The next request loads the model again.
    real.ollama(["run", "Hello"]).run().assert_stdout(SENTENCE);
    real.down();
}

/// The server answers as if there were no image.
fn an_image_for_a_text_model_is_a_warning(program: &Path) {
    let real = Real::up(program);
    let answer = real.ollama(["run", "-f", real::PICTURE, "Hello"]).run().assert_code(0);
    assert!(answer.stdout().starts_with("Hello"), "{answer}");
    assert_eq!(answer.stderr(), "warning: tiny does not see the images of the prompt\n");
    real.down();
}

fn every_kind_of_prompt_is_answered(program: &Path) {
    let real = Real::up(program);
    for stream in ["--stream", "--no-stream"] {
        real.ollama(["run", stream, "Hello", "there"]).run().assert_stdout(SENTENCE);
        real.ollama(["run", stream]).stdin("Hello").run().assert_stdout(SENTENCE);
        let answer = real.ollama(["run", stream, "--json", "Hello"]).run().assert_code(0).json();
        assert_eq!(answer["text"], SENTENCE.trim_end());
        assert_eq!(answer["finish_reason"], "stop");
        assert!(answer["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 5), "{answer}");
        let cut = real.ollama(["run", stream, "--max-tokens", "3", "--strict", "Hello"]).run().assert_code(9);
        assert_eq!(cut.stdout(), "Hello! This\n");
    }
    real.ollama(["health"]).run().assert_code(0);
    real.down();
}

/// The server enforces the schema: the model knows no JSON.
fn answers_satisfy_a_schema(program: &Path) {
    let real = Real::up(program);
    let schema = json!({ "type": "object", "required": ["ok", "n"], "additionalProperties": false,
        "properties": { "ok": { "type": "boolean" }, "n": { "enum": [1, 2, 3] } } });
    let file = real.sandbox.project().join("schema.json");
    fs::write(&file, schema.to_string()).expect("the project is writable");
    for stream in ["--stream", "--no-stream"] {
        let answer =
            real.ollama(["run", stream, "--schema", "schema.json", "--max-tokens", "200", "Hello"]).run();
        let answer: Value = serde_json::from_slice(&answer.assert_code(0).stdout).expect("JSON");
        assert!(answer["ok"].is_boolean() && answer["n"].is_number(), "{answer}");
    }
    real.down();
}

fn reasoning_stays_off_stdout(program: &Path) {
    let real = Real::up(program);
    real.put("thinking", "thinking", &[]);
    for stream in ["--stream", "--no-stream"] {
        let run = ["run", stream, "-m", "thinking", "Hello", "--reasoning"];
        let hidden = real.ollama(run.into_iter().chain(["hide"])).run().assert_code(0);
        let shown = real.ollama(run.into_iter().chain(["show"])).run().assert_code(0);
        assert_eq!(hidden.stdout().trim(), "This is a tiny model on your own machine.");
        assert_eq!(shown.stdout(), hidden.stdout());
        assert!(!hidden.stderr().contains("Hello"), "{}", hidden.stderr());
        assert!(shown.stderr().contains("Hello"), "{}", shown.stderr());
    }
    real.down();
}

fn tool_calls_are_in_the_json(program: &Path) {
    let real = Real::up(program);
    real.put("tools", "tools", &[]);
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    let tool = json!({ "type": "function", "function": { "name": "get_weather", "parameters": parameters } });
    let tools = format!("tools=[{tool}]");
    for stream in ["--stream", "--no-stream"] {
        let run = real.ollama(["run", stream, "-m", "tools", "--json", "-o", &tools, "Hello"]);
        let answer = run.run().assert_code(0).json();
        assert_eq!(answer["finish_reason"], "tool_calls");
        let call = &answer["tool_calls"][0];
        assert_eq!(call["name"], "get_weather", "{answer}");
        assert_eq!(call["arguments"].as_str(), Some(r#"{"city":"Oslo"}"#), "{answer}");
    }
    real.down();
}

fn an_interrupt_stops_the_generation(program: &Path) {
    let real = Real::up(program);
    real.put("endless", "endless", &[]);
    for stream in ["--stream", "--no-stream"] {
        let terminal = Terminal::open();
        let mut command = real.ollama(["run", stream, "-m", "endless", "Hello"]).into_command();
        command.env("TERM", "xterm").stdout(terminal.stream()).stderr(terminal.stream());
        let mut run = command.spawn().expect("it starts");
        if stream == "--stream" {
            terminal.wait_for("machine.");
        } else {
            wait_until("the model is loaded", || !real.runners().is_empty());
        }
        send(i32::try_from(run.id()).expect("a pid"), Signal::SIGINT);
        let status = wait_for_end(&mut run);
        assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{stream}: {status}");
        drop(command);
        terminal.finish();
        // A model that still answers is unloaded only when its answer has ended.
        real.ollama(["unload", "endless"]).run().assert_code(0);
        wait_until("the runner has ended", || real.runners().is_empty());
    }
    real.down();
}

fn a_start_that_fails_names_the_cause(program: &Path) {
    let real = Real::configured(program, "env.OLLAMA_MODELS = \"/dev/null/x\"");
    let up = real.ollama(["up"]).run().assert_code(6);
    assert!(up.stderr().contains("\n  caused by: mkdir /dev/null: not a directory"), "{}", up.stderr());
    real.sandbox.assert_nothing_runs();
}

/// The server says nothing: the number of its tokens tells.
fn a_clipped_prompt_fills_the_context(program: &Path) {
    let real = Real::up(program);
    real.put("small", "plain", &["num_ctx=256"]);
    let long = "Hello there, welcome to the machine. ".repeat(200);
    let run = real.ollama(["run", "-m", "small", "--json", "--max-tokens", "5"]).stdin(long).run();
    let run = run.assert_code(0);
    assert_eq!(run.json()["usage"]["prompt_tokens"], 256, "{run}");
    assert!(run.stderr().contains("warning: Ollama cut the prompt to the context of 256 tokens"), "{run}");
    // A long one is warned of before it is sent.
    let endless = "Hello there, welcome to the machine. ".repeat(3_000);
    let run = real.ollama(["run", "--max-tokens", "5"]).stdin(endless).run().assert_code(0);
    assert!(run.stderr().contains("and the context of tiny is 4,096: Ollama cuts the prompt"), "{run}");
    assert!(run.stderr().contains("env.OLLAMA_CONTEXT_LENGTH 16384"), "{run}");
    // The field that would change the context elsewhere does nothing here.
    let ignored = real.ollama(["run", "-o", "num_ctx=512", "-o", "keep_alive=1m", "Hello"]).run();
    for field in ["num_ctx", "keep_alive"] {
        assert!(ignored.stderr().contains(&format!("warning: Ollama ignores `{field}`")), "{ignored}");
    }
    real.down();
}

/// Only requests that wait for a model to be loaded count: one is being seen to, one waits, the next is refused.
fn a_full_queue_is_exit_8(program: &Path) {
    let limits = "env = { OLLAMA_MAX_QUEUE = \"1\", OLLAMA_MAX_LOADED_MODELS = \"1\" }";
    let real = Real::configured(program, limits);
    real.ollama(["up"]).run().assert_code(0);
    real.put("tiny", "plain", &[]);
    real.put("endless", "endless", &[]);
    let mut busy = real.endless_answer();
    let mut waiting: Vec<Running> = (0..4).map(|_| real.ollama(["run", "Hello"]).start()).collect();
    wait_until("one is refused", || waiting.iter_mut().any(Running::has_ended));
    let refused = waiting.iter_mut().position(Running::has_ended).expect("one has ended");
    let refused = waiting.remove(refused).finish().assert_code(8);
    assert!(refused.stderr().contains("server busy"), "{refused}");
    assert!(refused.stderr().contains("OLLAMA_MAX_QUEUE"), "{refused}");
    busy.kill().expect("a child can be killed");
    busy.wait().expect("a child ends");
    // What waited gets its turn.
    let answers = waiting.into_iter().map(Running::finish).filter(|run| run.code() == 0);
    assert!(answers.map(|run| assert_eq!(run.stdout(), SENTENCE)).count() >= 1);
    real.down();
}

/// A server that trusts a registry with the tiny model.
struct Trusting {
    real: Real,
    registry: TlsRegistry,
}

impl Trusting {
    fn new(program: &Path) -> Self {
        let real = Real::new(program);
        let registry = TlsRegistry::start(real.sandbox.root().join("registry"));
        real.configure(&format!("env.SSL_CERT_FILE = \"{}\"", registry.certificate().display()));
        real.ollama(["up"]).run().assert_code(0);
        real.put("tiny", "plain", &[]);
        registry.take(&real.sandbox.home().join(".ollama/models"));
        real.ollama(["rm", "--yes", "tiny"]).run().assert_code(0);
        assert_eq!(real.weights(), [""; 0].map(PathBuf::from));
        Self { real, registry }
    }

    fn pull(&self) -> Invocation {
        self.real.ollama(["pull", &self.registry.model()])
    }

    fn assert_answers(&self) {
        self.real.ollama(["run", "-m", &self.registry.model(), "Hello"]).run().assert_stdout(SENTENCE);
    }
}

fn ps_names_a_runner_that_outlives_its_server(program: &Path) {
    let real = Real::up(program);
    real.ollama(["load", "tiny"]).run().assert_code(0);
    let (server, runner) = (pid_of(&real.ps(0)), real.runners()[0]);
    kill(server);
    wait_until("ps sees that it is gone", || {
        real.ollama(["ps", "--json"]).run().json()["state"] == "unhealthy"
    });
    let ps = real.ollama(["ps"]).run().assert_code(1);
    let note = format!("the server ended without `down`, and pid {runner}, which it started, still uses ");
    assert!(ps.stdout().contains(&note), "{ps}");
    assert!(ps.stdout().contains("end it: fusion ollama down"), "{ps}");
    assert_eq!(real.ollama(["ps", "--json"]).run().json()["pid"], runner);
    real.ollama(["down"]).run().assert_code(0);
    assert!(!lives(runner));
    real.sandbox.assert_nothing_runs();
}

/// `show` tells the context of a model before that is loaded: its own, or the one that the server gives to all.
fn the_context_to_come_is_shown(program: &Path) {
    let real = Real::configured(program, "env.OLLAMA_CONTEXT_LENGTH = \"1024\"");
    real.ollama(["up"]).run().assert_code(0);
    real.put("small", "plain", &["num_ctx=256"]);
    real.put("tiny", "plain", &[]);
    for (model, context) in [("small", "256"), ("tiny", "1,024")] {
        for words in ["to be loaded with", "loaded with"] {
            let shown = real.ollama(["show", model]).run().assert_code(0);
            assert!(shown.stdout().contains(&format!("32,768 tokens, {words} {context}\n")), "{shown}");
            real.ollama(["load", model]).run().assert_code(0);
        }
    }
    real.down();
}

/// The context of the loaded model is shown with its use.
fn a_conversation_shows_its_context(program: &Path) {
    let real = Real::up(program);
    let mut chat = Chat::with(&real.sandbox, "ollama", "-s one", SENTENCE.trim_end());
    chat.expect("tiny > ").send("Hello\r").expect(SENTENCE.trim_end()).expect("tiny · ").expect("/4k > ");
    chat.send("/system Be brief.\r").asks("Really?").expect("/4k > ").send("\x04");
    chat.ends(0);
    real.down();
}
