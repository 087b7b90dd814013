//! `fusion <service> up` and `fusion up`.

use std::time::Duration;

use crate::app::views::UpView;
use crate::app::{App, UpRequest};
use crate::cli::commands::install::installed;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::units::seconds_from;
use crate::core::services::{Endpoint, ManagedService, StartedBy, Up, UpKind, UpOptions};

/// Start the server and wait until it answers requests
///
/// Does nothing if the server is already running, even if it was started outside fusion. A start that fails leaves no
/// process behind, only its log. With --model, a missing model is downloaded first.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Maximum time until the server is ready [default: `startup_timeout` in the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from::<0>)]
    timeout: Option<Duration>,
    /// Load this model: a name, an alias, or a directory
    #[arg(short, long, value_name = "MODEL", conflicts_with = "no_wait")]
    model: Option<String>,
    /// Return once the server is started; `ps` shows when it is ready
    #[arg(long)]
    no_wait: bool,
    /// Install the program without asking if it is missing
    #[arg(long)]
    install: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Start every service that has `auto_start` in the configuration
///
/// Starts each service as `fusion SERVICE up` does.
#[derive(Debug, clap::Args)]
pub struct AllUpArgs {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &UpArgs) -> Result<Exit, Failure> {
    let options = UpOptions { timeout: args.timeout, no_wait: args.no_wait, ..UpOptions::default() };
    let request = UpRequest { options, install: args.install, model: args.model.clone() };
    let up = installed(context, app, service, |install| {
        app.up(service, &UpRequest { install: install || args.install, ..request.clone() }, &context.cancel)
    })?;
    tell(context, service, &up, args.json)?;
    Ok(Exit::Done)
}

/// Prints the result of a start.
pub(super) fn tell(
    context: &Context,
    service: &ManagedService,
    up: &Up,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json { context.ui.json(&UpView::new(service, up)) } else { context.ui.result(&line(service, up)) }
}

/// Runs the command for every service that has `auto_start`. It goes on after a failure, and after the reader of
/// standard output has closed its end.
pub fn run_all(context: &Context, app: &App, args: &AllUpArgs) -> Result<Exit, Failure> {
    let wanted: Vec<_> = app.services().iter().filter(|service| service.server().auto_start).collect();
    if wanted.is_empty() {
        let name = app.services().first().map_or("SERVICE", |service| &service.name);
        return Err(Failure::new(Exit::Usage, "no service has `auto_start` in the configuration").hint(format!(
            "start one: fusion {name} up; include it in `fusion up`: fusion config set {name}_server.auto_start true"
        )));
    }
    let (mut done, mut exit) = (Vec::new(), Exit::Done);
    for service in wanted {
        let up = installed(context, app, service, |install| {
            app.up(service, &UpRequest { install, ..UpRequest::default() }, &context.cancel)
        });
        let told = match up {
            Ok(up) if args.json => {
                done.push(UpView::new(service, &up));
                Ok(())
            }
            Ok(up) => tell(context, service, &up, false),
            Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = told {
            exit = exit.or(context.ui.failure(&failure));
        }
    }
    if args.json {
        context.ui.json(&done)?;
    }
    Ok(exit)
}

/// Returns the one line on stdout.
fn line(service: &ManagedService, up: &Up) -> String {
    let Endpoint { address, pid, started_by, .. } = &up.endpoint;
    let pid = pid.map(|pid| format!("pid {pid}"));
    let external = (*started_by == StartedBy::Other).then(|| "not started by fusion".to_owned());
    let facts: Vec<String> = pid.into_iter().chain(external).collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    let does = if up.kind == UpKind::Launched { "is starting" } else { "is up" };
    format!("{} {does} at {}{facts}\n", service.name, address.url())
}
