//! `fusion remove`: takes an instance out of the configuration.

use super::enable::{places, tell};
use crate::app::{App, Selection};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::login::{self, LoginManager};

/// Remove a service that was made from a template
///
/// Removes its table from the configuration, its log, and its start at login. Refuses while it is running. Models and
/// the working directory stay.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Name of the service
    name: String,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    /// Keep its log
    #[arg(long)]
    keep_log: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, args: &RemoveArgs) -> Result<Exit, Failure> {
    let selection = Selection { names: vec![args.name.clone()], ..Selection::default() };
    for service in app.select(&selection)? {
        app.check_removable(service, &context.cancel)?;
        let name = &service.name;
        let (with, keeping) = if args.keep_log { ("", " --keep-log") } else { (" and its log", "") };
        let question = format!("Remove {name} from the configuration{with}?");
        match if args.yes { Some(true) } else { context.ask(&question, false) } {
            Some(true) => {}
            Some(false) => return Err(Failure::new(Exit::Failed, "not removed")),
            None => {
                let message = "not removed: there is no terminal to ask for confirmation on";
                return Err(Failure::new(Exit::Usage, message)
                    .hint(format!("confirm it: fusion remove {name} --yes{keeping}")));
            }
        }
        app.remove(service, args.keep_log, &context.cancel)?;
        if let Ok(places) = places(context)
            && login::is_enabled(LoginManager::native(), name, &places)
        {
            let search = context.environment.path.as_deref();
            tell(context, &login::disable(LoginManager::native(), name, &places, search)?);
        }
        context.ui.result(&format!("{name} is removed\n"))?;
    }
    Ok(Exit::Done)
}
