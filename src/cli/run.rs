//! `fusion <runtime> run`: one prompt, the answer on stdout.

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::core::runtimes::Runtime;

/// Ask a model, and print its answer
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_context: &Context, runtime: &'static dyn Runtime, _args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, format!("{} run is not there yet", runtime.name())))
}
