//! `fusion <service> down` and `fusion down`.

use std::time::Duration;

use crate::app::views::{Became, DownView};
use crate::app::{App, AppError};
use crate::cli::commands::several::{NOTHING_RUNS, SelectionArgs, report};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::table::{TextTable, unknown};
use crate::cli::units::seconds_from;
use crate::core::services::{Down, DownOptions, ManagedService};

/// Stop the server and all processes it started
///
/// Waits until all of them have ended. A process that does not stop in time is killed. A server that was started
/// outside fusion is not stopped (exit code 5).
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    #[command(flatten)]
    flags: DownFlags,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Stop several services and all processes they started
///
/// Stops them at the same time. The exit code is that of the first failure in the order of the names.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without names: everything that fusion started. What other programs started is passed over."
)]
pub struct AllDownArgs {
    #[command(flatten)]
    which: SelectionArgs,
    #[command(flatten)]
    flags: DownFlags,
    /// Print an array of results
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct DownFlags {
    /// Kill the processes at once
    #[arg(long)]
    force: bool,
    /// Time to stop before a server is killed [default: `stop_timeout` in the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from(0.0), conflicts_with = "force")]
    timeout: Option<Duration>,
}

impl DownFlags {
    fn options(&self) -> DownOptions {
        DownOptions { force: self.force, timeout: self.timeout }
    }
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &DownArgs) -> Result<Exit, Failure> {
    let down = app.manager(&context.cancel).down(service, &args.flags.options())?;
    if args.json {
        context.ui.json(&DownView::new(service, &down))?;
    } else {
        context.ui.result(&line(service, &down))?;
    }
    Ok(Exit::Done)
}

/// Runs the command for several services. Without names, it passes over those of which no process was started by
/// fusion.
pub fn run_all(context: &Context, app: &App, args: &AllDownArgs) -> Result<Exit, Failure> {
    let selection = args.which.selection();
    let mut services = app.select(&selection)?;
    let mut results = Vec::new();
    // First, or it would start again what is stopped.
    if let Some(gateway) = app.recorded_gateway().filter(|_| selection.is_empty()) {
        results = app.down_several(&[gateway], &args.flags.options(), &context.cancel);
    }
    results.extend(app.down_several(&services, &args.flags.options(), &context.cancel));
    if results.len() > services.len() {
        services.insert(0, app.gateway());
    }
    let is_named = !selection.names.is_empty();
    let is_told = |result: &Result<Down, AppError>| match result {
        Ok(down) => is_named || down.pid.is_some(),
        Err(error) => is_named || !error.is_external(),
    };
    let results = services.into_iter().zip(results).filter(|(_, result)| is_told(result));
    let results: Vec<_> = results.map(|(service, result)| (service, result.map_err(Failure::from))).collect();
    if results.is_empty() && !args.json {
        context.ui.note(NOTHING_RUNS);
        return Ok(Exit::Done);
    }
    let table = TextTable::new(&["SERVICE", "RESULT", "PID"]);
    let cells = |down: &Down| {
        let result = match down {
            Down { pid: None, .. } => "not running",
            Down { killed: true, .. } => "killed",
            Down { killed: false, .. } => "down",
        };
        vec![result.to_owned(), down.pid.map_or_else(unknown, |pid| pid.to_string())]
    };
    report(context, &results, args.json, table, cells, Became::<DownView>::down)
}

fn line(service: &ManagedService, down: &Down) -> String {
    format!("{} is down{}\n", service.name, if down.killed { " (killed)" } else { "" })
}
