//! `fusion <service> disable`: stop starting it at login.

use super::enable::{places, tell};
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
