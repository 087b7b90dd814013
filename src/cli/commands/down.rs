//! `fusion <runtime> down` and `fusion down`.

use std::time::Duration;

use serde::Serialize;

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::cli::units::seconds_from;
use crate::core::runtimes::Runtime;
use crate::core::services::{Down, DownOptions, ServiceError};

/// Stop it and everything it started
///
/// Waits until all of it is gone. What does not end in time is killed. One that somebody else started is left alone:
/// that is exit code 5.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    how: How,
    /// How long it may take to end before it is killed [default: `stop_timeout` of the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from::<0>, conflicts_with = "force")]
    timeout: Option<Duration>,
}

/// Stop every runtime that fusion started
#[derive(Debug, clap::Args)]
pub struct AllArgs {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Kill it at once
    #[arg(long)]
    force: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Json {
    runtime: &'static str,
    /// As in `ps`: `stopped`.
    state: &'static str,
    /// The process that was ended; null when it was down already.
    pid: Option<i64>,
    /// Whether something had to be killed.
    forced: bool,
    seconds: f64,
}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let options = DownOptions { force: args.how.force, timeout: args.timeout };
    let config = context.sound_config();
    let down = context.with_services(&config, |manager| manager.down(&manager.service(runtime), &options))?;
    if args.how.json {
        context.ui.json(&json(runtime, &down))?;
    } else {
        context.ui.result(&line(runtime, &down))?;
    }
    Ok(Exit::Done)
}

/// Runs the command for every runtime. Neither one that fails nor a reader that goes away keeps the others up.
pub fn run_all(context: &Context, args: &AllArgs) -> Result<Exit, Failure> {
    let options = DownOptions { force: args.how.force, timeout: None };
    let config = context.sound_config();
    let (mut done, mut exit) = (Vec::new(), Exit::Done);
    let mut found = false;
    for runtime in context.table {
        let down =
            context.with_services(&config, |manager| manager.down(&manager.service(*runtime), &options));
        match down {
            // Nothing of fusion's.
            Err(ServiceError::NotOurs { .. }) | Ok(Down { pid: None, .. }) => {}
            Ok(down) => {
                found = true;
                if args.how.json {
                    done.push(json(*runtime, &down));
                } else if let Err(failure) = context.ui.result(&line(*runtime, &down)) {
                    exit = exit.or(context.ui.failure(&failure));
                }
            }
            Err(error) => exit = exit.or(context.ui.failure(&error.into())),
        }
    }
    if args.how.json {
        context.ui.json(&done)?;
    } else if !found && exit == Exit::Done {
        context.ui.note("nothing is running that fusion started");
    }
    Ok(exit)
}

fn line(runtime: &dyn Runtime, down: &Down) -> String {
    format!("{} is down{}\n", runtime.name(), if down.forced { " (killed)" } else { "" })
}

fn json(runtime: &dyn Runtime, down: &Down) -> Json {
    Json {
        runtime: runtime.name(),
        state: "stopped",
        pid: down.pid.map(i64::from),
        forced: down.forced,
        seconds: down.took.as_secs_f64(),
    }
}
