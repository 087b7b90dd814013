//! Fusion's own installation of a runtime: makes, upgrades and removes it.
//!
//! It is the directory `<data dir>/runtimes/<runtime>/`: one numbered directory for each attempt, and
//! `installed.json`, which names the current one and is written last. An interrupted attempt therefore never looks
//! like an installation, and a failed upgrade leaves the old one intact.

mod check;
mod error;
mod python;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::core::cancel::CancelToken;
use crate::core::events::{EventBus, EventKind};
use crate::core::executables::on_path;
use crate::core::files;
use crate::core::helper::{Helper, HelperOutput};
use crate::core::json_object;
use crate::core::machine::{self, Mac};
use crate::core::paths::ServicePaths;
use crate::core::process::{Place, ProcessDriver};
use crate::core::programs::installed::{Installation, MANIFEST, Manifest, package_version};
use crate::core::runtimes::{InstallMethod, PythonPackage, Runtime};
use crate::core::services::lock::ServiceLock;
use crate::core::services::record::Record;

pub use self::error::InstallError;

/// How often an installing program is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The result of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallOutcome {
    /// The program was installed before.
    Already(Installation),
    /// The program was installed now.
    Made {
        /// The new installation.
        now: Installation,
        /// The version that it replaces.
        before: Option<String>,
    },
    /// Homebrew provides the program at this path.
    Homebrew(PathBuf),
}

/// Installs and removes the program of a runtime.
pub struct Installer<'a> {
    /// The service whose program it is.
    pub service: &'a Arc<str>,
    pub runtime: &'static dyn Runtime,
    pub paths: &'a ServicePaths,
    /// The directory of the installation.
    pub home: &'a Path,
    pub driver: &'a dyn ProcessDriver,
    /// The value of `PATH`.
    pub search: Option<&'a OsStr>,
    /// Destination of the output of installing programs.
    pub output: HelperOutput,
    pub cancel: &'a CancelToken,
    /// Receives each step before it begins.
    pub events: &'a EventBus,
}

