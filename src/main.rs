//! Hands the command line and the process environment to [`fusion::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    fusion::run(std::env::args_os(), fusion::env::Environment::from_process())
}
