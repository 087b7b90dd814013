//! `fusion <service> run`: what is sent, how the answer is checked, and where the prompt goes.

mod other_kinds;
mod picking;
mod prompt;
mod schema;
mod sent;
mod starting;
#[path = "../support/mod.rs"]
mod support;

use serde_json::Value;
use support::Sandbox;

/// The request that a dry run prints.
#[track_caller]
fn dry_run(sandbox: &Sandbox, arguments: &[&str], stdin: &str) -> Value {
    let arguments = ["ollama", "run", "--dry-run"].iter().chain(arguments).copied();
    sandbox.fusion(arguments).stdin(stdin).run_in_process().assert_code(0).json()
}

/// The content of the last message, as a dry run prints it.
#[track_caller]
fn asked(sandbox: &Sandbox, arguments: &[&str], stdin: &str) -> Value {
    dry_run(sandbox, arguments, stdin)["messages"].as_array().unwrap().last().unwrap()["content"].clone()
}