impl Installer<'_> {
    /// Installs the program if it is missing; with `upgrade`, replaces an older version with the newest. `lock` is
    /// the lock of the service.
    pub fn install(&self, upgrade: bool, lock: &ServiceLock) -> Result<InstallOutcome, InstallError> {
        match self.runtime.install_method() {
            Some(InstallMethod::Python(package)) => self.install_package(&package, upgrade, lock),
            Some(InstallMethod::Homebrew { formula, manual }) => self.brew(formula, manual, upgrade, lock),
            None => Err(InstallError::NoMethod { program: self.runtime.program().to_owned() }),
        }
    }

    /// Removes fusion's own installation, complete or not. Returns whether there was one.
    pub fn uninstall(&self, _lock: &ServiceLock) -> Result<bool, InstallError> {
        let directory = self.home;
        if !directory.exists() {
            return Ok(false);
        }
        self.refuse_while_in_use()?;
        // The manifest goes first, so a partly removed installation does not look complete.
        files::remove(&directory.join(MANIFEST))?;
        remove_directory(directory)?;
        Ok(true)
    }

    fn install_package(
        &self,
        package: &PythonPackage,
        upgrade: bool,
        lock: &ServiceLock,
    ) -> Result<InstallOutcome, InstallError> {
        let home = self.home;
        // An unusable installation is replaced.
        let before = Installation::read(home, self.runtime).ok().flatten();
        if let Some(installation) = before.clone().filter(|_| !upgrade) {
            return Ok(InstallOutcome::Already(installation));
        }
        self.refuse_while_in_use()?;
        check_machine(package, machine::mac().as_ref())?;
        files::make_directory(home)?;
        let tool = python::Tool::find(package, self.search)?;
        let keep = before.as_ref().map(|before| before.directory.as_path());
        remove_attempts(home, keep)?;
        check_space(home, package.disk_bytes)?;

        let directory = free_name(home);
        let made = self.make(package, &tool, &directory, lock);
        if made.is_err() {
            // The error reports the failure; the next attempt removes the remains.
            let _ = remove_directory(&directory);
        }
        let now = made?;
        // The next attempt removes what cannot be removed now.
        let _ = remove_attempts(home, Some(&now.directory));
        Ok(InstallOutcome::Made { now, before: before.map(|before| before.version) })
    }

    /// Makes an environment in `directory`, checks that its server starts, and then declares it the installation.
    fn make(
        &self,
        package: &PythonPackage,
        tool: &python::Tool,
        directory: &Path,
        lock: &ServiceLock,
    ) -> Result<Installation, InstallError> {
        let requirement = package.requirement();
        self.installing(&requirement, tool.name(), Some(directory));
        let runs_any_python = matches!(tool, python::Tool::Uv(_));
        // Only macOS has this program.
        let managed = runs_any_python && python::lacks_developer_tools(Path::new("/usr/bin/xcode-select"));
        if managed {
            self.events.emit(self.service, EventKind::DeveloperToolsOffered);
        }
        for command in tool.commands(package, directory, managed) {
            self.run(command, self.home, lock)?;
        }
        self.events.emit(self.service, EventKind::CheckingInstallation);
        let manifest = Manifest {
            directory: directory.to_owned(),
            version: package_version(directory, package.name).unwrap_or_else(|| "unknown".to_owned()),
            requirement,
            installed_with: tool.name().to_owned(),
        };
        let installation = manifest.installation(self.home)?;
        let program = installation.program(self.runtime.program());
        check::starts(self.runtime, &program, self.home, self.cancel)?;
        let text = json_object::indented(&manifest).map_err(InstallError::Encode)? + "\n";
        files::replace(&self.home.join(MANIFEST), text.as_bytes())?;
        Ok(installation)
    }

    fn brew(
        &self,
        formula: &'static str,
        manual: &'static str,
        upgrade: bool,
        lock: &ServiceLock,
    ) -> Result<InstallOutcome, InstallError> {
        let program = self.runtime.program();
        let brew = on_path("brew", self.search);
        if let Some(found) = on_path(program, self.search) {
            if !upgrade {
                return Ok(InstallOutcome::Homebrew(found));
            }
            if !brew.as_ref().is_some_and(|brew| is_of_homebrew(brew, &found)) {
                return Err(InstallError::NotOfHomebrew { program: found });
            }
        }
        let brew = brew.ok_or(InstallError::ByHand { service: Arc::clone(self.service), manual })?;
        self.installing(formula, "brew", None);
        let mut command = Command::new(brew);
        command.args([if upgrade { "upgrade" } else { "install" }, formula]);
        self.run(command, &self.paths.directory, lock)?;
        on_path(program, self.search).map(InstallOutcome::Homebrew).ok_or(InstallError::NotOnPath { program })
    }

    fn installing(&self, what: &str, with: &str, directory: Option<&Path>) {
        let (what, with) = (what.to_owned(), with.to_owned());
        let kind = EventKind::Installing { what, with, directory: directory.map(Path::to_owned) };
        self.events.emit(self.service, kind);
    }

    /// Runs an installing program. It holds the lock as its standard input: if fusion is killed, no other command
    /// changes the files while the program still writes them.
    fn run(&self, mut command: Command, directory: &Path, lock: &ServiceLock) -> Result<(), InstallError> {
        let program: PathBuf = command.get_program().into();
        let cannot_run = |source| InstallError::Run { program: PathBuf::clone(&program), source };
        command.current_dir(directory).stdin(lock.share().map_err(cannot_run)?);
        let mut helper = Helper::start(&mut command, self.output.clone()).map_err(cannot_run)?;
        let status = helper.wait(POLL_INTERVAL, &mut || !self.cancel.is_cancelled()).map_err(cannot_run)?;
        match status.ok_or(InstallError::Cancelled)? {
            status if status.success() => Ok(()),
            status => {
                let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
                let command = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
                Err(InstallError::Failed { command, status, output: helper.last_lines() })
            }
        }
    }

    /// Fails while a server runs from the installation: it would fail at the next replaced file that it reads.
    fn refuse_while_in_use(&self) -> Result<(), InstallError> {
        let Some(record) = Record::read(&self.paths.state)? else { return Ok(()) };
        let from_here =
            record.command.first().is_some_and(|program| Path::new(program).starts_with(self.home));
        if !from_here {
            return Ok(());
        }
        if let Some(host) = record.host()
            && self.driver.host()?.place_of(host) == Place::Elsewhere
        {
            let (service, elsewhere) = (Arc::clone(self.service), record.elsewhere());
            return Err(InstallError::InUseElsewhere { service, elsewhere });
        }
        match self.driver.members(record.as_instance())?.first() {
            Some(member) => Err(InstallError::InUse { service: Arc::clone(self.service), pid: member.pid }),
            None => Ok(()),
        }
    }
}

