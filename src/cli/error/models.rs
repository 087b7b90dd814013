//! Messages and hints for models.

use std::path::Path;

use super::Failure;
use crate::cli::exit;
use crate::cli::units::bytes;
use crate::core::models::catalogue::ModelError;
use crate::core::models::defect::Defect;
use crate::core::models::quoted;

impl Failure {
    /// Returns the failure of work with a model of the service `name`. The hints name the model as the user did.
    pub fn of_model(name: &str, asked: &str, error: &ModelError) -> Self {
        use ModelError as E;
        let mut failure = Self::of(exit::of_model(error), error);
        match error {
            E::CannotUnload | E::UnloadTimedOut { .. } => failure.hint(format!("stop the server: fusion {name} down")),
            E::NotRunning => failure.hint(format!("start the server: fusion {name} up")),
            E::CannotKeepAlive => failure.hint("omit --keep-alive"),
            E::NotHere { .. } => failure.hint(format!("download it: fusion {name} pull {}", quoted(asked))),
            E::Incomplete { own: Some(own), defects, .. }
                if defects.iter().any(|defect| matches!(defect, Defect::LfsPointer { .. })) =>
            {
                failure.hint(lfs_hint(own))
            }
            E::Unreadable { path, .. } => failure.hint(format!("check the files in {}", path.display())),
            E::Incomplete { own: None, .. } => {
                failure.hint(format!("download the missing files: fusion {name} pull {}", quoted(asked)))
            }
            E::Incomplete { own: Some(_), .. } => {
                failure.hint("copy or convert the model again; fusion does not repair your own directories")
            }
            E::Unusable { .. } => {
                failure.hint(format!("choose a model for {name}; `fusion models` lists aliases of some"))
            }
            // No command, for it could delete any directory.
            E::OwnDirectory { .. } => failure.hint("check its content and remove it yourself"),
            E::OwnFile { .. } => failure.hint("remove it yourself"),
            E::NoFile { .. } => failure.hint("a name that begins with /, ./, ../ or ~/ is a file"),
            E::NotServed { name: model, served } if served.len() == 1 => failure.hint(format!(
                "restart it with that model: fusion {name} down, then fusion {name} up -m {}; or have it serve every \
                 model: take `model` out of its table: fusion config edit",
                quoted(model)
            )),
            E::NotServed { .. } => failure.hint(format!("`fusion {name} models` shows what it can serve")),
            E::NoQuantization { name: model, available, .. } => {
                let repository = model.split(':').next().unwrap_or(model);
                let first = available.first().map_or("", String::as_str);
                failure.hint(format!("choose one: fusion {name} pull {}", quoted(&format!("{repository}:{first}"))))
            }
            E::LoadTimedOut { .. } => failure.hint(format!("see its log: fusion {name} log")),
            E::InvalidName { .. } => failure.hint(format!("`fusion models` lists names that {name} accepts")),
            E::NoDirectory { .. } => failure.hint("a name that starts with /, ./, ../ or ~/ is a directory"),
            E::Unknown { .. } => failure.hint(
                "check the spelling; a private model requires your token (HF_TOKEN, or `hf auth login`)",
            ),
            E::Gated { name: model } => failure.hint(format!(
                "request access at https://huggingface.co/{model}, then set your token (HF_TOKEN, or `hf auth login`)"
            )),
            E::ToolMissing { comes_with, .. } => failure.hint(install_tool_hint(comes_with.as_deref())),
            E::NoSpace { needed, free, path, name: model } => {
                failure.message =
                    format!("{model} needs {}, but {} has {} free", bytes(*needed), path.display(), bytes(*free));
                failure.hint(space_hint(name))
            }
            E::Offline { variable } => failure.hint(format!("unset {variable}")),
            E::Network { .. } => {
                failure.hint("check the connection, then run the same command again; complete files are kept")
            }
            // In the words of the system, which the hub's tool and the servers pass on.
            E::Download { said } if said.contains("o space left on device") => {
                failure.hint(space_hint(name))
            }
            E::Download { .. } => failure.hint("run the same command again; complete files are kept"),
            E::Server { logged, advice, .. } => {
                let more = logged.iter().filter(|logged| !failure.message.contains(*logged));
                let more = more.map(|logged| format!("its log: {logged}")).collect();
                let look = || format!("`fusion {name} log` shows the server's log");
                failure.caused_by(more).hint(advice.clone().unwrap_or_else(look))
            }
            E::Api(_) => failure.hint(format!("`fusion {name} log` shows the server's log")),
            // The user who sent the signal knows it.
            E::Cancelled => Self::new(failure.exit, ""),
            E::ToolBroken { .. } | E::Cache(_) => failure,
        }
    }
}

fn space_hint(name: &str) -> String {
    format!("free space: `fusion {name} models` lists the sizes, `fusion {name} rm NAME` removes a model")
}

/// Returns how the hub's tool is installed; `comes_with` is the service whose installation brings it.
pub(super) fn install_tool_hint(comes_with: Option<&str>) -> String {
    const BY_HAND: &str = "uv tool install huggingface_hub";
    match comes_with {
        Some(service) => format!("install it: fusion {service} install, which brings it; or {BY_HAND}"),
        None => format!("install it: {BY_HAND}"),
    }
}

/// Returns the hint for a file, or a directory of files, of which Git has only pointers.
fn lfs_hint(own: &Path) -> String {
    let word = |path: &Path| quoted(&path.to_string_lossy());
    match (own.parent(), own.file_name()) {
        (Some(directory), Some(file)) if !own.is_dir() => {
            let file = word(Path::new(file));
            format!("download the file: git -C {} lfs pull --include {file}", word(directory))
        }
        _ => format!("download the files: git -C {} lfs pull", word(own)),
    }
}
