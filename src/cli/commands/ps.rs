//! `fusion <service> ps` and `fusion ps`.

use std::time::{Duration, SystemTime};

use clap::builder::PossibleValuesParser;

use crate::app::App;
use crate::app::views::ServiceView;
use crate::cli::commands::doctor::described;
use crate::cli::commands::several::{SelectionArgs, named};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::{self, Exit};
use crate::cli::table::{TextTable, unknown};
use crate::cli::units::{bytes, duration};
use crate::cli::words::changed_parts;
use crate::core::address::Address;
use crate::core::gpu::{on_cpu, where_it_runs};
use crate::core::programs;
use crate::core::services::{ManagedService, StartedBy, State, Status};

/// Show the state of the server
///
/// Exit code: 0 if the server is ready, 3 if it is not running, 1 otherwise.
#[derive(Debug, clap::Args)]
pub struct PsArgs {
    #[command(flatten)]
    flags: PsFlags,
}

/// Show the state of every service, or of several
#[derive(Debug, clap::Args)]
pub struct AllPsArgs {
    #[command(flatten)]
    which: SelectionArgs,
    /// Only services in this state
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(State::ALL.map(State::word)))]
    state: Option<String>,
    #[command(flatten)]
    flags: PsFlags,
}

#[derive(Debug, clap::Args)]
struct PsFlags {
    /// Print the state as JSON
    #[arg(long)]
    json: bool,
    /// Refresh every second until interrupted (needs a terminal)
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// How often `--watch` refreshes.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &PsArgs) -> Result<Exit, Failure> {
    let seen = show(context, app, &[service], None, &args.flags, &|views| {
        views.first().map_or(Ok(()), |view| context.ui.json(view))
    })?;
    Ok(seen.first().map_or(Exit::Failed, |(_, status)| exit::of_state(status.state)))
}

/// Runs the command for several services.
pub fn run_all(context: &Context, app: &App, args: &AllPsArgs) -> Result<Exit, Failure> {
    let services = app.select_with_gateway(&args.which.selection())?;
    show(context, app, &services, args.state.as_deref(), &args.flags, &|views| context.ui.json(&views))?;
    Ok(Exit::Done)
}

/// The services that could be observed, each with its status.
type Statuses<'a> = Vec<(&'a ManagedService, Status)>;

/// Observes and prints those in `state`, once or with `--watch` repeatedly; returns what was printed last.
fn show<'a>(
    context: &Context,
    app: &App,
    services: &[&'a ManagedService],
    state: Option<&str>,
    flags: &PsFlags,
    print_json: &dyn Fn(&[ServiceView]) -> Result<(), Failure>,
) -> Result<Statuses<'a>, Failure> {
    if flags.watch && !context.ui.stdout_is_terminal {
        return Err(Failure::new(Exit::Usage, "--watch needs a terminal")
            .hint("leave out --watch to print the state once, as JSON with --json"));
    }
    let observe = || -> Result<Statuses<'a>, Failure> {
        let mut seen = observe(context, app, services)?;
        seen.retain(|(_, status)| state.is_none_or(|state| status.state.word() == state));
        Ok(seen)
    };
    if flags.watch {
        return watch(context, observe);
    }
    let seen = observe()?;
    if flags.json {
        let views: Vec<_> = seen.iter().map(|(service, status)| ServiceView::new(service, status)).collect();
        print_json(&views)?;
    } else {
        context.ui.result(&table(&seen).text(context.ui.screen_width()))?;
    }
    if context.ui.verbose {
        tell_programs(context, app, services);
    }
    Ok(seen)
}

/// Observes all services; fails if that fails for all of them, and otherwise prints the first failure.
fn observe<'a>(
    context: &Context,
    app: &App,
    services: &[&'a ManagedService],
) -> Result<Statuses<'a>, Failure> {
    let statuses = app.manager(&context.cancel).status_of_all(services);
    let (mut seen, mut failed) = (Vec::new(), None);
    for (service, status) in services.iter().zip(statuses) {
        match status {
            Ok(status) => seen.push((*service, status)),
            Err(error) => failed = failed.or(Some((*service, error))),
        }
    }
    match failed {
        Some((_, error)) if seen.is_empty() => Err(error.into()),
        Some((service, error)) => {
            context.ui.failure(&named(service, &error.into()));
            Ok(seen)
        }
        None => Ok(seen),
    }
}

