//! `fusion <runtime> restart`.

use std::time::Duration;

use crate::cli::Context;
use crate::cli::commands::up;
use crate::cli::error::{Exit, Failure};
use crate::cli::units::seconds_from;
use crate::core::runtimes::Runtime;
use crate::core::services::UpOptions;

/// Stop it, then start it with the present configuration
///
/// Starts it where it is not running. One that somebody else started is left alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long it may take to be ready [default: `startup_timeout` of the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from::<0>)]
    timeout: Option<Duration>,
    /// Print what was done as JSON, as `up` does
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let options = UpOptions { timeout: args.timeout, ..UpOptions::default() };
    let config = context.config()?;
    let up = context.starting(&config, |manager| manager.restart(&manager.service(runtime), &options))?;
    up::tell(context, runtime, &up, args.json)?;
    Ok(Exit::Done)
}
