//! `fusion <runtime> unload`.

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::cli::models::Models;
use crate::core::runtimes::Runtime;
use crate::core::services::State;

/// Have a model let go of, so that its memory is free
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name, an alias, or a directory
    #[arg(value_name = "NAME")]
    model: String,
}

/// Runs the command. A runtime that does not run has nothing loaded.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let models = Models::of(context, &config, runtime)?;
    let model = models.named(&args.model);
    let status = models.status()?;
    if matches!(status.state, State::Stopped | State::Exited) {
        context.ui.result(&format!("{} is not loaded: {} is not running\n", model.name, runtime.name()))?;
        return Ok(Exit::Done);
    }
    let unloaded = models.work_at(&status.address, |catalogue, site| catalogue.unload(site, &model.name));
    unloaded.map_err(|error| models.failure(&model, &error))?;
    context.ui.result(&format!("{} is not loaded any more\n", model.name))?;
    Ok(Exit::Done)
}
