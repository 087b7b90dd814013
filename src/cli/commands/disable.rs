//! `fusion <runtime> disable`: do not start it at login any more.

use super::enable::{places, tell};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::login::{self, LoginManager};
use crate::core::services::ManagedService;

/// Do not start it at login any more
///
/// If it is running, it runs on.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(context: &Context, service: &ManagedService, _args: &Args) -> Result<Exit, Failure> {
    let search = context.environment.path.as_deref();
    let steps = login::disable(LoginManager::native(), &service.name, &places(context)?, search)?;
    tell(context, &steps);
    let name = &service.name;
    let any_more = if steps.is_empty() { "" } else { " any more" };
    context.ui.result(&format!("{name} does not start at login{any_more}\n"))?;
    Ok(Exit::Done)
}
