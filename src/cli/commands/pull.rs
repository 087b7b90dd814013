//! `fusion <runtime> pull`.

use crate::app::App;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::services::ManagedService;

/// Download a model
///
/// Files that are already there are not downloaded again, so an interrupted download resumes.
#[derive(Debug, clap::Args)]
pub struct PullArgs {
    /// Name or alias of the model (`fusion models` lists both)
    #[arg(value_name = "NAME")]
    model: String,
    /// Do not start the server, even if only the server can download
    #[arg(long)]
    no_up: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &PullArgs) -> Result<Exit, Failure> {
    let models = app.models(service, &context.cancel)?;
    let model = models.named(&args.model)?;
    let _cancelled = context.cancel_on_signal();
    models.pull(&model, !args.no_up)?;
    context.ui.result(&format!("{} is here\n", model.name))?;
    Ok(Exit::Done)
}
