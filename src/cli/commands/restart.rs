//! `fusion <service> restart`.

use std::time::Duration;

use crate::app::App;
use crate::cli::commands::several::{NOTHING_RUNS, SelectionArgs};
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
    #[arg(long, value_name = "SECS", value_parser = seconds_from(0.0))]
    timeout: Option<Duration>,
    /// Print the result as JSON, like `up --json`
    #[arg(long)]
    json: bool,
}

/// Stop several services and start them with the current configuration
///
/// Restarts each service as `fusion SERVICE restart` does: at the same time, but model servers one after the other. The
/// exit code is that of the first failure in the order of the names.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without names: every running service that fusion started.")]
pub struct AllRestartArgs {
    #[command(flatten)]
    which: SelectionArgs,
    /// Maximum time until each is ready [default: `startup_timeout` in the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from(0.0))]
    timeout: Option<Duration>,
    /// Print an array of results, like `up --json`
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

/// Runs the command for several services.
pub fn run_all(context: &Context, app: &App, args: &AllRestartArgs) -> Result<Exit, Failure> {
    let selection = args.which.selection();
    let mut services = app.select_with_gateway(&selection)?;
    if selection.names.is_empty() {
        services = app.started_by_fusion(services);
    }
    if services.is_empty() && !args.json {
        context.ui.note(NOTHING_RUNS);
        return Ok(Exit::Done);
    }
    let options = UpOptions { timeout: args.timeout, ..UpOptions::default() };
    let results = {
        let _cancelled = context.cancel_on_signal();
        app.restart_several(&services, &options, &context.cancel)
    };
    let results = services.into_iter().zip(results);
    let results: Vec<_> = results.map(|(service, result)| (service, result.map_err(Failure::from))).collect();
    up::report_several(context, &results, args.json)
}
