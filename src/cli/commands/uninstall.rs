//! `fusion <service> uninstall`.

use crate::app::{App, homebrew_formula};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::services::ManagedService;

/// Remove the program that fusion installed
///
/// Keeps a program that was installed outside fusion, the configuration, the logs and the models.
#[derive(Debug, clap::Args)]
pub struct UninstallArgs {}

/// Runs the command.
pub fn run(
    context: &Context,
    app: &App,
    service: &ManagedService,
    _args: &UninstallArgs,
) -> Result<Exit, Failure> {
    let name = &service.name;
    if app.uninstall(service, &context.cancel)? {
        let directory = app.installation(service);
        context.ui.result(&format!("{name} is uninstalled: removed {}\n", directory.display()))?;
        return Ok(Exit::Done);
    }
    context.ui.result(&format!("{name} was not installed by fusion\n"))?;
    if let Some(formula) = homebrew_formula(service) {
        context.ui.hint(&format!("remove an installation by Homebrew: brew uninstall {formula}"));
    }
    Ok(Exit::Done)
}
