//! The real `mlx_lm.server`, with the tiny model of this repository: no network, no download.

mod support;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::chat::Chat;
use support::processes::{kill, lives, send};
use support::terminal::Terminal;
use support::{Finished, Invocation, Sandbox, real, wait_until};

/// The answer of the tiny model at temperature 0.
const SENTENCE: &str = "Hello! This is a tiny model on your own machine.\n";

/// The reasoning of its variant with `--thinking`.
const REASONING: &str = "Someone wrote something here";

fn main() -> ExitCode {
    real::main(
        "mlx",
        "mlx_lm.server",
        real::tests![
            a_server_starts_restarts_and_stops,
            every_kind_of_prompt_is_answered,
            an_image_is_exit_8,
            a_conversation_goes_on_in_its_session,
            reasoning_stays_off_stdout,
            a_missing_model_is_exit_7,
            an_unloadable_model_is_exit_6,
            a_port_in_use_is_exit_5,
            a_server_that_never_listens_is_exit_6,
            an_external_server_is_never_stopped,
            an_interrupt_stops_the_generation,
            prefill_progress_of_a_long_prompt_is_shown,
            a_killed_server_is_exit_8,
            two_servers_run_at_once,
        ],
    )
}

/// A sandbox with the real server in it.
struct Real {
    sandbox: Sandbox,
}

impl Real {
    fn new(program: &Path, model: &str) -> Self {
        let sandbox = Sandbox::without_config();
        real::install(&sandbox, program);
        let real = Self { sandbox };
        real.configure(model, "");
        real
    }

    fn with_variant(program: &Path, options: &[&str]) -> Self {
        let real = Self::new(program, "");
        let model = real.sandbox.root().join("variant");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/make_tiny_model.py");
        let made =
            Command::new("python3").arg(script).arg(&model).args(options).status().expect("Python runs");
        assert!(made.success(), "the model is written");
        real.configure(&model.display().to_string(), "");
        real
    }

    fn configure(&self, model: &str, server: &str) {
        let port = self.sandbox.port("mlx");
        self.sandbox.write_config(&format!(
            "[mlx_server]\nport = {port}\nmodel = \"{model}\"\n{server}\n\n\
             [mlx_run]\nmodel = \"{model}\"\ntemperature = 0.0\n"
        ));
    }

    fn mlx<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        self.sandbox.fusion(["mlx"].into_iter().chain(arguments))
    }

    fn up(&self) -> Finished {
        self.mlx(["up"]).run().assert_code(0)
    }

    fn ps(&self, code: i32) -> Value {
        self.mlx(["ps", "--json"]).run().assert_code(code).json()
    }

    /// Stops it, and fails if a process is left.
    fn down(&self) {
        self.mlx(["down"]).run().assert_code(0);
        self.sandbox.assert_nothing_runs();
        assert_eq!(self.ps(3)["state"], "stopped");
    }
}

fn tiny() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/tiny").display().to_string()
}

fn pid_of(ps: &Value) -> i32 {
    ps["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a PID")
}

