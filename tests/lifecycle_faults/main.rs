//! Injected faults, with the real driver.
//!
//! No test leaves a process.

mod down;
mod matrix;
mod ps;
mod state;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod up;

use support::{Finished, Invocation, Sandbox};

/// What a terminal shows first while `up` or `down` waits for Ollama.
const STARTING: &str = "ollama is starting";

/// A sandbox in which `runtime` has these faults.
fn with_faults(runtime: &str, faults: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.faults(runtime, faults);
    sandbox
}

/// Sets the startup timeout of each service in the configuration.
fn set_startup_timeout(sandbox: &Sandbox, seconds: u32) {
    let path = sandbox.config_dir().join("config.toml");
    let text = std::fs::read_to_string(path).expect("the configuration");
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("startup_timeout", _)) => format!("startup_timeout = {seconds}\n"),
        _ => format!("{line}\n"),
    });
    sandbox.write_config(&lines.collect::<String>());
}

/// Says that this machine cannot show a fault.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(what: &str, why: &str) {
    eprintln!("skipped: {what}, because {why}");
}

/// A start that must fail with `code`, say so on stderr only, and leave nothing but the log.
#[track_caller]
fn assert_up_fails(sandbox: &Sandbox, runtime: &str, code: i32) -> Finished {
    let up = sandbox.fusion([runtime, "up"]).run().assert_code(code);
    assert_eq!(up.stdout(), "", "a failure has no result");
    assert_nothing_left(sandbox, runtime);
    up
}

/// No process, no record, no PID file.
#[track_caller]
fn assert_nothing_left(sandbox: &Sandbox, runtime: &str) {
    sandbox.assert_nothing_runs();
    assert_eq!(sandbox.record(runtime), None, "a record is left");
    assert_eq!(sandbox.pid(runtime), None, "a PID file is left");
}

/// The accounts of a server that hangs, which are shown as `[SILENCE]`: the last probe ends with the wait for it, or a
/// moment before.
const SILENCE: [&str; 3] = [
    "it has not responded yet",
    "it accepts connections and does not respond",
    "it has not generated anything yet",
];

fn mask_silence(invocation: Invocation) -> Invocation {
    SILENCE.iter().fold(invocation, |invocation, account| invocation.mask(*account, "[SILENCE]"))
}

fn without_silence(finished: &Finished) -> String {
    SILENCE.iter().fold(finished.to_string(), |text, account| text.replace(account, "[SILENCE]"))
}

/// A start that ends when its timeout is over, after the server has logged something and `account` describes it. The
/// timeout grows until it is enough for a loaded machine to start the server.
fn times_out(sandbox: &Sandbox, runtime: &str, account: &str) -> String {
    let end = |timeout| {
        log_lines_hidden(&mask_silence(sandbox.fusion([runtime, "up", "--timeout", timeout])).run())
    };
    for timeout in ["1", "4"] {
        let shown = end(timeout);
        if !sandbox.log(runtime).is_empty() && shown.contains(account) {
            return shown;
        }
    }
    end("16")
}

/// What was printed, without notes about the lock: whether a command waits for another one depends on the scheduler.
fn without_lock_notes(finished: &Finished) -> String {
    let text = finished.to_string();
    let lines = text.lines().filter(|line| !line.starts_with("waiting for another fusion command"));
    lines.filter(|line| *line != "[stderr]").collect::<Vec<_>>().join("\n")
}

/// Starts the service and returns its PID.
#[track_caller]
fn up(sandbox: &Sandbox, runtime: &str) -> i32 {
    sandbox.fusion([runtime, "up"]).run().assert_code(0);
    sandbox.pid(runtime).expect("a PID file")
}

/// Stops the service, of which nothing must be left.
#[track_caller]
fn down(sandbox: &Sandbox, runtime: &str) -> Finished {
    let down = sandbox.fusion([runtime, "down"]).run().assert_code(0);
    assert_nothing_left(sandbox, runtime);
    down
}

/// The lines below the rows of a table of `ps`, normalized.
fn notes(ps: &Finished) -> String {
    let stdout = ps.normalized(&ps.stdout);
    let notes = stdout.lines().filter_map(|line| line.strip_prefix("  "));
    notes.collect::<Vec<_>>().join("\n")
}

/// Exit code and output, without the lines of the log that are shown with a failure: how many there are depends on
/// time.
fn log_lines_hidden(finished: &Finished) -> String {
    let text = finished.to_string();
    let lines = text.lines().filter(|line| !line.starts_with("  | "));
    lines.collect::<Vec<_>>().join("\n")
}

/// The state in `ps --json`, whatever the exit code.
#[track_caller]
fn state(sandbox: &Sandbox, runtime: &str) -> String {
    let ps = sandbox.fusion([runtime, "ps", "--json"]).run().json();
    ps["state"].as_str().expect("a state").to_owned()
}
