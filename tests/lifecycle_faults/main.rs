//! What must never happen, injected: each test is named after its fault, has the real driver, and leaves no process.

mod down;
mod ps;
mod state;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod up;

use support::{Finished, Sandbox};

/// A sandbox in which `runtime` has these faults.
fn with_faults(runtime: &str, faults: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.faults(runtime, faults);
    sandbox
}

/// Has the configuration give each runtime so many seconds to start.
fn give_for_starting(sandbox: &Sandbox, seconds: u32) {
    let path = sandbox.config_dir().join("config.toml");
    let text = std::fs::read_to_string(path).expect("the configuration");
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("startup_timeout", _)) => format!("startup_timeout = {seconds}\n"),
        _ => format!("{line}\n"),
    });
    sandbox.write_config(&lines.collect::<String>());
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

/// The last question to a server that hangs ends with the wait for it, or a moment before it, which are two ways to say
/// the same.
#[track_caller]
fn assert_silence_is_told(failed: &Finished, failure: &str) {
    let is_told = ["it has not answered yet", "it accepts connections and does not answer"]
        .iter()
        .any(|words| failed.stderr().contains(&format!("{failure}: {words}\n")));
    assert!(is_told, "{}", failed.stderr());
}

/// Up, with the PID.
#[track_caller]
fn up(sandbox: &Sandbox, runtime: &str) -> i32 {
    sandbox.fusion([runtime, "up"]).run().assert_code(0);
    sandbox.pid(runtime).expect("a PID file")
}

/// Down, and nothing is left.
#[track_caller]
fn down(sandbox: &Sandbox, runtime: &str) -> Finished {
    let down = sandbox.fusion([runtime, "down"]).run().assert_code(0);
    assert_nothing_left(sandbox, runtime);
    down
}

/// The state in `ps --json`, whatever the exit code.
#[track_caller]
fn state(sandbox: &Sandbox, runtime: &str) -> String {
    let ps = sandbox.fusion([runtime, "ps", "--json"]).run().json();
    ps["state"].as_str().expect("a state").to_owned()
}
