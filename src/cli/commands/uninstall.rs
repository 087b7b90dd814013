//! `fusion <runtime> uninstall`.

use super::install::{installer, lock};
use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::core::runtimes::{Recipe, Runtime};

/// Remove fusion's own installation of it
///
/// What others have installed stays, and so do the configuration, the logs and the models.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, _args: &Args) -> Result<Exit, Failure> {
    let (name, paths) = (runtime.name(), context.paths.runtime(runtime.name()));
    let lock = lock(context, runtime, &paths)?;
    if installer(context, runtime, &paths)?.uninstall(&lock)? {
        context.ui.result(&format!("{name} is uninstalled: removed {}\n", paths.installation.display()))?;
        return Ok(Exit::Done);
    }
    context.ui.result(&format!("{name} was not installed by fusion\n"))?;
    if let Some(Recipe::Homebrew { formula, .. }) = runtime.recipe() {
        context.ui.hint(&format!("if Homebrew has installed it: brew uninstall {formula}"));
    }
    Ok(Exit::Done)
}
