//! The file that tells a server of many models with which context length it loads each.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::manager::ServiceManager;
use super::record::hash;
use super::service::ManagedService;
use crate::core::files::{self, FileError};
use crate::core::templates::Template;

/// The name of such a file begins so; a hash of its text follows, so another text is another command.
const PREFIX: &str = "models-";

const EXTENSION: &str = ".ini";

/// A file that is written before a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PresetFile {
    /// The argument before its path.
    pub(super) flag: &'static str,
    pub(super) path: PathBuf,
    text: String,
}

/// Returns whether this is such a file.
pub fn is_preset(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(PREFIX) && name.ends_with(EXTENSION)
}

impl ServiceManager<'_> {
    /// Returns the file with what `[models]` says of models on this machine; `None` if it says nothing, or the server
    /// takes no such file.
    pub(super) fn preset_file(&self, service: &ManagedService) -> Option<PresetFile> {
        let Template::Runtime(runtime) = service.template else { return None };
        let of_model = |(name, tokens): (&String, Option<u64>)| {
            let model = self.configured_model(service, runtime, name);
            (model.present == Some(true)).then_some((model.name, tokens?))
        };
        let settings = self.config.models.iter().map(|(name, settings)| (name, settings.context));
        let contexts: Vec<(String, u64)> =
            settings.filter(|(_, context)| context.is_some()).filter_map(of_model).collect();
        let (flag, text) = runtime.context_presets(&contexts).filter(|_| !contexts.is_empty())?;
        let name = format!("{PREFIX}{}{EXTENSION}", hash([OsStr::new(&text)]));
        Some(PresetFile { flag, path: service.files.directory.join(name), text })
    }
}

impl PresetFile {
    /// Writes the file in place of those of earlier starts.
    pub(super) fn write(&self) -> Result<(), FileError> {
        for path in self.path.parent().map(files::entries).unwrap_or_default() {
            if path != self.path && is_preset(&path) {
                files::remove(&path)?;
            }
        }
        files::replace(&self.path, self.text.as_bytes())
    }
}
