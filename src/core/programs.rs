//! Finds a runtime's program: `command` in the configuration, fusion's own installation, then `PATH`.

pub mod installed;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub use self::installed::{Installation, InstallationError};
use crate::core::config::ServerSettings;
use crate::core::executables::on_path;
use crate::core::paths::Paths;
use crate::core::runtimes::{InstallMethod, Runtime};

/// Returns the macOS application that runs a server of its own for the runtime; `roots` hold the directories of
/// applications.
pub fn application(runtime: Option<&dyn Runtime>, roots: &[&Path]) -> Option<PathBuf> {
    let name = runtime?.application()?;
    roots.iter().map(|root| root.join("Applications").join(name)).find(|path| path.exists())
}

/// The program that starts a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    /// The arguments that make it a server: those of `command` in the configuration, else the runtime's own.
    pub args: Vec<String>,
    pub source: Source,
}

/// Where the program was found, in the order of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `command` in the configuration.
    Configuration,
    Installation,
    /// The first match on `PATH`.
    Path,
}

/// Why the program was not found.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The program is nowhere.
    #[error("{service} is not installed: no {program} on PATH")]
    NotInstalled { service: String, program: String },
    /// The program that the configuration names does not exist.
    #[error("there is no program {program}, which {key} names")]
    CommandMissing {
        /// The key of the configuration.
        key: String,
        /// The program in the configuration.
        program: String,
    },
    /// The program that a template names does not exist.
    #[error("there is no program {program}, which the template {template} of {service} names")]
    OfTemplate { service: String, program: String, template: String },
    /// Fusion's own installation is unusable.
    #[error("the installation of {service} cannot be used")]
    Installation {
        service: String,
        /// Why it is unusable.
        source: InstallationError,
    },
}

impl ProgramError {
    /// Returns whether an installation can help: a wrong `command` is corrected in the configuration instead.
    pub fn is_installable(&self) -> bool {
        !matches!(self, Self::CommandMissing { .. } | Self::OfTemplate { .. })
    }
}

/// Finds the program of `service`, whose runtime is `runtime`. `search` is the value of `PATH`.
pub fn find(
    service: &str,
    runtime: &dyn Runtime,
    server: &ServerSettings,
    paths: &Paths,
    search: Option<&OsStr>,
) -> Result<Program, ProgramError> {
    if let Some((program, args)) = server.command.as_ref().and_then(|command| command.split_first()) {
        let is_built_in = service == runtime.name();
        let table = if is_built_in { format!("{service}_server") } else { format!("instances.{service}") };
        let key = format!("{table}.command");
        return configured(key, program, args, paths, search);
    }
    let installation = Installation::read(&paths.installation(runtime.name()), runtime)
        .map_err(|source| ProgramError::Installation { service: service.to_owned(), source })?;
    let own = |path, source| {
        let args = runtime.program_args().iter().map(ToString::to_string).collect();
        Program { path, args, source }
    };
    if let Some(installation) = installation {
        return Ok(own(installation.program(runtime.program()), Source::Installation));
    }
    on_path(runtime.program(), search).map(|path| own(path, Source::Path)).ok_or_else(|| {
        ProgramError::NotInstalled { service: service.to_owned(), program: runtime.program().to_owned() }
    })
}

/// Finds the program of a template: a plain name on `PATH`, a relative path from the working directory.
pub fn of_template(program: &str, working_dir: Option<&Path>, search: Option<&OsStr>) -> Option<PathBuf> {
    if !program.contains('/') {
        return on_path(program, search);
    }
    let path = working_dir.map_or_else(|| PathBuf::from(program), |directory| directory.join(program));
    Some(path).filter(|path| path.exists())
}

/// Finds the configured program: a plain name on `PATH`, a relative path from the configuration directory.
fn configured(
    key: String,
    program: &str,
    args: &[String],
    paths: &Paths,
    search: Option<&OsStr>,
) -> Result<Program, ProgramError> {
    let path = if program.contains('/') {
        Some(paths.directory().join(program)).filter(|path| path.exists())
    } else {
        on_path(program, search)
    };
    let path = path.ok_or_else(|| ProgramError::CommandMissing { key, program: program.to_owned() })?;
    Ok(Program { path, args: args.to_vec(), source: Source::Configuration })
}

