//! fusion starts, stops, watches and prompts the language model servers on your own machine.
//!
//! [`core`] has the facts and mechanisms and is silent: it prints nothing, reads no argument and no environment
//! variable, and never exits. [`app`] has the use cases, which return values and emit events. [`cli`] is the front
//! end of the command line: it parses, dispatches, prints, and turns every error into a message, a hint and an exit
//! code. [`gateway`] is the front end for programs: one HTTP API in front of every service. [`env`](mod@env) is the
//! only reader of process globals.

pub mod app;
pub mod cli;
pub mod core;
pub mod env;
pub mod gateway;
// Shared by the unit tests and the tests in `tests/`.
#[cfg(test)]
#[expect(unreachable_pub, reason = "public in the tests of `tests/`")]
#[path = "../tests/support/ports.rs"]
mod test_ports;
#[cfg(test)]
#[expect(unreachable_pub, reason = "public in the tests of `tests/`")]
#[path = "../tests/support/programs.rs"]
mod test_programs;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs one command line in the real world and returns its exit code. `arguments` include the program's own name. See
/// [`cli::exit::Exit`] for the codes.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: env::Environment) -> ExitCode {
    run_with(core::runtimes::TABLE, arguments, environment)
}

/// Runs [`run`] with another table of runtimes.
pub fn run_with(
    table: core::runtimes::Table,
    arguments: impl IntoIterator<Item = OsString>,
    environment: env::Environment,
) -> ExitCode {
    let world = cli::dispatch::World {
        table,
        environment,
        streams: cli::terminal::streams::Streams::standard(),
        driver: Arc::new(core::process::unix::UnixDriver::new()),
        cancel: cli::terminal::signals::token(),
        serve: gateway::serve,
    };
    cli::dispatch::main(world, arguments).into()
}
