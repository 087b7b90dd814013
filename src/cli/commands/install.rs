//! `fusion <service> install`, and the offer to install that `up` and `run` make.

use crate::app::{App, AppError};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::install::InstallOutcome;
use crate::core::programs::{Installation, ProgramError};
use crate::core::services::ManagedService;

/// Install the program of the service
///
/// A Python program is installed into an environment of its own, with uv if it is on PATH, else with venv and pip.
/// Other programs are installed with Homebrew. Without Homebrew, fusion prints the command that the program's
/// documentation names, and does not run it.
///
/// An interrupted installation leaves the previous one unchanged. uv and pip keep finished downloads for the next
/// attempt.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// Replace an older version with the newest one that is known to work
    #[arg(long)]
    upgrade: bool,
}

/// Runs the command.
pub fn run(
    context: &Context,
    app: &App,
    service: &ManagedService,
    args: &InstallArgs,
) -> Result<Exit, Failure> {
    let _cancelled = context.cancel_on_signal();
    let outcome = app.install(service, args.upgrade, &context.cancel)?;
    context.ui.result(&format!("{}\n", summary(service, &outcome)))?;
    Ok(Exit::Done)
}

fn summary(service: &ManagedService, outcome: &InstallOutcome) -> String {
    let name = &service.name;
    let place = |installation: &Installation| {
        format!("{name} {} is installed in {}", installation.version, installation.directory.display())
    };
    match outcome {
        InstallOutcome::Already(installation) => format!("{} already", place(installation)),
        InstallOutcome::Made { now, before: None } => place(now),
        InstallOutcome::Made { now, before: Some(before) } => format!("{}; it replaces {before}", place(now)),
        InstallOutcome::Homebrew(program) => format!("{name} is installed: {}", program.display()),
    }
}

/// Runs `work`, which starts a service. If the program is missing, offers on a terminal to install it, and then runs
/// `work` again.
pub(super) fn installed<T>(
    context: &Context,
    app: &App,
    service: &ManagedService,
    work: impl Fn(bool) -> Result<T, AppError>,
) -> Result<T, Failure> {
    let error = {
        let _cancelled = context.cancel_on_signal();
        match work(false) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        }
    };
    if !install_if_wanted(context, app, service, &error)? {
        return Err(error.into());
    }
    let _cancelled = context.cancel_on_signal();
    Ok(work(false)?)
}

/// Offers on a terminal to install the program that is missing according to `error`; returns whether it is installed
/// now.
pub(super) fn install_if_wanted(
    context: &Context,
    app: &App,
    service: &ManagedService,
    error: &AppError,
) -> Result<bool, Failure> {
    match error.missing_program() {
        Some(missing) if missing.is_installable() && is_wanted(context, service, missing) => {
            let _cancelled = context.cancel_on_signal();
            app.install_for_start(service, &context.cancel)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Asks on the terminal; returns false without one.
fn is_wanted(context: &Context, service: &ManagedService, missing: &ProgramError) -> bool {
    let environment = &context.environment;
    let is_installable = service.runtime().is_some_and(|runtime| runtime.install_method().is_some());
    if !(environment.stdin_is_terminal && environment.stderr_is_terminal && is_installable) {
        return false;
    }
    context.ui.warning(&missing.to_string());
    context.ask(&format!("Install {} now?", service.template.display_name()), true) == Some(true)
}
