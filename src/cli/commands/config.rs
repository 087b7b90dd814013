//! `fusion config`.

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};

/// Show, check and change the configuration
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_context: &Context, _args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "config is not there yet"))
}
