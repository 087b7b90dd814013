//! `fusion <runtime> restart`.

use std::time::Duration;

use crate::app::App;
use crate::cli::commands::up;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::units::seconds_from;
use crate::core::services::{ManagedService, UpOptions};

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
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &Args) -> Result<Exit, Failure> {
    let options = UpOptions { timeout: args.timeout, ..UpOptions::default() };
    let _cancelled = context.cancel_on_signal();
    let up = app.restart(service, &options, &context.cancel)?;
    up::tell(context, service, &up, args.json)?;
    Ok(Exit::Done)
}
