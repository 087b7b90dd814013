//! `fusion <runtime> unload`.

use crate::app::{App, AppError, Unload};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::services::ManagedService;

/// Unload a model and free its memory
#[derive(Debug, clap::Args)]
pub struct UnloadArgs {
    /// Name or alias of the model, or a directory
    #[arg(value_name = "NAME")]
    model: String,
}

/// Runs the command. Nothing is loaded in a service that is not running.
pub fn run(
    context: &Context,
    app: &App,
    service: &ManagedService,
    args: &UnloadArgs,
) -> Result<Exit, Failure> {
    let models = app.models(service, &context.cancel)?;
    let model = models.named(&args.model)?;
    let _cancelled = context.cancel_on_signal();
    let unloaded = models.unload(&model).map_err(|error| {
        let is_missing = matches!(&error, AppError::Model { error, .. } if error.is_pullable());
        let failure = Failure::from(error);
        if is_missing {
            failure.hint(format!("see what is loaded: fusion {} ps", service.name))
        } else {
            failure
        }
    });
    match unloaded? {
        Unload::Done => context.ui.result(&format!("{} is unloaded\n", model.name))?,
        Unload::StillAnswering => context.ui.warning(&format!(
            "{} is still answering a request; {} unloads it after that",
            model.name, service.name
        )),
        Unload::NotRunning => {
            context.ui.result(&format!("{} is not loaded: {} is not running\n", model.name, service.name))?;
        }
    }
    Ok(Exit::Done)
}
