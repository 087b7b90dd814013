//! `fusion <runtime> disable`: do not start it at login any more.

use super::enable::{places, tell};
use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::core::login::{self, Manager};
use crate::core::runtimes::Runtime;

/// Do not start it at login any more
///
/// If it is running, it runs on.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, _args: &Args) -> Result<Exit, Failure> {
    let search = context.environment.path.as_deref();
    let steps = login::disable(Manager::native(), runtime.name(), &places(context)?, search)?;
    tell(context, &steps);
    let name = runtime.name();
    let any_more = if steps.is_empty() { "" } else { " any more" };
    context.ui.result(&format!("{name} does not start at login{any_more}\n"))?;
    Ok(Exit::Done)
}
