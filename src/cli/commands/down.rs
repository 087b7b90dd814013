//! `fusion <runtime> down`.

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::core::runtimes::Runtime;

/// Stop it and everything it started
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_context: &Context, runtime: &'static dyn Runtime, _args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, format!("{} down is not there yet", runtime.name())))
}

/// down of every runtime
#[derive(Debug, clap::Args)]
pub struct AllArgs {}

/// Runs the command for every runtime.
pub fn run_all(_context: &Context, _args: &AllArgs) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "down is not there yet"))
}
