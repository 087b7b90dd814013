//! The real Claude Code, launched with a model that has it write a file: directly, and through the gateway.

mod support;

use std::path::Path;
use std::process::ExitCode;

use support::agent::RealAgent;
use support::real;

fn main() -> ExitCode {
    real::main(
        "claude",
        "claude",
        real::tests![
            a_file_is_written_with_ollama,
            a_file_is_written_with_llama,
            a_file_is_written_with_mlx,
            a_provider_of_the_user_is_not_asked,
            the_real_mlx_server_answers,
            the_example_of_the_readme_writes_a_file
        ],
    )
}

fn agent(program: &Path) -> RealAgent<'_> {
    RealAgent { name: "claude", program, arguments: &["-p", "Write a file", "--allowedTools", "Bash"] }
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
        let settings = sandbox.home().join(".claude");
        std::fs::create_dir(&settings).expect("the sandbox is writable");
        let switch = r#"{"env":{"CLAUDE_CODE_USE_BEDROCK":"1","CLAUDE_CODE_USE_VERTEX":"1"}}"#;
        std::fs::write(settings.join("settings.json"), switch).expect("the sandbox is writable");
    });
}

fn the_real_mlx_server_answers(program: &Path) {
    agent(program).gets_an_answer_of_the_real_mlx();
}

fn the_example_of_the_readme_writes_a_file(program: &Path) {
    agent(program).runs_the_example_of_the_readme();
}
