//! Starting a runtime at login: what is handed to the system's own manager (systemd on Linux, launchd on macOS),
//! and handing it over and taking it back.

mod launchd;
mod session;
mod systemd;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use self::session::{Session, session};
use crate::core::executables::on_path;
use crate::core::files::{self, FileError};

/// What starts things at login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginManager {
    /// The user's own systemd.
    Systemd,
    /// The user's launchd.
    Launchd,
}

/// What is to be started at login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The name of the service.
    pub service: String,
    /// Its name in sentences.
    pub display_name: String,
    /// The program that starts it: fusion itself.
    pub fusion: PathBuf,
    /// The environment variables it needs; a manager has an environment of its own.
    pub environment: Vec<(String, String)>,
    /// Where what fusion says at login is kept, for managers without a journal.
    pub log: PathBuf,
}

/// Where this user's jobs lie.
#[derive(Debug, Clone)]
pub struct Places {
    /// The home directory.
    pub home: PathBuf,
    /// The platform's configuration directory.
    pub config: PathBuf,
    /// The user's number.
    pub user: u32,
}

/// What was done, in the order in which it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginStep {
    /// A file was written.
    Wrote(PathBuf),
    /// A file was removed.
    Removed(PathBuf),
    /// A command ran and succeeded.
    Ran(String),
}

/// Why a job could not be handed over or taken back.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The manager is not here.
    #[error("there is no {program} on PATH")]
    NoManager {
        /// The manager's command.
        program: &'static str,
    },
    /// The job's file is there and somebody else wrote it.
    #[error("{path} was not written by fusion")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A path cannot be written into the job's file.
    #[error("{path} is not text")]
    NotText {
        /// The path.
        path: PathBuf,
    },
    /// The job's file cannot be read, written or removed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The manager's command cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// The command's path.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manager refused.
    #[error("`{command}` failed: {output}")]
    Refused {
        /// The command line.
        command: String,
        /// The last line of what it printed.
        output: String,
    },
}

/// Near the beginning of every job's file, so that no other file is ever replaced or removed.
const MARK: &str = "Written by `fusion";

/// How much of a file is searched for that, in bytes.
const HEAD: u64 = 4096;

impl LoginManager {
    /// The one of this platform.
    pub fn native() -> Self {
        if cfg!(target_os = "macos") { Self::Launchd } else { Self::Systemd }
    }

    /// The file that describes the job of `runtime`.
    pub fn file(self, runtime: &str, places: &Places) -> PathBuf {
        match self {
            Self::Systemd => places.config.join("systemd/user").join(systemd::unit_name(runtime)),
            Self::Launchd => {
                places.home.join("Library/LaunchAgents").join(format!("{}.plist", launchd::label(runtime)))
            }
        }
    }

    /// The content of that file.
    pub fn text(self, job: &Job) -> Result<String, LoginError> {
        let fusion = job.fusion.to_str().ok_or_else(|| LoginError::NotText { path: job.fusion.clone() })?;
        match self {
            Self::Systemd => Ok(systemd::unit(job, fusion)),
            Self::Launchd => {
                let log = job.log.to_str().ok_or_else(|| LoginError::NotText { path: job.log.clone() })?;
                Ok(launchd::agent(job, fusion, log))
            }
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Systemd => "systemctl",
            Self::Launchd => "launchctl",
        }
    }

    /// The commands after the file was written.
    fn load(self, runtime: &str, file: &str, user: u32) -> Vec<Order> {
        match self {
            Self::Systemd => systemd::load(runtime),
            Self::Launchd => launchd::load(runtime, file, user),
        }
    }

    /// The commands before the file is removed, and those after it.
    fn unload(self, runtime: &str, user: u32) -> (Vec<Order>, Vec<Order>) {
        match self {
            Self::Systemd => systemd::unload(runtime),
            Self::Launchd => launchd::unload(runtime, user),
        }
    }
}

/// The arguments of one command to the manager.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    arguments: Vec<String>,
    /// Whether the manager may refuse, because there may be nothing to do.
    may_fail: bool,
}

