//! `fusion <service> up` and `fusion up`.

use std::time::Duration;

use crate::app::views::{Became, UpView};
use crate::app::{App, Selection, UpRequest};
use crate::cli::commands::install::{install_if_wanted, installed};
use crate::cli::commands::several::{SelectionArgs, nothing_selected, report};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::table::{TextTable, unknown};
use crate::cli::units::seconds_from;
use crate::core::services::{Endpoint, ManagedService, StartedBy, Up, UpKind, UpOptions};

/// Start the server and wait until it answers requests
///
/// Does nothing if the server is already running, even if it was started outside fusion. A start that fails leaves no
/// process behind, only its log.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct UpArgs {
    /// Maximum time until the server is ready [default: `startup_timeout` in the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from(0.0))]
    timeout: Option<Duration>,
    /// Load this model, after downloading it if it is missing: a name, an alias, or a directory
    #[arg(short, long, value_name = "MODEL", conflicts_with = "no_wait")]
    model: Option<String>,
    /// Return once the server is started; `ps` shows when it is ready
    #[arg(long)]
    no_wait: bool,
    /// Install the program without asking if it is missing
    #[arg(long)]
    install: bool,
    /// Load the model even if it needs more memory than the machine has
    #[arg(long)]
    force: bool,
    /// Fail with exit code 6, and leave no server behind, if a model runs on the CPU, or a part of it
    #[arg(long, conflicts_with = "no_wait")]
    require_gpu: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Start several services and wait until they answer requests
///
/// Starts each service as `fusion SERVICE up` does: at the same time, but model servers one after the other. A failure
/// of one leaves the others running; the exit code is that of the first failure in the order of the names.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without names, --tag and --template: every service that has `auto_start` in the configuration."
)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct AllUpArgs {
    #[command(flatten)]
    which: SelectionArgs,
    /// Maximum time until each is ready [default: `startup_timeout` in the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from(0.0))]
    timeout: Option<Duration>,
    /// Return once they are started; `ps` shows when they are ready
    #[arg(long)]
    no_wait: bool,
    /// Load the models even if they need more memory than the machine has
    #[arg(long)]
    force: bool,
    /// Fail with exit code 6, and leave no server behind, if a model runs on the CPU, or a part of it
    #[arg(long, conflicts_with = "no_wait")]
    require_gpu: bool,
    /// Print an array of results
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &UpArgs) -> Result<Exit, Failure> {
    let options = UpOptions { timeout: args.timeout, no_wait: args.no_wait, ..UpOptions::default() };
    let UpArgs { install, force, require_gpu, .. } = *args;
    let request = UpRequest { options, install, model: args.model.clone(), force, require_gpu };
    let up = installed(context, app, service, |install| {
        app.up(service, &UpRequest { install: install || args.install, ..request.clone() }, &context.cancel)
    })?;
    tell(context, service, &up, args.json)?;
    Ok(Exit::Done)
}

/// Starts the service as it is configured, and prints the result.
pub(super) fn start(context: &Context, app: &App, service: &ManagedService) -> Result<Exit, Failure> {
    let request = UpRequest::default();
    let up = installed(context, app, service, |install| {
        app.up(service, &UpRequest { install, ..request.clone() }, &context.cancel)
    })?;
    tell(context, service, &up, false)?;
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

/// Runs the command for several services.
pub fn run_all(context: &Context, app: &App, args: &AllUpArgs) -> Result<Exit, Failure> {
    let services = selected(app, &args.which.selection())?;
    let options = UpOptions { timeout: args.timeout, no_wait: args.no_wait, ..UpOptions::default() };
    let AllUpArgs { force, require_gpu, .. } = *args;
    let request = UpRequest { options, force, require_gpu, ..UpRequest::default() };
    let results = {
        let _cancelled = context.cancel_on_signal();
        app.up_several(&services, &request, &context.cancel)
    };
    let offered = services.into_iter().zip(results).map(|(service, result)| {
        let result = result.or_else(|error| match install_if_wanted(context, app, service, &error) {
            Ok(true) => {
                let _cancelled = context.cancel_on_signal();
                app.up(service, &request, &context.cancel).map_err(Failure::from)
            }
            Ok(false) => Err(error.into()),
            Err(failure) => Err(failure),
        });
        (service, result)
    });
    report_several(context, &offered.collect::<Vec<_>>(), args.json)
}

/// Returns the selected services; without a selection those that have `auto_start`.
fn selected<'a>(app: &'a App, selection: &Selection) -> Result<Vec<&'a ManagedService>, Failure> {
    let mut services = app.select(selection)?;
    if selection.is_empty() {
        services.retain(|service| service.server().auto_start);
        if services.is_empty() {
            let name = app.services().first().map_or("SERVICE", |service| &service.name);
            return Err(Failure::new(Exit::Usage, "no service has `auto_start` in the configuration").hint(format!(
                "start one: fusion {name} up; include it in `fusion up`: fusion config set {name}_server.auto_start true"
            )));
        }
    }
    if services.is_empty() { Err(nothing_selected(selection)) } else { Ok(services) }
}

/// Prints what became of several starts.
pub(super) fn report_several(
    context: &Context,
    results: &[(&ManagedService, Result<Up, Failure>)],
    as_json: bool,
) -> Result<Exit, Failure> {
    let table = TextTable::new(&["SERVICE", "RESULT", "PID", "ADDRESS"]);
    let cells = |up: &Up| {
        let result = match up.kind {
            UpKind::Started => "up",
            UpKind::AlreadyUp => "already up",
            UpKind::Launched => "starting",
            UpKind::External => "external",
        };
        let Endpoint { address, pid, .. } = &up.endpoint;
        vec![result.to_owned(), pid.map_or_else(unknown, |pid| pid.to_string()), address.url()]
    };
    report(context, results, as_json, table, cells, Became::<UpView>::up)
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
