//! `fusion <runtime> rm`.

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::cli::models::{Models, Named};
use crate::cli::units;
use crate::core::models::catalogue::ModelError;
use crate::core::runtimes::Runtime;

/// Remove a model from this machine
///
/// Asks first, on a terminal; a script says --yes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name, or an alias (`fusion models` shows them)
    #[arg(value_name = "NAME")]
    model: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Do not start the server, where only the server knows the models
    #[arg(long)]
    no_up: bool,
}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let models = Models::of(context, &config, runtime)?;
    let model = models.named(&args.model);
    let auto_up = !args.no_up;
    let shown = models.work(auto_up, |catalogue, site| match site.places.directory(&model.name) {
        // Before any question.
        Some(_) => catalogue.remove(site, &model.name).map(|_| None),
        None => catalogue.show(site, &model.name).map(|details| details.entry.size_bytes),
    })?;
    let size = shown.map_err(|error| failure(&models, &model, &error))?;
    refuse_if_in_use(&models, &model)?;
    if !args.yes && !confirmed(context, &model, size)? {
        context.ui.note("nothing was removed");
        return Ok(Exit::Failed);
    }
    let removed = models.work(auto_up, |catalogue, site| catalogue.remove(site, &model.name))?;
    let freed = removed.map_err(|error| models.failure(&model, &error))?.or(size);
    let freed = freed.map(|bytes| format!(", {} are free again", units::bytes(bytes))).unwrap_or_default();
    context.ui.result(&format!("{} is removed{freed}\n", model.name))?;
    Ok(Exit::Done)
}

/// Whoever wants a model removed does not want it downloaded.
fn failure(models: &Models<'_>, model: &Named<'_>, error: &ModelError) -> Failure {
    let failure = models.failure(model, error);
    match error {
        ModelError::NotHere { .. } => {
            failure.hint(format!("those that are here: fusion {} models", models.runtime.name()))
        }
        _ => failure,
    }
}

/// A server that reads its model's files while it runs does not know that they are gone.
fn refuse_if_in_use(models: &Models<'_>, model: &Named<'_>) -> Result<(), Failure> {
    if models.needs_server() {
        return Ok(());
    }
    let status = models.status()?;
    let runtime = models.runtime.name();
    match models.loaded(&status) {
        Some(loaded) if loaded.contains(&model.name) => {
            let message = format!("{} is in use: {runtime} has loaded it", model.name);
            Err(Failure::new(Exit::Failed, message).hint(format!("stop it first: fusion {runtime} down")))
        }
        _ => Ok(()),
    }
}

/// Asks on the terminal; without one, nothing is removed unless the command line says so.
fn confirmed(context: &Context, model: &Named<'_>, size: Option<u64>) -> Result<bool, Failure> {
    let size = size.map(|bytes| format!(" ({})", units::bytes(bytes))).unwrap_or_default();
    let question = format!("Remove {}{size}?", model.name);
    context.ask(&question, false).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("{} is not removed unasked, and there is no terminal to ask at", model.name),
        )
        .hint("say --yes")
    })
}
