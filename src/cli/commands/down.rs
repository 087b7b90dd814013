//! `fusion <service> down` and `fusion down`.

use std::time::Duration;

use crate::app::App;
use crate::app::views::DownView;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::units::seconds_from;
use crate::core::services::{Down, DownOptions, ManagedService, ServiceError};

/// Stop the server and all processes it started
///
/// Waits until all of them have ended. A process that does not stop in time is killed. A server that was started
/// outside fusion is not stopped (exit code 5).
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    #[command(flatten)]
    flags: DownFlags,
    /// Time to stop before the server is killed [default: `stop_timeout` in the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from::<0>, conflicts_with = "force")]
    timeout: Option<Duration>,
}

/// Stop every service that fusion started
#[derive(Debug, clap::Args)]
pub struct AllDownArgs {
    #[command(flatten)]
    flags: DownFlags,
}

#[derive(Debug, clap::Args)]
struct DownFlags {
    /// Kill the processes at once
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &DownArgs) -> Result<Exit, Failure> {
    let options = DownOptions { force: args.flags.force, timeout: args.timeout };
    let down = app.manager(&context.cancel).down(service, &options)?;
    if args.flags.json {
        context.ui.json(&DownView::new(service, &down))?;
    } else {
        context.ui.result(&line(service, &down))?;
    }
    Ok(Exit::Done)
}

/// Runs the command for every service. It goes on after a failure, and after the reader of standard output has closed
/// its end.
pub fn run_all(context: &Context, app: &App, args: &AllDownArgs) -> Result<Exit, Failure> {
    let options = DownOptions { force: args.flags.force, timeout: None };
    let (mut done, mut exit) = (Vec::new(), Exit::Done);
    let mut found = false;
    for service in app.services() {
        match app.manager(&context.cancel).down(service, &options) {
            // No process that fusion started.
            Err(ServiceError::External { .. }) | Ok(Down { pid: None, .. }) => {}
            Ok(down) => {
                found = true;
                if args.flags.json {
                    done.push(DownView::new(service, &down));
                } else if let Err(failure) = context.ui.result(&line(service, &down)) {
                    exit = exit.or(context.ui.failure(&failure));
                }
            }
            Err(error) => exit = exit.or(context.ui.failure(&error.into())),
        }
    }
    if args.flags.json {
        context.ui.json(&done)?;
    } else if !found && exit == Exit::Done {
        context.ui.note("nothing is running that fusion started");
    }
    Ok(exit)
}

fn line(service: &ManagedService, down: &Down) -> String {
    format!("{} is down{}\n", service.name, if down.killed { " (killed)" } else { "" })
}
