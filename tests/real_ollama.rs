//! The real `ollama`, with the smallest model of its library, which is pulled on first use.

mod support;

use std::path::Path;
use std::process::ExitCode;

use support::{Invocation, Sandbox, real};

/// 46 MB.
const MODEL: &str = "smollm:135m";

fn main() -> ExitCode {
    real::main(
        "ollama",
        "ollama",
        real::tests![
            a_server_starts_restarts_and_stops,
            a_port_in_use_is_exit_5,
            a_missing_model_is_exit_7,
            prompts_are_answered,
        ],
    )
}

fn sandbox(program: &Path) -> Sandbox {
    let sandbox = Sandbox::without_config();
    real::install(&sandbox, program);
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!("[ollama_server]\nport = {port}\n\n[ollama_run]\nmodel = \"{MODEL}\"\n"));
    sandbox
}

fn ollama<'a>(sandbox: &Sandbox, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
    sandbox.fusion(["ollama"].into_iter().chain(arguments))
}

fn a_server_starts_restarts_and_stops(program: &Path) {
    let sandbox = sandbox(program);
    let up = ollama(&sandbox, ["up"]).run();
    let ps = ollama(&sandbox, ["ps", "--json"]).run().assert_code(0).json();
    insta::assert_snapshot!(up, @"
    exit 0
    [stdout]
    ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])
    ");
    up.assert_names_pid(i32::try_from(ps["pid"].as_i64().expect("a PID")).expect("a PID"));
    assert_eq!(ps["state"], "ready");
    assert_eq!(ps["models"], serde_json::json!([]));
    assert!(ps["version"].is_string(), "{ps}");
    assert!(ps["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 10_000_000), "{ps}");
    ollama(&sandbox, ["up"]).run().assert_code(0);
    ollama(&sandbox, ["restart"]).run().assert_code(0);
    let log = ollama(&sandbox, ["log"]).run().assert_code(0).stdout();
    assert!(log.contains("/api/version"), "{log}");
    ollama(&sandbox, ["down"]).run().assert_code(0);
    ollama(&sandbox, ["ps"]).run().assert_code(3);
    sandbox.assert_nothing_runs();
}

fn a_port_in_use_is_exit_5(program: &Path) {
    let sandbox = sandbox(program);
    let holder = real::hold(sandbox.port("ollama"));
    let up = ollama(&sandbox, ["up"]).run().assert_code(5);
    assert!(up.stderr().contains(&std::process::id().to_string()), "{}", up.stderr());
    sandbox.assert_nothing_runs();
    drop(holder);
}

fn a_missing_model_is_exit_7(program: &Path) {
    let sandbox = sandbox(program);
    ollama(&sandbox, ["up"]).run().assert_code(0);
    let missing = ollama(&sandbox, ["run", "-m", "no-such-model:1b", "Hello"]).run().assert_code(7);
    assert!(missing.stderr().contains("no-such-model:1b"), "{}", missing.stderr());
    ollama(&sandbox, ["down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

fn prompts_are_answered(program: &Path) {
    let sandbox = sandbox(program);
    ollama(&sandbox, ["up"]).run().assert_code(0);
    ollama(&sandbox, ["pull", MODEL]).run().assert_code(0);
    for stream in ["--stream", "--no-stream"] {
        let answer = ollama(&sandbox, ["run", stream, "--max-tokens", "20", "--json", "Say hello"]);
        let answer = answer.run().assert_code(0).json();
        assert!(answer["text"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        assert!(answer["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{answer}");
    }
    let ps = ollama(&sandbox, ["ps", "--json"]).run().assert_code(0).json();
    assert_eq!(ps["models"], serde_json::json!([MODEL]));
    ollama(&sandbox, ["health"]).run().assert_code(0);
    ollama(&sandbox, ["down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}
