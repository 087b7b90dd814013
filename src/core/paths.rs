//! Every file and directory that fusion touches.

use std::path::{Path, PathBuf};

use crate::env::Environment;

/// Why the configuration directory could not be found.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// Neither `FUSION_CONFIG_DIR` nor a home directory says where to look.
    #[error("no home directory, so no place for the configuration")]
    NoHome,
    /// `FUSION_CONFIG_DIR` is relative and the current directory is gone.
    #[error(
        "FUSION_CONFIG_DIR is the relative path {path}, and the current directory does not exist any more"
    )]
    NoCurrentDirectory {
        /// The value of the variable.
        path: PathBuf,
    },
}

/// The configuration directory and what lies in it.
#[derive(Debug, Clone)]
pub struct Paths {
    directory: PathBuf,
}

/// The files of one runtime, all under `<config dir>/<runtime>/`.
#[derive(Debug, Clone)]
pub struct RuntimePaths {
    /// The directory that holds the rest.
    pub directory: PathBuf,
    /// The record of what was started: the only thing that is trusted, and then only against the kernel.
    pub state: PathBuf,
    /// A copy of the PID for scripts; fusion never reads it.
    pub pid: PathBuf,
    /// What the runtime prints; older logs have `.1`, `.2` ... appended.
    pub log: PathBuf,
    /// Locked by every command that changes the runtime.
    pub lock: PathBuf,
    /// Fusion's own installation of the runtime's program.
    pub installation: PathBuf,
}

impl Paths {
    /// `FUSION_CONFIG_DIR`, else an existing `~/.config/fusion/config.toml` on macOS, else the platform's
    /// configuration directory. Always absolute.
    pub fn discover(environment: &Environment) -> Result<Self, PathsError> {
        if let Some(path) = &environment.config_dir {
            let current = environment.current_dir.as_deref();
            return absolute(path, current).map(|directory| Self { directory });
        }
        if cfg!(target_os = "macos")
            && let Some(home) = &environment.home
            && home.join(".config/fusion/config.toml").exists()
        {
            return Ok(Self { directory: home.join(".config/fusion") });
        }
        let base = environment.platform_config_dir.as_ref().ok_or(PathsError::NoHome)?;
        Ok(Self { directory: base.join("fusion") })
    }

    /// The directory that holds everything.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// The files of the runtime called `name`.
    pub fn runtime(&self, name: &str) -> RuntimePaths {
        let directory = self.directory.join(name);
        RuntimePaths {
            state: directory.join("state.json"),
            pid: directory.join(format!("{name}.pid")),
            log: directory.join(format!("{name}.log")),
            lock: directory.join("lock"),
            installation: directory.join("runtime"),
            directory,
        }
    }
}

fn absolute(path: &Path, current: Option<&Path>) -> Result<PathBuf, PathsError> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let current = current.ok_or_else(|| PathsError::NoCurrentDirectory { path: path.to_owned() })?;
    Ok(current.join(path))
}