/// Fails if the package is not made for this Mac.
pub fn check_machine(package: &PythonPackage, mac: Option<&Mac>) -> Result<(), InstallError> {
    match mac.and_then(|mac| package.refuses(mac)) {
        Some((needed, found)) => Err(InstallError::Machine { package: package.name, needed, found }),
        None => Ok(()),
    }
}

/// Returns whether Homebrew has installed a program: then the file is in its cellar.
fn is_of_homebrew(brew: &Path, program: &Path) -> bool {
    let cellar = brew.parent().and_then(Path::parent).map(|prefix| prefix.join("Cellar"));
    let real = |path: &Path| path.canonicalize().ok();
    match (cellar.and_then(|cellar| real(&cellar)), real(program)) {
        (Some(cellar), Some(program)) => program.starts_with(cellar),
        _ => false,
    }
}

/// Removes the directories of all attempts but `keep`.
fn remove_attempts(home: &Path, keep: Option<&Path>) -> Result<(), InstallError> {
    attempts(home).into_iter().filter(|path| keep != Some(path)).try_for_each(|path| remove_directory(&path))
}

/// Returns the directory of an interrupted attempt in `home`; `None` while one is running or after one has succeeded.
pub fn unfinished(home: &Path, runtime: &dyn Runtime) -> Option<PathBuf> {
    let whole = Installation::read(home, runtime).ok()?.map(|installation| installation.directory);
    attempts(home).into_iter().find(|path| whole.as_ref() != Some(path))
}

/// Returns the directories of all attempts in `home`, with the successful one.
fn attempts(home: &Path) -> Vec<PathBuf> {
    let mut attempts = files::entries(home);
    attempts.retain(|path| attempt_number(path).is_some());
    attempts
}

fn attempt_number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Returns the directory for the next attempt. Environments contain their own absolute path, so none can be moved
/// later.
fn free_name(home: &Path) -> PathBuf {
    let last = attempts(home).iter().filter_map(|path| attempt_number(path)).max().unwrap_or(0);
    home.join(last.saturating_add(1).to_string())
}

fn remove_directory(path: &Path) -> Result<(), InstallError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(InstallError::Remove { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn check_space(directory: &Path, needed: u64) -> Result<(), InstallError> {
    let available = machine::free_space(directory)
        .map_err(|source| InstallError::Disk { directory: directory.to_owned(), source })?;
    if available < needed {
        return Err(InstallError::NoSpace { directory: directory.to_owned(), available, needed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_is_noticed_before_installation() {
        let directory = tempfile::tempdir().unwrap();
        check_space(directory.path(), 0).unwrap();
        let error = check_space(directory.path(), u64::MAX).unwrap_err();
        let InstallError::NoSpace { available, .. } = &error else { panic!("{error}") };
        assert!(*available < u64::MAX);
        assert!(error.to_string().ends_with("and 18446744073709 MB are needed"), "{error}");
    }

    #[test]
    fn a_program_is_of_homebrew_by_its_cellar() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for directory in ["brew/bin", "brew/Cellar/ollama/0.17/bin", "Applications/Ollama.app"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        for file in ["brew/bin/brew", "brew/Cellar/ollama/0.17/bin/ollama", "Applications/Ollama.app/ollama"]
        {
            std::fs::write(at(file), "").unwrap();
        }
        let link = at("brew/bin/ollama");
        std::os::unix::fs::symlink(at("brew/Cellar/ollama/0.17/bin/ollama"), &link).unwrap();
        assert!(is_of_homebrew(&at("brew/bin/brew"), &link));
        std::fs::remove_file(&link).unwrap();
        // Both have their link in /usr/local/bin on an Intel Mac.
        std::os::unix::fs::symlink(at("Applications/Ollama.app/ollama"), &link).unwrap();
        assert!(!is_of_homebrew(&at("brew/bin/brew"), &link));
    }

    #[test]
    fn every_attempt_gets_new_name() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(free_name(home.path()), home.path().join("1"));
        for name in ["2", "9", "other"] {
            std::fs::create_dir(home.path().join(name)).unwrap();
        }
        assert_eq!(free_name(home.path()), home.path().join("10"));
        remove_attempts(home.path(), Some(&home.path().join("9"))).unwrap();
        assert!(home.path().join("9").exists() && home.path().join("other").exists());
        assert!(!home.path().join("2").exists());
    }
}