impl Order {
    fn new(arguments: &[&str]) -> Self {
        Self { arguments: arguments.iter().map(ToString::to_string).collect(), may_fail: false }
    }

    fn may_fail(arguments: &[&str]) -> Self {
        Self { may_fail: true, ..Self::new(arguments) }
    }
}

/// Whether fusion handed over the job of `runtime`.
pub fn is_enabled(manager: LoginManager, runtime: &str, places: &Places) -> bool {
    own_file(&manager.file(runtime, places)).unwrap_or(false)
}

/// Writes the job's file, replacing an older one of fusion's own, and has the manager load it, which starts it now
/// too. A manager that refuses leaves no file behind. `search` is the value of `PATH`.
pub fn enable(
    manager: LoginManager,
    job: &Job,
    places: &Places,
    search: Option<&OsStr>,
) -> Result<Vec<LoginStep>, LoginError> {
    let program = find_program(manager, search)?;
    let path = manager.file(&job.service, places);
    let text = manager.text(job)?;
    let file = path.to_str().ok_or_else(|| LoginError::NotText { path: path.clone() })?;
    own_file(&path)?;
    files::make_directory(path.parent().unwrap_or(Path::new("/")))?;
    files::replace(&path, text.as_bytes())?;
    let mut steps = vec![LoginStep::Wrote(path.clone())];
    let loaded = run_all(&program, &manager.load(&job.service, file, places.user), &mut steps);
    if let Err(error) = loaded {
        // Whatever the manager did with the file, without it nothing starts at the next login.
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    Ok(steps)
}

/// Has the manager forget the job and removes its file; what it started runs on. Nothing to do is no error.
pub fn disable(
    manager: LoginManager,
    runtime: &str,
    places: &Places,
    search: Option<&OsStr>,
) -> Result<Vec<LoginStep>, LoginError> {
    let path = manager.file(runtime, places);
    let mut steps = Vec::new();
    if own_file(&path)? {
        let program = find_program(manager, search)?;
        let (before, after) = manager.unload(runtime, places.user);
        run_all(&program, &before, &mut steps)?;
        files::remove(&path)?;
        steps.push(LoginStep::Removed(path));
        run_all(&program, &after, &mut steps)?;
    }
    Ok(steps)
}

fn find_program(manager: LoginManager, search: Option<&OsStr>) -> Result<PathBuf, LoginError> {
    on_path(manager.program(), search).ok_or(LoginError::NoManager { program: manager.program() })
}

/// Whether there is a file, which then must be fusion's own.
fn own_file(path: &Path) -> Result<bool, LoginError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(FileError::io("open", path))?,
    };
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).map_err(FileError::io("read", path))?;
    if String::from_utf8_lossy(&head).contains(MARK) {
        Ok(true)
    } else {
        Err(LoginError::Foreign { path: path.to_owned() })
    }
}

fn run_all(program: &Path, orders: &[Order], steps: &mut Vec<LoginStep>) -> Result<(), LoginError> {
    orders.iter().try_for_each(|order| run(program, order, steps))
}