/// Prints which program `up` would start.
fn tell_programs(context: &Context, app: &App, services: &[&ManagedService]) {
    for service in services {
        context.ui.detail(&match app.manager(&context.cancel).program(service) {
            Ok(program) => {
                let version = service.runtime().and_then(|runtime| programs::version(runtime, &program));
                format!("{}: {}", service.name, described(service, &program, version.as_deref()))
            }
            Err(error) => error.to_string(),
        });
    }
}

/// Observes and prints until a signal ends fusion or the terminal is gone.
fn watch<'a>(
    context: &Context,
    observe: impl Fn() -> Result<Statuses<'a>, Failure>,
) -> Result<Statuses<'a>, Failure> {
    loop {
        context.ui.redraw(&table(&observe()?).text(context.ui.screen_width()))?;
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// Returns one row for each service, with its notes below it.
fn table(seen: &Statuses<'_>) -> TextTable {
    let mut table =
        TextTable::new(&["SERVICE", "STATE", "PID", "ADDRESS", "UPTIME", "MEMORY", "CPU", "MODELS"]);
    for (_, status) in seen {
        table.row(&row(status));
        for note in notes(status) {
            table.note(&note);
        }
    }
    table
}

fn row(status: &Status) -> [String; 8] {
    let usage = status.usage.as_ref();
    let models = status.models.as_ref().map(|models| models.join(", "));
    [
        status.service.to_string(),
        status.state.word().to_owned(),
        status.pid.map_or_else(unknown, |pid| pid.to_string()),
        status.address.as_ref().map_or_else(unknown, Address::url),
        usage.map_or_else(unknown, |usage| duration(usage.uptime)),
        usage.map_or_else(unknown, |usage| bytes(usage.memory_bytes)),
        usage.map_or_else(unknown, |usage| format!("{:.0}%", usage.cpu_percent)),
        models.filter(|models| !models.is_empty()).unwrap_or_else(unknown),
    ]
}

/// Returns what a server left that was killed.
fn orphans_note(status: &Status) -> Option<String> {
    let left = match (&status.orphans[..], &status.usage) {
        ([], _) => return None,
        ([pid], Some(usage)) => {
            format!("pid {pid}, which it started, still uses {}", bytes(usage.memory_bytes))
        }
        (pids, _) => {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            format!("what it started is still alive: pid {}", pids.join(", "))
        }
    };
    Some(format!("the server ended without `down`, and {left}; end it: fusion {} down", status.service))
}

/// Returns what the row of a service does not show.
fn notes(status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &status.service;
    if let Some(exited) = &status.exited {
        let ago = exited.last_sign.and_then(|then| SystemTime::now().duration_since(then).ok());
        let when = ago.map_or_else(String::new, |ago| format!(", about {} ago", duration(ago)));
        let last =
            exited.last_line.as_ref().map_or_else(String::new, |line| format!("; last log line: {line}"));
        notes.push(format!("the server ended without `down`{when}{last}"));
    }
    if let Some(elsewhere) = &status.elsewhere {
        notes.push(format!(
            "{name} was started {elsewhere}, which is another machine or container: its state there is unknown"
        ));
    }
    if let (Some(listener), Some(address)) = (&status.other_listener, &status.address) {
        notes.push(format!("port {} is in use by {listener}", address.port));
    } else if let (Some(trouble), []) = (&status.trouble, &status.orphans[..]) {
        notes.push(trouble.clone());
    }
    notes.extend(orphans_note(status));
    for (model, gpu_percent) in on_cpu(&status.gpu_shares) {
        notes.push(format!("{model} runs {}", where_it_runs(gpu_percent)));
    }
    if let Some(parts) = &status.changes {
        let parts = changed_parts(parts);
        notes.push(format!(
            "the configuration has changed since the start{parts}; apply it: fusion {name} restart"
        ));
    }
    if status.is_removed {
        notes.push(format!("it is not in the configuration any longer; stop it: fusion {name} down"));
    }
    let is_in_trouble = matches!(status.state, State::Exited | State::Unhealthy);
    if is_in_trouble && status.started_by != Some(StartedBy::Other) {
        notes.push(format!("see the log: fusion {name} log"));
    }
    notes
}
