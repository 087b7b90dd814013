//! `fusion <runtime> install`, and the offer to install that `up` and `run` make.

use std::os::fd::AsFd as _;
use std::time::Duration;

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::cli::reporter::Reporter;
use crate::core::helper::Output;
use crate::core::install::{InstallError, Installer, Outcome, Progress};
use crate::core::paths::RuntimePaths;
use crate::core::process::signals;
use crate::core::programs::{Installation, ProgramError};
use crate::core::runtimes::Runtime;
use crate::core::services::lock::{Lock, LockError};

/// How long another command that changes the runtime is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// Install its program
///
/// A Python program goes into an environment of fusion's own, made with uv where that is on PATH, else with Python's
/// venv and pip. Other programs are installed with Homebrew; where there is none, its makers' own command is named
/// and not run.
///
/// An installation that is interrupted leaves the one that was there before as it was; what has been downloaded is
/// kept by uv and pip for the next attempt.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Install the newest version that is known to work, in place of the one that is there
    #[arg(long)]
    upgrade: bool,
}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let outcome = install(context, runtime, args.upgrade)?;
    context.ui.result(&format!("{}\n", told(runtime, &outcome)))?;
    Ok(Exit::Done)
}

fn install(context: &Context, runtime: &'static dyn Runtime, upgrade: bool) -> Result<Outcome, Failure> {
    let paths = context.paths.runtime(runtime.name());
    let _remembering = signals::remember();
    let lock = lock(context, runtime, &paths)?;
    Ok(installer(context, runtime, &paths)?.install(upgrade, &lock)?)
}

/// The runtime's lock: nothing else changes it meanwhile.
pub(super) fn lock(
    context: &Context,
    runtime: &dyn Runtime,
    paths: &RuntimePaths,
) -> Result<Lock, InstallError> {
    let reporter = Reporter::new(&context.ui);
    match Lock::acquire(runtime.name(), paths, LOCK_LIMIT, &interrupted, &reporter) {
        Err(LockError::Interrupted) => Err(InstallError::Interrupted),
        other => Ok(other?),
    }
}

pub(super) fn installer<'a>(
    context: &'a Context,
    runtime: &'static dyn Runtime,
    paths: &'a RuntimePaths,
) -> Result<Installer<'a>, Failure> {
    let output = if context.ui.quiet {
        Output::Keep
    } else {
        let stderr = std::io::stderr().as_fd().try_clone_to_owned();
        Output::Show(stderr.map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot write to standard error: {error}"))
        })?)
    };
    Ok(Installer {
        runtime,
        paths,
        driver: &context.driver,
        search: context.environment.path.as_deref(),
        output,
        interrupted: &interrupted,
        progress: Box::new(|progress| context.ui.note(&being_done(progress))),
    })
}

fn interrupted() -> bool {
    signals::pending().is_some()
}

fn being_done(progress: Progress<'_>) -> String {
    match progress {
        Progress::Installing { what, with, directory: Some(directory) } => {
            format!("installing {what} with {with} into {}", directory.display())
        }
        Progress::Installing { what, with, directory: None } => format!("installing {what} with {with}"),
        Progress::Checking => "starting it once to see that it works".to_owned(),
    }
}

fn told(runtime: &dyn Runtime, outcome: &Outcome) -> String {
    let place = |installation: &Installation| {
        format!("{} {} is installed", runtime.name(), installation.version)
            + &format!(" in {}", installation.directory.display())
    };
    match outcome {
        Outcome::Already(installation) => format!("{}, as it was", place(installation)),
        Outcome::Made { now, before: None } => place(now),
        Outcome::Made { now, before: Some(before) } => format!("{}, in place of {before}", place(now)),
        Outcome::Homebrew(program) => format!("{} is installed: {}", runtime.name(), program.display()),
    }
}

/// Installs a runtime whose program could not be found: at once when `yes` says so, after asking on a terminal, and
/// otherwise not, with the command to run as the hint.
pub fn offer(
    context: &Context,
    runtime: &'static dyn Runtime,
    missing: ProgramError,
    yes: bool,
) -> Result<(), Failure> {
    let can_install =
        matches!(missing, ProgramError::NotInstalled { .. } | ProgramError::Installation { .. });
    if !can_install || !(yes || asked(context, runtime, &missing)) {
        return Err(missing.into());
    }
    let outcome = install(context, runtime, false)?;
    context.ui.note(&told(runtime, &outcome));
    Ok(())
}

/// Asks on the terminal; without one the answer is no.
fn asked(context: &Context, runtime: &dyn Runtime, missing: &ProgramError) -> bool {
    let environment = &context.environment;
    if !(environment.stdin_is_terminal && environment.stderr_is_terminal) || runtime.recipe().is_none() {
        return false;
    }
    context.ui.warning(&missing.to_string());
    context.ask(&format!("Install {} now?", runtime.title()), true) == Some(true)
}
