//! Starts a service at login: gives a job to the system's service manager (systemd on Linux, launchd on macOS), and
//! takes it back.

mod launchd;
mod session;
mod systemd;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

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
    /// There is no graphical session, so the job belongs to the user's background session.
    InBackground,
    /// The manager cannot open the job's log or directory.
    CannotOpen,
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
        /// The exit code of the command; `None` after a signal.
        code: Option<i32>,
        /// The line of its output that names the reason.
        output: String,
    },
}

/// A text near the beginning of every job's file: fusion replaces and removes only files with it.
const MARK: &str = "Written by `fusion";

/// Number of bytes that are searched for `MARK`.
const HEAD_BYTES: u64 = 4096;

/// Number of attempts of a command whose failure may pass.
const ATTEMPTS: u32 = 3;

/// Time between two attempts.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(500);

/// How long a manager may take to unload a job.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two looks at a job that is being unloaded.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

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

    /// Returns the file for fusion's output at login: in `directory`, the service's own, unless the manager may be unable
    /// to write there.
    pub fn log(self, service: &str, directory: &Path, places: &Places) -> PathBuf {
        match self {
            Self::Systemd => directory.join("login.log"),
            Self::Launchd => places.home.join(launchd::LOGS).join(format!("{service}.log")),
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

    /// Returns whether the manager's jobs may be unable to read what is at `path`.
    pub fn may_refuse(self, path: &Path, home: &Path) -> bool {
        self == Self::Launchd && launchd::may_refuse(path, home)
    }

    fn program(self) -> &'static str {
        match self {
            Self::Systemd => "systemctl",
            Self::Launchd => "launchctl",
        }
    }

    /// Returns the kinds of session that may have the job, the best first.
    fn domains(self) -> &'static [&'static str] {
        match self {
            Self::Systemd => &[""],
            Self::Launchd => &launchd::DOMAINS,
        }
    }

    /// Returns whether a command failed because there is no session of that kind, which launchd also tells with the code
    /// of an agent that is being unloaded.
    fn lacks_domain(self, program: &Path, error: &LoginError, domain: &str, user: u32) -> bool {
        let LoginError::Refused { code: Some(code), .. } = error else { return false };
        let is_there = || {
            let order = Order::new(&["print", &format!("{domain}/{user}")]);
            execute(program, &order).is_ok_and(|output| output.status.success())
        };
        self == Self::Launchd
            && (launchd::NO_DOMAIN.contains(code) || (launchd::STILL_UNLOADING.contains(code) && !is_there()))
    }

    /// Returns the commands that run after the file was written.
    fn load(self, service: &str, file: &str, domain: &str, user: u32) -> Vec<Order> {
        match self {
            Self::Systemd => systemd::load(service),
            Self::Launchd => launchd::load(service, file, domain, user),
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
    on_failure: OnFailure,
}

/// The meaning of a failed command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    Stop,
    /// There may be nothing to do.
    GoOn,
    /// With one of these exit codes the command may succeed a moment later.
    TryAgain(&'static [i32]),
    /// The command asks for something that is about to go away, and fails when it has.
    Expected,
}

impl Order {
    fn new(arguments: &[&str]) -> Self {
        Self { arguments: arguments.iter().map(ToString::to_string).collect(), on_failure: OnFailure::Stop }
    }

    fn may_fail(arguments: &[&str]) -> Self {
        Self { on_failure: OnFailure::GoOn, ..Self::new(arguments) }
    }
}

/// Returns whether the user has switched an enabled job off in the system's settings.
pub fn is_switched_off(
    manager: LoginManager,
    service: &str,
    places: &Places,
    search: Option<&OsStr>,
) -> bool {
    let printed = |domain: &str| {
        let program = on_path(manager.program(), search)?;
        let order = Order::new(&["print-disabled", &format!("{domain}/{}", places.user)]);
        Some(String::from_utf8_lossy(&execute(&program, &order).ok()?.stdout).into_owned())
    };
    manager == LoginManager::Launchd
        && launchd::DOMAINS
            .iter()
            .any(|domain| printed(domain).is_some_and(|printed| launchd::is_switched_off(&printed, service)))
}

/// Returns whether fusion has enabled the job of `service`.
pub fn is_enabled(manager: LoginManager, service: &str, places: &Places) -> bool {
    own_file(&manager.file(service, places)).unwrap_or(false)
}

/// Writes the job's file over an older one of fusion, and makes the manager load it, which also starts the service.
/// Puts the older file back if the manager fails. `search` is the value of `PATH`.
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
    let older = if own_file(&path)? {
        Some(std::fs::read(&path).map_err(FileError::io("read", &path))?)
    } else {
        None
    };
    // A manager that cannot open the log does not start the job, and says nothing.
    for file in [&path, &job.log] {
        files::make_directory(file.parent().unwrap_or(Path::new("/")))?;
    }
    files::replace(&path, text.as_bytes())?;
    let mut steps = vec![LoginStep::Wrote(path.clone())];
    if let Err(error) = load(manager, &program, &job.service, file, places.user, &mut steps) {
        match older {
            Some(text) => files::replace(&path, &text)?,
            // Without the file nothing starts at the next login, even if the manager loaded it.
            None => files::remove(&path)?,
        }
        return Err(error);
    }
    Ok(steps)
}

