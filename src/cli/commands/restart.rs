//! `fusion <service> restart`.

use std::time::Duration;

use crate::app::App;
use crate::cli::commands::up;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::units::seconds_from;
use crate::core::services::{ManagedService, UpOptions};

/// Stop the server and start it with the current configuration
///
/// Starts the server if it is not running. A server that was started outside fusion is not restarted (exit code 5).
#[derive(Debug, clap::Args)]
pub struct RestartArgs {
    /// Maximum time until the server is ready [default: `startup_timeout` in the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from::<0>)]
    timeout: Option<Duration>,
    /// Print the result as JSON, like `up --json`
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(
    context: &Context,
    app: &App,
    service: &ManagedService,
    args: &RestartArgs,
) -> Result<Exit, Failure> {
    let options = UpOptions { timeout: args.timeout, ..UpOptions::default() };
    let _cancelled = context.cancel_on_signal();
    let up = app.restart(service, &options, &context.cancel)?;
    up::tell(context, service, &up, args.json)?;
    Ok(Exit::Done)
}
