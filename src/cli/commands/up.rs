//! `fusion <runtime> up` and `fusion up`.

use std::time::Duration;

use crate::app::views::UpView;
use crate::app::{App, UpRequest};
use crate::cli::commands::install::installed;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::units::seconds_from;
use crate::core::services::{Endpoint, ManagedService, StartedBy, Up, UpKind, UpOptions};

/// Start it, and wait until it really answers
///
/// Does nothing where it is up already, also when somebody else has started it. A start that fails leaves no process
/// behind, only its log. A model that it is to be started with is downloaded first if it is not on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long it may take to be ready [default: `startup_timeout` of the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from::<0>)]
    timeout: Option<Duration>,
    /// Have this model loaded: a name, an alias, or a directory; downloaded first if it is missing
    #[arg(short, long, value_name = "MODEL", conflicts_with = "no_wait")]
    model: Option<String>,
    /// Return as soon as it is started; `ps` tells when it is ready
    #[arg(long)]
    no_wait: bool,
    /// Install its program first if it is missing, without asking
    #[arg(long)]
    install: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Start every runtime that has `auto_start` in the configuration
///
/// Each as `fusion RUNTIME up` does.
#[derive(Debug, clap::Args)]
pub struct AllArgs {
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &Args) -> Result<Exit, Failure> {
    let options = UpOptions { timeout: args.timeout, no_wait: args.no_wait, model: None };
    let request = UpRequest { options, install: args.install, model: args.model.clone() };
    let up = installed(context, app, service, |install| {
        app.up(service, &UpRequest { install: install || args.install, ..request.clone() }, &context.cancel)
    })?;
    tell(context, service, &up, args.json)?;
    Ok(Exit::Done)
}

/// Prints what was done.
pub(super) fn tell(
    context: &Context,
    service: &ManagedService,
    up: &Up,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json { context.ui.json(&UpView::new(service, up)) } else { context.ui.result(&line(service, up)) }
}

/// Runs the command for every service that has `auto_start`. Neither one that fails nor a reader that goes away keeps
/// the others down.
pub fn run_all(context: &Context, app: &App, args: &AllArgs) -> Result<Exit, Failure> {
    let wanted: Vec<_> = app.services().iter().filter(|service| service.server().auto_start).collect();
    if wanted.is_empty() {
        let name = app.services().first().map_or("SERVICE", |service| &service.name);
        return Err(Failure::new(Exit::Usage, "no runtime has auto_start in the configuration").hint(format!(
            "`fusion {name} up` starts one; `fusion config set {name}_server.auto_start true` has `fusion up` start it"
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
