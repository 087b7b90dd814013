//! The words, hints and exit codes of what goes wrong with models.

use super::Failure;
use crate::cli::exit::{self, Exit};
use crate::cli::units::bytes;
use crate::core::models::catalogue::ModelError;
use crate::core::models::quoted;

impl Failure {
    /// Of something that could not be done with a model of `runtime`. The hints name the model as the user did.
    pub fn of_model(runtime: &str, asked: &str, error: &ModelError) -> Self {
        use ModelError as E;
        let name = runtime;
        let failure = Self::of(exit::of_model(error), error);
        match error {
            E::CannotUnload => failure.hint(format!("stop it: fusion {name} down")),
            E::CannotKeepAlive => failure.hint("leave --keep-alive out"),
            E::NotHere { .. } => failure.hint(format!("download it: fusion {name} pull {}", quoted(asked))),
            E::Incomplete { is_directory: false, .. } => {
                failure.hint(format!("download the rest of it: fusion {name} pull {}", quoted(asked)))
            }
            E::Incomplete { is_directory: true, .. } => {
                failure.hint("copy or convert the model again; fusion does not repair a directory of yours")
            }
            E::Unusable { .. } => {
                failure.hint(format!("choose a model made for {name}; `fusion models` shows short names for some"))
            }
            // No command: whatever it is a directory of, it would be gone.
            E::OwnDirectory { .. } => failure.hint("look at what is in it, and remove it yourself"),
            E::InvalidName { .. } => failure.hint(format!("`fusion models` shows names that {name} understands")),
            E::NoDirectory { .. } => failure.hint("a name that begins with /, ./, ../ or ~/ is a directory"),
            E::Unknown { .. } => failure.hint(
                "check the spelling; a private model needs your token (HF_TOKEN, or `hf auth login`)",
            ),
            E::Gated { name: model } => failure.hint(format!(
                "ask for access at https://huggingface.co/{model}, then give your token (HF_TOKEN, or `hf auth login`)"
            )),
            E::ToolMissing { .. } => {
                failure.hint(format!("it comes with the installation: fusion {name} install"))
            }
            E::NoSpace { needed, free, path, name: model } => {
                let message =
                    format!("{model} needs {} and {} has {} left", bytes(*needed), path.display(), bytes(*free));
                Self { message, ..failure }.hint(format!(
                    "make room: `fusion {name} models` shows what the models take, `fusion {name} rm NAME` removes one"
                ))
            }
            E::Offline { variable } => failure.hint(format!("unset {variable}")),
            E::Network { .. } => {
                failure.hint("check the connection, then run the same command again; what is complete is kept")
            }
            E::Download { .. } => failure.hint("run the same command again; what is complete is kept"),
            E::Server(_) | E::Api(_) => failure.hint(format!("`fusion {name} log` shows its log")),
            // Who sent the signal knows of it.
            E::Cancelled => Self::new(Exit::Interrupted, ""),
            E::ToolBroken { .. } | E::Cache(_) => failure,
        }
    }
}