fn run(program: &Path, order: &Order, steps: &mut Vec<LoginStep>) -> Result<(), LoginError> {
    let output = Command::new(program)
        .args(&order.arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LoginError::Run { program: program.to_owned(), source })?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let command = format!("{name} {}", order.arguments.join(" "));
    if output.status.success() {
        steps.push(LoginStep::Ran(command));
    } else if !order.may_fail {
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        let said = printed.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        return Err(LoginError::Refused { command, output: said.trim().to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_programs::write_program;

    pub(super) fn job() -> Job {
        Job {
            service: "mlx".to_owned(),
            display_name: "MLX".to_owned(),
            fusion: PathBuf::from("/usr/bin/fusion"),
            environment: vec![
                ("PATH".to_owned(), "/usr/bin:/opt/100%".to_owned()),
                ("FUSION_CONFIG_DIR".to_owned(), "/home/a \"b\" & <c>".to_owned()),
            ],
            log: PathBuf::from("/config/mlx/login.log"),
        }
    }

    /// A home directory, and a manager's command that writes its arguments to `calls` and then runs `script`.
    struct Desk {
        root: tempfile::TempDir,
        places: Places,
    }

    impl Desk {
        fn new(manager: LoginManager, script: &str) -> Self {
            let root = tempfile::tempdir().unwrap();
            let home = root.path().join("home");
            let program = root.path().join(manager.program());
            let calls = root.path().join("calls");
            let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\n", calls.display());
            write_program(&program, &text);
            let places = Places { config: home.join(".config"), home, user: 501 };
            Self { root, places }
        }

        fn enable(&self, manager: LoginManager) -> Result<Vec<LoginStep>, LoginError> {
            enable(manager, &job(), &self.places, Some(self.root.path().as_os_str()))
        }

        fn disable(&self, manager: LoginManager) -> Result<Vec<LoginStep>, LoginError> {
            disable(manager, "mlx", &self.places, Some(self.root.path().as_os_str()))
        }

        fn calls(&self) -> String {
            std::fs::read_to_string(self.root.path().join("calls")).unwrap_or_default()
        }
    }

    #[test]
    fn enabling_writes_and_loads_and_disabling_unloads_and_removes() {
        for manager in [LoginManager::Systemd, LoginManager::Launchd] {
            let desk = Desk::new(manager, "");
            let file = manager.file("mlx", &desk.places);
            assert!(!is_enabled(manager, "mlx", &desk.places));

            let steps = desk.enable(manager).unwrap();
            assert_eq!(steps[0], LoginStep::Wrote(file.clone()));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), manager.text(&job()).unwrap());
            assert!(is_enabled(manager, "mlx", &desk.places));

            // Once more replaces it.
            desk.enable(manager).unwrap();

            let steps = desk.disable(manager).unwrap();
            assert!(steps.contains(&LoginStep::Removed(file.clone())));
            assert!(!file.exists());
            assert_eq!(desk.disable(manager).unwrap(), []);
        }
    }

    #[test]
    fn systemd_is_told_in_this_order() {
        let desk = Desk::new(LoginManager::Systemd, "");
        desk.enable(LoginManager::Systemd).unwrap();
        desk.disable(LoginManager::Systemd).unwrap();
        assert_eq!(
            desk.calls(),
            "--user daemon-reload\n\
             --user enable --now --no-block fusion-mlx.service\n\
             --user disable fusion-mlx.service\n\
             --user daemon-reload\n"
        );
    }

    #[test]
    fn a_manager_that_refuses_leaves_no_file_and_is_quoted() {
        let desk =
            Desk::new(LoginManager::Systemd, "echo 'Failed to connect to bus: No medium found' >&2; exit 1");
        let error = desk.enable(LoginManager::Systemd).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`systemctl --user daemon-reload` failed: Failed to connect to bus: No medium found"
        );
        assert!(!LoginManager::Systemd.file("mlx", &desk.places).exists());
    }

    #[test]
    fn an_agent_that_was_not_loaded_is_no_reason_to_fail() {
        let desk = Desk::new(LoginManager::Launchd, "case $1 in bootout) exit 3 ;; esac");
        desk.enable(LoginManager::Launchd).unwrap();
        desk.disable(LoginManager::Launchd).unwrap();
    }

    #[test]
    fn a_file_of_somebody_else_is_neither_replaced_nor_removed() {
        let desk = Desk::new(LoginManager::Systemd, "");
        let file = LoginManager::Systemd.file("mlx", &desk.places);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "[Unit]\n").unwrap();
        for result in [desk.enable(LoginManager::Systemd), desk.disable(LoginManager::Systemd)] {
            assert!(matches!(result, Err(LoginError::Foreign { path }) if path == file));
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "[Unit]\n");
        assert_eq!(desk.calls(), "");
    }

    #[test]
    fn without_a_manager_nothing_is_written() {
        let desk = Desk::new(LoginManager::Launchd, "");
        let error = desk.enable(LoginManager::Systemd).unwrap_err();
        assert_eq!(error.to_string(), "there is no systemctl on PATH");
        assert!(!LoginManager::Systemd.file("mlx", &desk.places).exists());
    }
}
