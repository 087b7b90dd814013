//! `fusion man`.

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};

/// Print the manual pages
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_context: &Context, _args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "man is not there yet"))
}