/// Returns the version of a program from a Python package, read from its environment. `None` if only running the
/// program would show it.
pub fn version(runtime: &dyn Runtime, program: &Program) -> Option<String> {
    let Some(InstallMethod::Python(package)) = runtime.install_method() else { return None };
    let program = program.path.canonicalize().ok()?;
    installed::package_version(program.parent()?.parent()?, package.name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::core::config::ServiceSettings;
    use crate::core::runtimes::{self, TABLE};
    use crate::env::Environment;

    /// A configuration directory, a directory on `PATH`, and a runtime that is a Python package.
    struct Directories {
        _root: tempfile::TempDir,
        paths: Paths,
        bin: PathBuf,
        runtime: &'static dyn Runtime,
    }

    impl Directories {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let config_dir = Some(root.path().join("config"));
            let paths = Paths::discover(&Environment { config_dir, ..Environment::default() }).unwrap();
            let bin = root.path().join("environment/bin");
            std::fs::create_dir_all(&bin).unwrap();
            Self { bin, paths, runtime: runtimes::find(TABLE, "mlx").unwrap(), _root: root }
        }

        fn executable(path: &Path) -> PathBuf {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.to_owned()
        }

        fn on_path(&self) -> PathBuf {
            Self::executable(&self.bin.join(self.runtime.program()))
        }

        fn installed(&self) -> PathBuf {
            let directory = self.paths.installation(self.runtime.name());
            let program = Self::executable(&directory.join("1/bin").join(self.runtime.program()));
            Self::executable(&directory.join("1/bin/python"));
            let manifest = serde_json::json!({
                "directory": directory.join("1"),
                "version": "0.32.2",
                "requirement": "mlx-lm",
                "installed_with": "uv",
            });
            std::fs::write(directory.join("installed.json"), manifest.to_string()).unwrap();
            program
        }

        fn find(&self, command: Option<&[&str]>) -> Result<Program, ProgramError> {
            let mut server = ServiceSettings::default_for(self.runtime).server;
            server.command = command.map(|words| words.iter().map(ToString::to_string).collect());
            find("mlx", self.runtime, &server, &self.paths, Some(self.bin.as_os_str()))
        }
    }

    #[test]
    fn command_precedes_installation_precedes_path() {
        let machine = Directories::new();
        assert_eq!(
            machine.find(None).unwrap_err().to_string(),
            "mlx is not installed: no mlx_lm.server on PATH"
        );

        let on_path = machine.on_path();
        let found = machine.find(None).unwrap();
        assert_eq!((found.path, found.source), (on_path, Source::Path));

        let installed = machine.installed();
        let found = machine.find(None).unwrap();
        assert_eq!((found.path, found.source), (installed, Source::Installation));

        let own = Directories::executable(&machine.bin.join("own-server"));
        let found = machine.find(Some(&["own-server", "--fast"])).unwrap();
        assert_eq!((found.path, found.source), (own, Source::Configuration));
        assert_eq!(found.args, ["--fast"]);
    }

    #[test]
    fn relative_command_starts_at_configuration_directory() {
        let machine = Directories::new();
        let own = Directories::executable(&machine.paths.directory().join("servers/own"));
        assert_eq!(machine.find(Some(&["servers/own"])).unwrap().path, own);
        assert_eq!(
            machine.find(Some(&["servers/other"])).unwrap_err().to_string(),
            "there is no program servers/other, which mlx_server.command names"
        );
    }

    #[test]
    fn program_must_be_executable() {
        let machine = Directories::new();
        std::fs::write(machine.bin.join(machine.runtime.program()), "text").unwrap();
        assert!(matches!(machine.find(None), Err(ProgramError::NotInstalled { .. })));
    }

    #[test]
    fn version_of_python_program_is_read() {
        let machine = Directories::new();
        machine.on_path();
        let found = machine.find(None).unwrap();
        assert_eq!(version(machine.runtime, &found), None);
        let packages = machine.bin.join("../lib/python3.12/site-packages/mlx_lm-0.31.3.dist-info");
        std::fs::create_dir_all(packages).unwrap();
        assert_eq!(version(machine.runtime, &found).as_deref(), Some("0.31.3"));
    }

    #[test]
    fn installation_without_python_is_error() {
        let machine = Directories::new();
        let python = machine.installed().with_file_name("python");
        std::fs::remove_file(&python).unwrap();
        std::os::unix::fs::symlink("/nowhere/python3", &python).unwrap();
        assert!(matches!(machine.find(None), Err(ProgramError::Installation { .. })));
    }

    #[test]
    fn moved_installation_is_error_and_link_not() {
        let mut machine = Directories::new();
        machine.installed();
        let (old, new) = (machine.paths.directory().to_owned(), machine.bin.join("../../new"));
        std::fs::rename(&old, &new).unwrap();
        let config_dir = Some(new.clone());
        machine.paths = Paths::discover(&Environment { config_dir, ..Environment::default() }).unwrap();
        let Err(ProgramError::Installation { source, .. }) = machine.find(None) else {
            panic!("it was found")
        };
        let made = old.join("data/runtimes/mlx/1");
        assert_eq!(source.to_string(), format!("it was made in {}, and works nowhere else", made.display()));
        std::os::unix::fs::symlink(&new, &old).unwrap();
        assert_eq!(machine.find(None).unwrap().source, Source::Installation);
    }

    #[test]
    fn installation_without_program_is_error() {
        let machine = Directories::new();
        machine.on_path();
        std::fs::remove_file(machine.installed()).unwrap();
        assert!(matches!(machine.find(None), Err(ProgramError::Installation { .. })));
    }
}
