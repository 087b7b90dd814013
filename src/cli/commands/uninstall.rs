//! `fusion <runtime> uninstall`.

use crate::app::{App, homebrew_formula};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::services::ManagedService;

/// Remove fusion's own installation of it
///
/// What others have installed stays, and so do the configuration, the logs and the models.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, _args: &Args) -> Result<Exit, Failure> {
    let name = &service.name;
    if app.uninstall(service, &context.cancel)? {
        let place = service.files.installation.display();
        context.ui.result(&format!("{name} is uninstalled: removed {place}\n"))?;
        return Ok(Exit::Done);
    }
    context.ui.result(&format!("{name} was not installed by fusion\n"))?;
    if let Some(formula) = homebrew_formula(service) {
        context.ui.hint(&format!("if Homebrew has installed it: brew uninstall {formula}"));
    }
    Ok(Exit::Done)
}
