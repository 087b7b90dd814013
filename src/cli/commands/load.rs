//! `fusion <runtime> load`.

use crate::app::{App, LoadOptions};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::models::catalogue::KeepAlive;
use crate::core::services::ManagedService;

/// Load a model into memory
///
/// Starts the server if it is not running.
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// Name or alias of the model, or a directory
    #[arg(value_name = "NAME")]
    model: String,
    /// How long the model stays loaded after its last use: seconds, 90s, 30m, 2h, 1d, or forever
    #[arg(long, value_name = "TIME", value_parser = keep_alive, allow_hyphen_values = true)]
    keep_alive: Option<KeepAlive>,
    /// Do not start the server
    #[arg(long)]
    no_up: bool,
    /// Load the model even if it needs more memory than the machine has
    #[arg(long)]
    force: bool,
    /// Fail with exit code 6 if the model runs on the CPU, or a part of it
    #[arg(long)]
    require_gpu: bool,
}

fn keep_alive(text: &str) -> Result<KeepAlive, String> {
    let expected = "expected seconds (300), a number with a unit (90s, 30m, 2h, 1d), or forever";
    KeepAlive::parse(text).ok_or_else(|| expected.to_owned())
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &LoadArgs) -> Result<Exit, Failure> {
    let models = app.models(service, &context.cancel)?;
    let model = models.named(&args.model)?;
    let _cancelled = context.cancel_on_signal();
    let LoadArgs { keep_alive, force, require_gpu, .. } = args;
    let options = LoadOptions { keep_alive: keep_alive.clone(), force: *force, require_gpu: *require_gpu };
    models.load(&model, !args.no_up, &options)?;
    context.ui.result(&format!("{} is loaded\n", model.name))?;
    Ok(Exit::Done)
}