fn a_server_starts_restarts_and_stops(program: &Path) {
    let real = Real::new(program, &tiny());
    let up = real.up();
    let ready = real.ps(0);
    let pid = pid_of(&ready);
    insta::assert_snapshot!(up, @"
    exit 0
    [stdout]
    mlx is up at http://127.0.0.1:[MLX] (pid [PID])
    ");
    up.assert_names_pid(pid);
    assert_eq!(ready["state"], "ready");
    assert_eq!(ready["started_by"], "fusion");
    assert_eq!(ready["models"], serde_json::json!([tiny()]));
    assert!(ready["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 50_000_000), "{ready}");
    assert!(lives(pid));

    real.up().assert_names_pid(pid);

    let health = real.mlx(["health", "--json"]).run().assert_code(0).json();
    assert!(health.is_object(), "{health}");
    real.mlx(["run", "Hello"]).run().assert_stdout(SENTENCE);

    let log = real.mlx(["log"]).run().assert_code(0).stdout();
    assert!(log.contains("POST /v1/chat/completions"), "{log}");
    let last = real.mlx(["log", "-n", "1"]).run().assert_code(0).stdout();
    assert_eq!(last.lines().count(), 1, "{last}");

    real.mlx(["restart"]).run().assert_code(0);
    let restarted = pid_of(&real.ps(0));
    assert_ne!(restarted, pid);
    assert!(!lives(pid));

    real.down();
    assert!(!lives(restarted));
    drop(real::hold(real.sandbox.port("mlx")));
}

fn an_image_is_exit_8(program: &Path) {
    let real = Real::new(program, &tiny());
    real.up();
    let refused = real.mlx(["run", "-f", real::PICTURE, "Hello"]).run().assert_code(8);
    assert!(refused.stderr().contains("does not see the images of the prompt\n"), "{refused}");
    assert!(refused.stderr().contains("hint: leave out the image, or ask another service"), "{refused}");
    real.down();
}

fn every_kind_of_prompt_is_answered(program: &Path) {
    let real = Real::new(program, &tiny());
    // The server is stopped: `run` starts it, and says so on stderr only.
    let first = real.mlx(["run", "--stream", "Hello"]).run().assert_code(0);
    assert_eq!(first.stdout(), SENTENCE);
    for stream in ["--stream", "--no-stream"] {
        real.mlx(["run", stream, "Hello", "there"]).run().assert_stdout(SENTENCE);
        real.mlx(["run", stream]).stdin("Hello").run().assert_stdout(SENTENCE);
        real.mlx(["run", stream, "Hello"]).stdin("more").run().assert_stdout(SENTENCE);

        let answer = real.mlx(["run", stream, "--json", "Hello"]).run().assert_code(0).json();
        assert_eq!(answer["text"], SENTENCE.trim_end());
        assert_eq!(answer["finish_reason"], "stop");
        assert_eq!(answer["runtime"], "mlx");
        assert!(answer["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 5), "{answer}");

        let cut = real.mlx(["run", stream, "--max-tokens", "3", "--strict", "Hello"]).run().assert_code(9);
        assert_eq!(cut.stdout(), "Hello! This\n");
    }
    // Sampled answers have characters of several bytes and end by themselves.
    for seed in 1..=10 {
        let seed = seed.to_string();
        let answer = real.mlx(["run", "-t", "1.5", "--seed", &seed, "Hello"]).run().assert_code(0);
        let text = String::from_utf8(answer.stdout).expect("whole characters");
        assert!(text.ends_with(".\n"), "{text}");
    }
    real.down();
}

fn reasoning_stays_off_stdout(program: &Path) {
    let real = Real::with_variant(program, &["--thinking"]);
    real.up();
    for stream in ["--stream", "--no-stream"] {
        real.mlx(["run", stream, "--reasoning", "hide", "Hello"]).run().assert_stdout(SENTENCE);
        let shown = real.mlx(["run", stream, "--reasoning", "show", "Hello"]).run().assert_code(0);
        assert_eq!(shown.stdout(), SENTENCE);
        assert!(shown.stderr().contains(REASONING), "{}", shown.stderr());
    }
    real.down();
}

fn a_missing_model_is_exit_7(program: &Path) {
    let real = Real::new(program, &tiny());
    real.up();
    let missing = real.mlx(["run", "-m", "no-such/model", "Hello"]).run().assert_code(7);
    assert_eq!(missing.stdout(), "");
    assert!(missing.stderr().contains("no-such/model"), "{}", missing.stderr());
    // The server drops its model when it is asked for one that it cannot load, so it must not have been asked.
    real.mlx(["run", "--no-up", "Hello"]).run().assert_stdout(SENTENCE);
    real.down();

    real.configure("/nowhere/at/all", "");
    let up = real.mlx(["up"]).run().assert_code(7);
    assert!(up.stderr().contains("/nowhere/at/all"), "{}", up.stderr());
    real.sandbox.assert_nothing_runs();
}

/// `/health` answers, or reports that a thread died, and the process lives on: neither is ready.
fn an_unloadable_model_is_exit_6(program: &Path) {
    let real = Real::with_variant(program, &[]);
    let config = real.sandbox.root().join("variant/config.json");
    let text = std::fs::read_to_string(&config).expect("the model's configuration");
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    json["model_type"] = "no-such-architecture".into();
    std::fs::write(&config, json.to_string()).expect("the model is writable");
    let up = real.mlx(["up"]).run().assert_code(6);
    assert_eq!(up.stdout(), "");
    assert!(up.stderr().contains("no-such-architecture"), "{}", up.stderr());
    real.sandbox.assert_nothing_runs();
}

fn a_port_in_use_is_exit_5(program: &Path) {
    let real = Real::new(program, &tiny());
    let port = real.sandbox.port("mlx");
    let holder = real::hold(port);
    let up = real.mlx(["up"]).run().assert_code(5);
    let (pid, stderr) = (std::process::id().to_string(), up.stderr());
    assert!(stderr.contains(&port.to_string()) && stderr.contains(&pid), "{stderr}");
    real.sandbox.assert_nothing_runs();
    drop(holder);
    real.up();
    real.down();
}

/// As when another process takes the port between fusion's check and the server's own `bind`.
fn a_server_that_never_listens_is_exit_6(program: &Path) {
    let real = Real::new(program, &tiny());
    let taken = support::ports::Port::free();
    let _holder = real::hold(taken.number());
    let elsewhere = format!("args = [\"--port\", \"{}\"]\nstartup_timeout = 10", taken.number());
    real.configure(&tiny(), &elsewhere);
    real.mlx(["up"]).run().assert_code(6);
    real.sandbox.assert_nothing_runs();
}

fn an_external_server_is_never_stopped(program: &Path) {
    let real = Real::new(program, &tiny());
    let port = real.sandbox.port("mlx").to_string();
    let mut command =
        real.sandbox.command(program).env("HF_HUB_OFFLINE", "1").env("PATH", "/usr/bin:/bin").into_command();
    let log = std::fs::File::create(real.sandbox.root().join("log")).expect("a log");
    command.args(["--host", "127.0.0.1", "--port", &port, "--model", &tiny()]);
    let mut server =
        command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("the server starts");
    wait_until("the server answers", || {
        std::net::TcpStream::connect(("127.0.0.1", real.sandbox.port("mlx"))).is_ok()
    });

    real.up();
    let ps = real.ps(0);
    assert_eq!((&ps["state"], &ps["started_by"]), (&"external".into(), &"other".into()));
    real.mlx(["run", "Hello"]).run().assert_stdout(SENTENCE);
    // The system decides how the program is named.
    let down = real.mlx(["down"]).run().assert_code(5);
    down.assert_names_pid(i32::try_from(server.id()).expect("a PID"));
    assert!(server.try_wait().expect("a child").is_none(), "an external server was stopped");
    server.kill().expect("a child can be killed");
    server.wait().expect("a child ends");
}

fn an_interrupt_stops_the_generation(program: &Path) {
    let real = Real::with_variant(program, &["--no-eos", "--slow", "50"]);
    real.up();
    let server = pid_of(&real.ps(0));
    // If the answer is printed whole, only the spinner shows that it has started.
    for (stream, started) in [("--stream", "machine."), ("--no-stream", "receiving the answer")] {
        let terminal = Terminal::open();
        let mut command = real.mlx(["run", stream, "--max-tokens", "1000000", "Hello"]).into_command();
        command.env("TERM", "xterm").stdout(terminal.stream()).stderr(terminal.stream());
        let mut run = command.spawn().expect("it starts");
        terminal.wait_for(started);
        send(i32::try_from(run.id()).expect("a PID"), Signal::SIGINT);
        let status = run.wait().expect("it ends");
        assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{stream}: {status}");
        drop(command);
        let shown = terminal.finish();
        // On a machine under load, no more than the first token may have arrived.
        assert!(shown.contains("Hello"), "{stream}: what had arrived is kept: {shown:?}");
        wait_until("the server is idle", || {
            let before = processor_time(server);
            std::thread::sleep(Duration::from_secs(2));
            processor_time(server) == before
        });
    }
    real.down();
}

/// The server reads 2,048 tokens at a time (`prefill_step_size`), and sends a comment after each part.
fn prefill_progress_of_a_long_prompt_is_shown(program: &Path) {
    let real = Real::new(program, &tiny());
    real.up();
    let terminal = Terminal::open();
    let long = "Tell me about the tiny model on your own machine. ".repeat(400);
    let mut command = real.mlx(["run", "--stream", &long]).into_command();
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(terminal.stream()).stderr(terminal.stream());
    let status = command.spawn().expect("it starts").wait().expect("it ends");
    drop(command);
    let shown = terminal.finish();
    assert!(status.success(), "{shown:?}");
    let (_, progress) = shown.split_once("processing the prompt: ").expect(&shown);
    let numbers: Vec<u64> = progress.split(' ').filter_map(|word| word.parse().ok()).take(2).collect();
    assert!(numbers[0] < numbers[1] && numbers[1] > 2048, "{shown:?}");
    assert!(shown.ends_with("\r\n") && shown.contains("\r\u{1b}[K"), "{shown:?}");
    real.down();
}

/// The processor time that a process has used, as `ps` prints it: in seconds, or finer.
fn processor_time(pid: i32) -> String {
    let output = Command::new("ps").args(["-o", "time=", "-p", &pid.to_string()]).output().expect("ps runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn a_killed_server_is_exit_8(program: &Path) {
    let real = Real::with_variant(program, &["--no-eos", "--slow", "50"]);
    real.up();
    let server = pid_of(&real.ps(0));
    let run = real.mlx(["run", "--stream", "--max-tokens", "1000000", "Hello"]).into_command();
    let (run, started) = real::start_and_read_until(run, "machine.");
    assert!(started.starts_with(b"Hello! This is"));
    kill(server);
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    // The kernel closes its connections a moment before the last of its threads has ended.
    wait_until("ps sees that it is gone", || real.mlx(["ps", "--json"]).run().json()["state"] == "exited");
    assert!(!lives(server));
    real.mlx(["down"]).run().assert_code(0);
    real.sandbox.assert_nothing_runs();
}

/// The request with the history is accepted, and counted as a longer one.
fn a_conversation_goes_on_in_its_session(program: &Path) {
    let real = Real::new(program, &tiny());
    let mut chat = Chat::with(&real.sandbox, "mlx", "-s one", SENTENCE.trim_end());
    chat.expect("tiny > ").send("Hello\r").expect("starting mlx").expect(SENTENCE.trim_end());
    chat.asks("Really?").types("/retry\r").expect(SENTENCE.trim_end());
    chat.leaves();
    let mut chat = Chat::with(&real.sandbox, "mlx", "--continue", SENTENCE.trim_end());
    chat.expect("one: 2 questions, 4 messages").asks("Still?");
    chat.leaves();
    let lines =
        std::fs::read_to_string(real.sandbox.config_dir().join("data/sessions/one.jsonl")).expect("it");
    let tokens: Vec<u64> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).expect("JSON")["tokens"].as_u64())
        .collect();
    assert_eq!(tokens.len(), 4, "{lines}");
    assert!(tokens[0] < tokens[1] && tokens[1] == tokens[2] && tokens[2] < tokens[3], "{tokens:?}");
    real.down();
}

/// The built-in service and an instance, whose port fusion chooses.
fn two_servers_run_at_once(program: &Path) {
    let real = Real::new(program, &tiny());
    let (sandbox, port) = (&real.sandbox, real.sandbox.port("mlx"));
    let model = tiny();
    sandbox.write_config(&format!(
        "[mlx_server]\nport = {port}\nmodel = \"{model}\"\n[mlx_run]\nmodel = \"{model}\"\ntemperature = 0.0\n\
         [instances.coder]\ntemplate = \"mlx\"\nmodel = \"{model}\"\ntags = [\"code\"]\n\
         [instances.coder.run]\ntemperature = 0.0\n"
    ));
    let ups = ["mlx", "coder"].map(|service| sandbox.fusion([service, "up"]).start());
    for up in ups {
        up.finish().assert_code(0);
    }
    let shown = ["mlx", "coder"].map(|service| {
        let answer = sandbox.fusion([service, "run", "Who are you?"]).run().assert_code(0).stdout();
        assert_eq!(answer, "Hello! This is a tiny model on your own machine.\n", "{service}");
        sandbox.fusion([service, "health"]).run().assert_code(0);
        sandbox.fusion([service, "ps", "--json"]).run().assert_code(0).json()
    });
    assert_ne!(pid_of(&shown[0]), pid_of(&shown[1]));
    assert_ne!(shown[0]["address"], shown[1]["address"]);
    assert_eq!(shown[1]["runtime"], "mlx");
    assert_eq!(shown[1]["models"], serde_json::json!([model]));
    sandbox.fusion(["coder", "down"]).run().assert_code(0);
    assert_eq!(real.ps(0)["state"], "ready");
    real.down();
}
