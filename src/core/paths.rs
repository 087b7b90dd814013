//! The paths of all files and directories that fusion uses.

use std::path::{Path, PathBuf};

use crate::env::Environment;

/// Why there is no configuration directory.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// Neither `FUSION_CONFIG_DIR` nor a home directory is set.
    #[error("no home directory, so no place for the configuration")]
    NoHome,
    /// `FUSION_CONFIG_DIR` or `HOME` is relative, and the current directory was deleted.
    #[error("the configuration is in {path}, and the current directory was deleted")]
    NoCurrentDirectory {
        /// The directory.
        path: PathBuf,
    },
}

const CONFIG_FILE: &str = "config.toml";

/// The configuration directory, the data directory, and their files.
#[derive(Debug, Clone)]
pub struct Paths {
    directory: PathBuf,
    data: PathBuf,
}

/// The files of one service, all in `<config dir>/<service>/`.
#[derive(Debug, Clone)]
pub struct ServicePaths {
    /// The directory of all the others.
    pub directory: PathBuf,
    /// The record of the started process. It counts only if the kernel confirms it.
    pub state: PathBuf,
    /// A copy of the PID for scripts; fusion does not use it.
    pub pid: PathBuf,
    /// The output of the server; older logs have `.1`, `.2` ... appended.
    pub log: PathBuf,
    /// The port that fusion chose for it, where the configuration says none.
    pub port: PathBuf,
    /// The lock of every command that changes the service.
    pub lock: PathBuf,
    /// Locked by those who use the server: the gateway does not stop it meanwhile.
    pub in_use: PathBuf,
}

impl Paths {
    /// Returns the paths below `FUSION_CONFIG_DIR`, else below `~/.config/fusion` if it has a `config.toml` on macOS,
    /// else below the platform's configuration directory. The data directory is `data` below `FUSION_CONFIG_DIR`, else
    /// the platform's. All paths are absolute.
    pub fn discover(environment: &Environment) -> Result<Self, PathsError> {
        Self::discover_on(cfg!(target_os = "macos"), environment)
    }

    fn discover_on(macos: bool, environment: &Environment) -> Result<Self, PathsError> {
        let dotted = environment.home.as_ref().map(|home| home.join(".config/fusion"));
        // A dangling link counts, too: it deserves an error rather than another directory.
        let in_use = |directory: &PathBuf| directory.join(CONFIG_FILE).symlink_metadata().is_ok();
        let directory = environment
            .config_dir
            .clone()
            .or_else(|| dotted.filter(|directory| macos && in_use(directory)))
            .or_else(|| environment.platform_config_dir.as_ref().map(|base| base.join("fusion")))
            .ok_or(PathsError::NoHome)?;
        let data = match (&environment.config_dir, &environment.platform_data_dir) {
            (Some(directory), _) => directory.join("data"),
            (None, Some(base)) => base.join("fusion"),
            (None, None) => return Err(PathsError::NoHome),
        };
        let absolute = |path: PathBuf| match &environment.current_dir {
            _ if path.is_absolute() => Ok(path),
            Some(current) => Ok(current.join(path)),
            None => Err(PathsError::NoCurrentDirectory { path }),
        };
        Ok(Self { directory: absolute(directory)?, data: absolute(data)? })
    }

    /// Returns the configuration directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the configuration file. Beside it are `config.lock`, the lock of those who change it,
    /// `config.toml.new` during a change, a `config.edit.*.toml` for each editor, and `config.toml.bak`,
    /// `config.toml.bak.1` ... from each reset.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join(CONFIG_FILE)
    }

    /// Returns the lock of every command that chooses the port of a service.
    pub fn ports_lock(&self) -> PathBuf {
        self.directory.join("ports.lock")
    }

    /// Returns the directory of everything that fusion installs.
    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// Returns the directory of fusion's own installation of a runtime, which all its services share.
    pub fn installation(&self, runtime: &str) -> PathBuf {
        self.data.join("runtimes").join(runtime)
    }

    /// Returns the directory of what coding agents are given, one directory each, and of what is known about them.
    pub fn agents(&self) -> PathBuf {
        self.data.join("agents")
    }

    /// Returns the directory of what the hub has answered lately.
    pub fn searches(&self) -> PathBuf {
        self.data.join("searches")
    }

    /// Returns the directory of the saved conversations.
    pub fn sessions(&self) -> PathBuf {
        self.data.join("sessions")
    }

    /// Returns the files of the service called `name`.
    pub fn service(&self, name: &str) -> ServicePaths {
        let directory = self.directory.join(name);
        ServicePaths {
            state: directory.join("state.json"),
            pid: directory.join(format!("{name}.pid")),
            log: directory.join(format!("{name}.log")),
            port: directory.join("port"),
            lock: directory.join("lock"),
            in_use: directory.join("in-use"),
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
            platform_data_dir: Some(home.join("share")),
            current_dir: Some("/project".into()),
            ..Environment::default()
        }
    }

    fn directory(macos: bool, environment: &Environment) -> PathBuf {
        Paths::discover_on(macos, environment).unwrap().directory
    }

    #[test]
    fn dot_config_is_used_on_macos_only() {
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
    fn installations_lie_in_data_directory() {
        let environment = environment(Path::new("/home/me"));
        let installation =
            |environment: &Environment| Paths::discover(environment).unwrap().installation("mlx");
        assert_eq!(installation(&environment), Path::new("/home/me/share/fusion/runtimes/mlx"));
        let configured = Environment { config_dir: Some("here".into()), ..environment };
        assert_eq!(installation(&configured), Path::new("/project/here/data/runtimes/mlx"));
    }

    #[test]
    fn a_missing_home_is_an_error() {
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
