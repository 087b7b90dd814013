//! Every file and directory that fusion touches.

use std::path::{Path, PathBuf};

use crate::env::Environment;

/// Why the configuration directory could not be found.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// Neither `FUSION_CONFIG_DIR` nor a home directory says where to look.
    #[error("no home directory, so no place for the configuration")]
    NoHome,
    /// The directory, which `FUSION_CONFIG_DIR` or `HOME` says, is relative, and the current directory is gone.
    #[error("the configuration is in {path}, and the current directory does not exist any more")]
    NoCurrentDirectory {
        /// The directory.
        path: PathBuf,
    },
}

const CONFIG_FILE: &str = "config.toml";

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
        Self::discover_on(cfg!(target_os = "macos"), environment)
    }

    fn discover_on(macos: bool, environment: &Environment) -> Result<Self, PathsError> {
        let dotted = environment.home.as_ref().map(|home| home.join(".config/fusion"));
        // A link counts, also one that leads nowhere: that is worth an error, not another place.
        let in_use = |directory: &PathBuf| directory.join(CONFIG_FILE).symlink_metadata().is_ok();
        let directory = environment
            .config_dir
            .clone()
            .or_else(|| dotted.filter(|directory| macos && in_use(directory)))
            .or_else(|| environment.platform_config_dir.as_ref().map(|base| base.join("fusion")))
            .ok_or(PathsError::NoHome)?;
        match &environment.current_dir {
            _ if directory.is_absolute() => Ok(Self { directory }),
            Some(current) => Ok(Self { directory: current.join(directory) }),
            None => Err(PathsError::NoCurrentDirectory { path: directory }),
        }
    }

    /// The directory that holds everything.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The configuration file. Beside it lie `config.lock`, held by whoever changes it, `config.toml.new` during a
    /// change, a `config.edit.*.toml` for each editor, and `config.toml.1.bak`, `.2.bak` ... from each reset.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join(CONFIG_FILE)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(home: &Path) -> Environment {
        Environment {
            home: Some(home.to_owned()),
            platform_config_dir: Some(home.join("platform")),
            current_dir: Some("/project".into()),
            ..Environment::default()
        }
    }

    fn directory(macos: bool, environment: &Environment) -> PathBuf {
        Paths::discover_on(macos, environment).unwrap().directory
    }

    #[test]
    fn an_existing_file_below_dot_config_is_used_on_macos_only() {
        let home = tempfile::tempdir().unwrap();
        let environment = environment(home.path());
        let platform = home.path().join("platform/fusion");
        assert_eq!(directory(true, &environment), platform);
        let dotted = home.path().join(".config/fusion");
        std::fs::create_dir_all(&dotted).unwrap();
        assert_eq!(directory(true, &environment), platform, "a directory without the file");
        std::os::unix::fs::symlink("nowhere", dotted.join("config.toml")).unwrap();
        assert_eq!(directory(true, &environment), dotted);
        assert_eq!(directory(false, &environment), platform);
        let elsewhere = Environment { config_dir: Some("/elsewhere".into()), ..environment };
        assert_eq!(directory(true, &elsewhere), Path::new("/elsewhere"));
    }

    #[test]
    fn no_home_at_all_is_an_error() {
        let nowhere = Environment { current_dir: Some("/project".into()), ..Environment::default() };
        assert!(matches!(Paths::discover(&nowhere), Err(PathsError::NoHome)));
    }

    #[test]
    fn a_relative_directory_is_below_the_current_one() {
        let relative = Environment { config_dir: Some("here".into()), ..environment(Path::new("/home/me")) };
        assert_eq!(directory(false, &relative), Path::new("/project/here"));
        assert_eq!(directory(false, &environment(Path::new("me"))), Path::new("/project/me/platform/fusion"));
        let gone = Environment { current_dir: None, ..relative };
        assert!(matches!(Paths::discover(&gone), Err(PathsError::NoCurrentDirectory { .. })));
    }
}
