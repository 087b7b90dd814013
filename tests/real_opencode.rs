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

fn the_example_of_the_readme_writes_a_file(program: &Path) {
    agent(program).runs_the_example_of_the_readme();
}
