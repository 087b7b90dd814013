//! `fusion <runtime> restart`.

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::core::runtimes::Runtime;

/// Stop it, then start it
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_context: &Context, runtime: &'static dyn Runtime, _args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, format!("{} restart is not there yet", runtime.name())))
}
