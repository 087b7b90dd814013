//! The real opencode, launched with a model that has it write a file: directly, and through the gateway.

mod support;

use std::path::Path;
use std::process::ExitCode;

use support::agent::RealAgent;
use support::real;

fn main() -> ExitCode {
    real::main(
        "opencode",
        "opencode",
        real::tests![
            a_file_is_written_with_ollama,
            a_file_is_written_with_llama,
            a_file_is_written_with_mlx,
            a_provider_of_the_user_is_not_asked,
            the_example_of_the_readme_writes_a_file
        ],
    )
}

fn agent(program: &Path) -> RealAgent<'_> {
    RealAgent { name: "opencode", program, arguments: &["run", "Write a file"] }
}

fn a_file_is_written_with_ollama(program: &Path) {
    agent(program).writes_a_file_with("ollama");
}

fn a_file_is_written_with_llama(program: &Path) {
    agent(program).writes_a_file_with("llama");
}

fn a_file_is_written_with_mlx(program: &Path) {
    agent(program).writes_a_file_with("mlx");
}

/// With such settings alone, the files of the user would leave the machine.
fn a_provider_of_the_user_is_not_asked(program: &Path) {
    agent(program).writes_a_file_beside("ollama", |sandbox| {
        let provider = r#"{"npm":"@ai-sdk/openai-compatible","options":{"baseURL":"http://127.0.0.1:9/v1"},"models":{"x":{}}}"#;
        let settings = format!(
            r#"{{"provider":{{"other":{provider}}},"agent":{{"build":{{"model":"other/x"}}}},"enabled_providers":["other"]}}"#
        );
        std::fs::write(sandbox.project().join("opencode.json"), settings).expect("the sandbox is writable");
    });
}

fn the_example_of_the_readme_writes_a_file(program: &Path) {
    agent(program).runs_the_example_of_the_readme();
}
