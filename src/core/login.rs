//! Starts a service at login: gives a job to the system's service manager (systemd on Linux, launchd on macOS), and
//! takes it back.

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

/// The system's service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginManager {
    /// The systemd instance of the user.
    Systemd,
    /// The launchd instance of the user.
    Launchd,
}

/// A job that starts a service at login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub service: String,
    pub display_name: String,
    /// The path of fusion.
    pub fusion: PathBuf,
    /// Its environment variables: a manager does not have those of the user's shell.
    pub environment: Vec<(String, String)>,
    /// The file for fusion's output at login, for managers without a journal.
    pub log: PathBuf,
}

/// The directories of this user's jobs.
#[derive(Debug, Clone)]
pub struct Places {
    pub home: PathBuf,
    pub config: PathBuf,
    /// The user id.
    pub user: u32,
}

/// One step of `enable` or `disable`, in the order of the steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginStep {
    Wrote(PathBuf),
    Removed(PathBuf),
    /// A command succeeded.
    Ran(String),
}

/// Why a job was not enabled or disabled.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The manager's command is not on `PATH`.
    #[error("there is no {program} on PATH")]
    NoManager { program: &'static str },
    /// The job's file exists, and fusion did not write it.
    #[error("{path} was not written by fusion")]
    Foreign { path: PathBuf },
    /// A path that is not UTF-8 cannot be written into the job's file.
    #[error("{path} is not text")]
    NotText { path: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot run {program}")]
    Run { program: PathBuf, source: std::io::Error },
    /// The manager's command failed.
    #[error("`{command}` failed: {output}")]
    Refused {
        command: String,
        /// The last line of its output.
        output: String,
    },
}

/// A text near the beginning of every job's file: fusion replaces and removes only files with it.
const MARK: &str = "Written by `fusion";

/// Number of bytes that are searched for `MARK`.
const HEAD_BYTES: u64 = 4096;

impl LoginManager {
    /// Returns the manager of this platform.
    pub fn native() -> Self {
        if cfg!(target_os = "macos") { Self::Launchd } else { Self::Systemd }
    }

    /// Returns the path of the job's file.
    pub fn file(self, service: &str, places: &Places) -> PathBuf {
        match self {
            Self::Systemd => places.config.join("systemd/user").join(systemd::unit_name(service)),
            Self::Launchd => {
                places.home.join("Library/LaunchAgents").join(format!("{}.plist", launchd::label(service)))
            }
        }
    }

    /// Returns the content of the job's file.
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

    /// Returns the commands that run after the file was written.
    fn load(self, service: &str, file: &str, user: u32) -> Vec<Order> {
        match self {
            Self::Systemd => systemd::load(service),
            Self::Launchd => launchd::load(service, file, user),
        }
    }

    /// Returns the commands that run before and after the file is removed.
    fn unload(self, service: &str, user: u32) -> (Vec<Order>, Vec<Order>) {
        match self {
            Self::Systemd => systemd::unload(service),
            Self::Launchd => launchd::unload(service, user),
        }
    }
}

/// The arguments of one command of the manager.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    arguments: Vec<String>,
    /// Whether the command may fail, because there may be nothing to do.
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

/// Returns whether fusion has enabled the job of `service`.
pub fn is_enabled(manager: LoginManager, service: &str, places: &Places) -> bool {
    own_file(&manager.file(service, places)).unwrap_or(false)
}

/// Writes the job's file over an older one of fusion, and makes the manager load it, which also starts the service.
/// Removes the file if the manager fails. `search` is the value of `PATH`.
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
        // Without the file nothing starts at the next login, even if the manager loaded it.
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    Ok(steps)
}

/// Makes the manager unload the job, and removes its file; the service keeps running. Succeeds if there is no job.
pub fn disable(
    manager: LoginManager,
    service: &str,
    places: &Places,
    search: Option<&OsStr>,
) -> Result<Vec<LoginStep>, LoginError> {
    let path = manager.file(service, places);
    let mut steps = Vec::new();
    if own_file(&path)? {
        let program = find_program(manager, search)?;
        let (before, after) = manager.unload(service, places.user);
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

/// Returns whether there is a file. Fails if fusion did not write it.
fn own_file(path: &Path) -> Result<bool, LoginError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(FileError::io("open", path))?,
    };
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).map_err(FileError::io("read", path))?;
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
        let message = printed.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        return Err(LoginError::Refused { command, output: message.trim().to_owned() });
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
    fn enable_loads_and_disable_removes() {
        for manager in [LoginManager::Systemd, LoginManager::Launchd] {
            let desk = Desk::new(manager, "");
            let file = manager.file("mlx", &desk.places);
            assert!(!is_enabled(manager, "mlx", &desk.places));

            let steps = desk.enable(manager).unwrap();
            assert_eq!(steps[0], LoginStep::Wrote(file.clone()));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), manager.text(&job()).unwrap());
            assert!(is_enabled(manager, "mlx", &desk.places));

            // A second `enable` replaces the file.
            desk.enable(manager).unwrap();

            let steps = desk.disable(manager).unwrap();
            assert!(steps.contains(&LoginStep::Removed(file.clone())));
            assert!(!file.exists());
            assert_eq!(desk.disable(manager).unwrap(), []);
        }
    }

    #[test]
    fn systemd_commands_run_in_order() {
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
    fn failing_manager_leaves_no_file() {
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
    fn enable_ignores_agent_that_is_not_loaded() {
        let desk = Desk::new(LoginManager::Launchd, "case $1 in bootout) exit 3 ;; esac");
        desk.enable(LoginManager::Launchd).unwrap();
        desk.disable(LoginManager::Launchd).unwrap();
    }

    #[test]
    fn file_without_mark_stays() {
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
    fn nothing_is_written_without_manager() {
        let desk = Desk::new(LoginManager::Launchd, "");
        let error = desk.enable(LoginManager::Systemd).unwrap_err();
        assert_eq!(error.to_string(), "there is no systemctl on PATH");
        assert!(!LoginManager::Systemd.file("mlx", &desk.places).exists());
    }
}
