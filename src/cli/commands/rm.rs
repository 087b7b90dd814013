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
/// Asks for confirmation on a terminal; a script must pass --yes.
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// Name or alias of the model (`fusion models` lists both)
    #[arg(value_name = "NAME")]
    model: String,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
    /// Do not start the server
    #[arg(long)]
    no_up: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &RmArgs) -> Result<Exit, Failure> {
    let models = app.models(service, &context.cancel)?;
    let model = models.named(&args.model)?;
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
    let freed = freed.map(|bytes| format!(", {} freed", units::bytes(bytes))).unwrap_or_default();
    context.ui.result(&format!("removed {}{freed}\n", model.name))?;
    Ok(Exit::Done)
}

/// A hint to download a model that is to be removed would not help.
fn failure(service: &ManagedService, error: AppError) -> Failure {
    let is_missing =
        matches!(&error, AppError::Model { error, .. } if matches!(**error, ModelError::NotHere { .. }));
    let failure = Failure::from(error);
    if is_missing {
        return failure.hint(format!("list the models on this machine: fusion {} models", service.name));
    }
    failure
}

/// Asks on the terminal; without a terminal, only `--yes` confirms.
fn confirmed(context: &Context, model: &str, size: Option<u64>) -> Result<bool, Failure> {
    let size = size.map(|bytes| format!(" ({})", units::bytes(bytes))).unwrap_or_default();
    context.ask(&format!("Remove {model}{size}?"), false).ok_or_else(|| {
        let message = format!("cannot ask whether to remove {model}: there is no terminal");
        Failure::new(Exit::Usage, message).hint("pass --yes to remove it without confirmation")
    })
}