/// Makes the manager load the file for the first kind of session that there is.
fn load(
    manager: LoginManager,
    program: &Path,
    service: &str,
    file: &str,
    user: u32,
    steps: &mut Vec<LoginStep>,
) -> Result<(), LoginError> {
    let mut loaded = Ok(());
    for (index, domain) in manager.domains().iter().enumerate() {
        loaded = run_all(program, &manager.load(service, file, domain, user), steps);
        if matches!(&loaded, Err(error) if manager.lacks_domain(program, error, domain, user)) {
            continue;
        }
        if loaded.is_ok() && index > 0 {
            steps.push(LoginStep::InBackground);
        }
        if loaded.is_ok() && manager == LoginManager::Launchd {
            let order = Order::new(&["print", &launchd::target(service, domain, user)]);
            let printed = execute(program, &order)?.stdout;
            let failed = launchd::could_not_open(&String::from_utf8_lossy(&printed));
            steps.extend(failed.then_some(LoginStep::CannotOpen));
        }
        break;
    }
    loaded
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
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let command = format!("{name} {}", order.arguments.join(" "));
    let mut output = execute(program, order)?;
    match order.on_failure {
        OnFailure::Stop | OnFailure::GoOn => {}
        OnFailure::TryAgain(codes) => {
            for _ in 1..ATTEMPTS {
                if !output.status.code().is_some_and(|code| codes.contains(&code)) {
                    break;
                }
                thread::sleep(ATTEMPT_INTERVAL);
                output = execute(program, order)?;
            }
        }
        OnFailure::Expected => {
            let deadline = Instant::now() + UNLOAD_TIMEOUT;
            while output.status.success() && Instant::now() < deadline {
                thread::sleep(POLL_INTERVAL);
                output = execute(program, order)?;
            }
            return Ok(());
        }
    }
    if output.status.success() {
        steps.push(LoginStep::Ran(command));
    } else if order.on_failure != OnFailure::GoOn {
        let printed = [output.stdout, output.stderr].concat();
        let output_line = reason(&String::from_utf8_lossy(&printed));
        return Err(LoginError::Refused { command, code: output.status.code(), output: output_line });
    }
    Ok(())
}

fn execute(program: &Path, order: &Order) -> Result<Output, LoginError> {
    let mut command = Command::new(program);
    command.args(&order.arguments).stdin(Stdio::null());
    command.output().map_err(|source| LoginError::Run { program: program.to_owned(), source })
}

/// Returns the line that names the reason: the last one, without the advice with which launchctl ends.
fn reason(printed: &str) -> String {
    let is_advice =
        |line: &&str| line.trim().is_empty() || line.starts_with("Try re-running the command as root");
    let line = printed.lines().rev().find(|line| !is_advice(line)).unwrap_or("no reason given");
    line.trim().to_owned()
}
