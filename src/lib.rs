//! fusion starts, stops, watches and prompts the language model servers on your own machine.
//!
//! [`core`] does the work and is silent: it prints nothing, reads no argument and no environment variable,
//! and never exits. [`cli`] is the thin front end: it parses, dispatches, prints, and turns every error into
//! words, a hint and an exit code. [`env`](mod@env) is the only reader of process globals.

pub mod cli;
pub mod core;
pub mod env;
// What the unit tests share with the tests of the program.
#[cfg(test)]
#[allow(unreachable_pub, reason = "public there")]
#[path = "../tests/support/ports.rs"]
mod test_ports;
#[cfg(test)]
#[allow(unreachable_pub, reason = "public there")]
#[path = "../tests/support/programs.rs"]
mod test_programs;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs one command line (`arguments` include the program's own name) and returns its exit code: what [`cli::main`]
/// makes of it. See [`cli::error::Exit`] for their meanings.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: env::Environment) -> ExitCode {
    run_with(core::runtimes::TABLE, arguments, environment)
}

/// [`run`] with another table of runtimes.
pub fn run_with(
    table: core::runtimes::Table,
    arguments: impl IntoIterator<Item = OsString>,
    environment: env::Environment,
) -> ExitCode {
    cli::main(table, arguments, environment).into()
}
