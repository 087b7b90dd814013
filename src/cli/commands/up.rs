//! `fusion <runtime> up`.

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::core::runtimes::Runtime;

/// Start it, and wait until it really answers
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_context: &Context, runtime: &'static dyn Runtime, _args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, format!("{} up is not there yet", runtime.name())))
}

/// up of every runtime
#[derive(Debug, clap::Args)]
pub struct AllArgs {}

/// Runs the command for every runtime.
pub fn run_all(_context: &Context, _args: &AllArgs) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "up is not there yet"))
}
