//! Fusion's own installation of a runtime, as its manifest declares it; [`crate::core::install`] makes it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::core::executables::is_executable;
use crate::core::files;
use crate::core::json_object::{self, JsonObject, required};
use crate::core::runtimes::Runtime;

/// The file that declares a complete installation.
pub const MANIFEST: &str = "installed.json";

/// A complete installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The Python environment: its programs are in `bin`.
    pub directory: PathBuf,
    /// The version of the package.
    pub version: String,
}

/// The content of [`MANIFEST`].
#[derive(Debug, Serialize)]
pub struct Manifest {
    /// The environment's directory, beside the manifest. Environments contain their own absolute path, so a moved one
    /// does not work.
    pub directory: PathBuf,
    /// The version of the package.
    pub version: String,
    /// The requirement that was installed.
    pub requirement: String,
    /// The program that made it: `uv` or `pip`.
    pub installed_with: String,
}

impl Manifest {
    fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let value: Value = json_object::parse(text)?;
        let manifest = JsonObject::new(&value, "the manifest")?;
        let text = |name| required(name, manifest.text(name)?);
        Ok(Self {
            directory: text("directory")?.into(),
            version: text("version")?,
            requirement: text("requirement")?,
            installed_with: text("installed_with")?,
        })
    }

    /// Returns the installation that it declares, if its directory is `home`.
    pub fn installation(&self, home: &Path) -> Result<Installation, InstallationError> {
        let moved = || InstallationError::Moved { from: self.directory.clone() };
        let name = self.directory.file_name().ok_or_else(moved)?;
        let directory = home.join(name);
        // One directory may have several names.
        match (self.directory.canonicalize(), directory.canonicalize()) {
            (Ok(made), Ok(now)) if made != now => return Err(moved()),
            (Err(_), Ok(_)) => return Err(moved()),
            _ => {}
        }
        Ok(Installation { directory, version: self.version.clone() })
    }
}

/// Why an installation is unusable.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    #[error("cannot read {path}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The manifest is not in fusion's format.
    #[error("{path} is damaged")]
    Damaged { path: PathBuf, source: serde_json::Error },
    /// The directory of the installation was moved or copied.
    #[error("it was made in {from}, and works nowhere else")]
    Moved {
        /// The directory in which it was made.
        from: PathBuf,
    },
    /// A file is missing: the program, or the Python that runs it.
    #[error("{path} is gone")]
    Gone { path: PathBuf },
}

impl Installation {
    /// Returns the installation of `runtime` in `directory`; `None` if there is none.
    pub fn read(directory: &Path, runtime: &dyn Runtime) -> Result<Option<Self>, InstallationError> {
        let path = directory.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(InstallationError::Unreadable { path, source }),
        };
        let manifest =
            Manifest::parse(&text).map_err(|source| InstallationError::Damaged { path, source })?;
        let installation = manifest.installation(directory)?;
        let needed = [runtime.program(), "python"].map(|name| installation.program(name));
        match needed.into_iter().find(|path| !is_executable(path)) {
            Some(path) => Err(InstallationError::Gone { path }),
            None => Ok(Some(installation)),
        }
    }

    /// Returns the path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join("bin").join(name)
    }
}

/// Returns the version of `package` in the Python environment `directory`, from the name of its metadata directory
/// (`lib/pythonX.Y/site-packages/NAME-VERSION.dist-info`, PEP 427 and PEP 376).
pub fn package_version(directory: &Path, package: &str) -> Option<String> {
    let prefix = format!("{}-", package.replace('-', "_"));
    let version_in = |python: PathBuf| {
        let names = files::names(&python.join("site-packages"));
        names.iter().find_map(|name| Some(name.strip_prefix(&prefix)?.strip_suffix(".dist-info")?.to_owned()))
    };
    files::entries(&directory.join("lib")).into_iter().find_map(version_in)
}
