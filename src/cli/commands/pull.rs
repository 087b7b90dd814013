//! `fusion <runtime> pull`.

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::cli::models::Models;
use crate::core::runtimes::Runtime;

/// Download a model
///
/// What is there already is not downloaded again, so an interrupted download goes on with the files that are missing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name, or an alias (`fusion models` shows them)
    #[arg(value_name = "NAME")]
    model: String,
    /// Do not start the server, where it is the server that downloads
    #[arg(long)]
    no_up: bool,
}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let models = Models::of(context, &config, runtime)?;
    let model = models.named(&args.model);
    models.fetch(&model, !args.no_up)?;
    context.ui.result(&format!("{} is here\n", model.name))?;
    Ok(Exit::Done)
}
