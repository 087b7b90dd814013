//! `fusion <runtime> rm`.

use crate::app::{App, AppError};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::units;
use crate::core::models::catalogue::ModelError;
use crate::core::services::ManagedService;

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
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &Args) -> Result<Exit, Failure> {
    let models = app.models(service, &context.cancel)?;
    let model = models.named(&args.model);
    let start_on_demand = !args.no_up;
    let size = {
        let _cancelled = context.cancel_on_signal();
        models.check_removal(&model, start_on_demand).map_err(|error| failure(service, error))?
    };
    if !args.yes && !confirmed(context, &model.name, size)? {
        context.ui.note("nothing was removed");
        return Ok(Exit::Failed);
    }
    let _cancelled = context.cancel_on_signal();
    let freed = models.remove(&model, start_on_demand)?.or(size);
    let freed = freed.map(|bytes| format!(", {} are free again", units::bytes(bytes))).unwrap_or_default();
    context.ui.result(&format!("{} is removed{freed}\n", model.name))?;
    Ok(Exit::Done)
}

/// A model that is to be removed is not to be downloaded.
fn failure(service: &ManagedService, error: AppError) -> Failure {
    let is_missing =
        matches!(&error, AppError::Model { error, .. } if matches!(**error, ModelError::NotHere { .. }));
    let failure = Failure::from(error);
    if is_missing {
        return failure.hint(format!("those that are here: fusion {} models", service.name));
    }
    failure
}

/// Asks on the terminal; without one, nothing is removed unless the command line says so.
fn confirmed(context: &Context, model: &str, size: Option<u64>) -> Result<bool, Failure> {
    let size = size.map(|bytes| format!(" ({})", units::bytes(bytes))).unwrap_or_default();
    context.ask(&format!("Remove {model}{size}?"), false).ok_or_else(|| {
        let message = format!("{model} is not removed unasked, and there is no terminal to ask at");
        Failure::new(Exit::Usage, message).hint("say --yes")
    })
}
