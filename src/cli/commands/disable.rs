//! `fusion <service> disable`: stop starting it at login.

use super::enable::{places, tell};
use crate::app::{App, Selection};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::login::{self, LoginManager};
use crate::core::services::ManagedService;

/// Stop starting the server at login
///
/// Does not stop a running server.
#[derive(Debug, clap::Args)]
pub struct DisableArgs {}

/// Runs the command.
pub fn run(context: &Context, service: &ManagedService, _args: &DisableArgs) -> Result<Exit, Failure> {
    let search = context.environment.path.as_deref();
    let steps = login::disable(LoginManager::native(), &service.name, &places(context)?, search)?;
    tell(context, &steps);
    let name = &service.name;
    let already = if steps.is_empty() { "was not set to start" } else { "no longer starts" };
    context.ui.result(&format!("{name} {already} at login\n"))?;
    Ok(Exit::Done)
}

/// Stop starting a service at login
///
/// Does not stop a running server.
#[derive(Debug, clap::Args)]
pub struct DisableNamedArgs {
    /// Name of the service
    name: String,
}

/// Runs the command for the service of that name.
pub fn run_named(context: &Context, app: &App, args: &DisableNamedArgs) -> Result<Exit, Failure> {
    let selection = Selection { names: vec![args.name.clone()], ..Selection::default() };
    let services = app.select(&selection)?;
    services
        .into_iter()
        .try_fold(Exit::Done, |exit, service| Ok(exit.or(run(context, service, &DisableArgs {})?)))
}
