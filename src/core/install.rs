//! Fusion's own installation of a runtime: what it is, how it is made, replaced and removed.
//!
//! It lies in `<config dir>/<runtime>/runtime/`: one numbered directory for each attempt, and `installed.json`,
//! which names the one that counts and is written last. So an attempt that was interrupted never looks like an
//! installation, and an upgrade that fails leaves the old one as it was.

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
use crate::core::machine;
use crate::core::paths::RuntimePaths;
use crate::core::process::ProcessDriver;
use crate::core::programs::installed::{Installation, MANIFEST, Manifest, package_version};
use crate::core::runtimes::{InstallMethod, PythonPackage, Runtime};
use crate::core::services::lock::ServiceLock;
use crate::core::services::record::Record;

pub use self::error::InstallError;

/// How long between two looks at a program that installs.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What became of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallOutcome {
    /// It was there already.
    Already(Installation),
    /// Made now; `before` is the version that it replaces.
    Made {
        /// What is there now.
        now: Installation,
        /// The version that was there.
        before: Option<String>,
    },
    /// Homebrew has it: the program.
    Homebrew(PathBuf),
}

/// What it takes to install and to remove the program of a runtime.
pub struct Installer<'a> {
    /// The service for which it is installed.
    pub service: &'a Arc<str>,
    /// Its runtime.
    pub runtime: &'static dyn Runtime,
    /// Its files.
    pub paths: &'a RuntimePaths,
    /// The system's processes.
    pub driver: &'a dyn ProcessDriver,
    /// The value of `PATH`.
    pub search: Option<&'a OsStr>,
    /// Where what the installing programs print goes.
    pub output: HelperOutput,
    /// Asks the work to stop early.
    pub cancel: &'a CancelToken,
    /// Brings what is done to subscribers, before it is done.
    pub events: &'a EventBus,
}

impl Installer<'_> {
    /// Installs what is missing; with `upgrade`, also the newest version in place of an older one. `lock` is the
    /// runtime's.
    pub fn install(&self, upgrade: bool, lock: &ServiceLock) -> Result<InstallOutcome, InstallError> {
        match self.runtime.install_method() {
            Some(InstallMethod::Python(package)) => self.install_package(&package, upgrade, lock),
            Some(InstallMethod::Homebrew { formula, elsewhere }) => {
                self.brew(formula, elsewhere, upgrade, lock)
            }
            None => Err(InstallError::NoMethod { program: self.runtime.program().to_owned() }),
        }
    }

    /// Removes fusion's own installation, whole or not; whether there was one.
    pub fn uninstall(&self, _lock: &ServiceLock) -> Result<bool, InstallError> {
        let directory = &self.paths.installation;
        if !directory.exists() {
            return Ok(false);
        }
        self.refuse_while_in_use()?;
        // What is removed only in part must not look whole.
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
        let home = &self.paths.installation;
        // One that cannot be used any more is replaced.
        let before = Installation::read(home, self.runtime).ok().flatten();
        if let Some(installation) = before.clone().filter(|_| !upgrade) {
            return Ok(InstallOutcome::Already(installation));
        }
        self.refuse_while_in_use()?;
        files::make_directory(home)?;
        let tool = python::Tool::find(package, self.search)?;
        let keep = before.as_ref().map(|before| before.directory.as_path());
        remove_attempts(home, keep)?;
        check_space(home, package.disk_bytes)?;

        let directory = free_name(home);
        let made = self.make(package, &tool, &directory, lock);
        if made.is_err() {
            // The failure is what is told; what cannot be removed now is removed by the next attempt.
            let _ = remove_directory(&directory);
        }
        let now = made?;
        // What was replaced and cannot be removed now is removed by the next attempt, too.
        let _ = remove_attempts(home, Some(&now.directory));
        Ok(InstallOutcome::Made { now, before: before.map(|before| before.version) })
    }

    /// Makes an environment in `directory`, proves that it works, and only then declares it the installation.
    fn make(
        &self,
        package: &PythonPackage,
        tool: &python::Tool,
        directory: &Path,
        lock: &ServiceLock,
    ) -> Result<Installation, InstallError> {
        let requirement = package.requirement();
        self.installing(&requirement, tool.name(), Some(directory));
        for command in tool.commands(package, directory) {
            self.run(command, &self.paths.installation, lock)?;
        }
        self.events.emit(self.service, EventKind::CheckingInstallation);
        let manifest = Manifest {
            directory: directory.to_owned(),
            version: package_version(directory, package.name).unwrap_or_else(|| "unknown".to_owned()),
            requirement,
            installed_with: tool.name().to_owned(),
        };
        let installation = manifest.installation(&self.paths.installation)?;
        let program = installation.program(self.runtime.program());
        check::starts(self.runtime, &program, &self.paths.installation, self.cancel)?;
        let mut text = serde_json::to_vec_pretty(&manifest).map_err(InstallError::Encode)?;
        text.push(b'\n');
        files::replace(&self.paths.installation.join(MANIFEST), &text)?;
        Ok(installation)
    }

    fn brew(
        &self,
        formula: &'static str,
        elsewhere: &'static str,
        upgrade: bool,
        lock: &ServiceLock,
    ) -> Result<InstallOutcome, InstallError> {
        let program = self.runtime.program();
        if let Some(found) = on_path(program, self.search).filter(|_| !upgrade) {
            return Ok(InstallOutcome::Homebrew(found));
        }
        let brew = on_path("brew", self.search)
            .ok_or(InstallError::ByHand { service: Arc::clone(self.service), elsewhere })?;
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

    /// The lock is the program's standard input: should fusion be killed, the lock is held until the program has
    /// ended too, and nobody else changes what it is still writing.
    fn run(&self, mut command: Command, directory: &Path, lock: &ServiceLock) -> Result<(), InstallError> {
        let program: PathBuf = command.get_program().into();
        let cannot_run = |source| InstallError::Run { program: PathBuf::clone(&program), source };
        command.current_dir(directory).stdin(lock.share().map_err(cannot_run)?);
        let mut helper = Helper::start(&mut command, self.output).map_err(cannot_run)?;
        let status = helper.wait(POLL_INTERVAL, &mut || !self.cancel.is_cancelled()).map_err(cannot_run)?;
        match status.ok_or(InstallError::Cancelled)? {
            status if status.success() => Ok(()),
            status => {
                let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
                let command = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
                Err(InstallError::Failed { command, status, said: helper.last_lines() })
            }
        }
    }

    /// A program whose files are replaced beneath it fails at the next one that it reads.
    fn refuse_while_in_use(&self) -> Result<(), InstallError> {
        let Some(record) = Record::read(&self.paths.state)? else { return Ok(()) };
        let from_here = record
            .command
            .first()
            .is_some_and(|program| Path::new(program).starts_with(&self.paths.installation));
        if !from_here {
            return Ok(());
        }
        match self.driver.members(record.as_instance())?.first() {
            Some(member) => Err(InstallError::InUse { service: Arc::clone(self.service), pid: member.pid }),
            None => Ok(()),
        }
    }
}

/// Removes what attempts left behind, all but `keep`.
fn remove_attempts(home: &Path, keep: Option<&Path>) -> Result<(), InstallError> {
    attempts(home).into_iter().filter(|path| keep != Some(path)).try_for_each(|path| remove_directory(&path))
}

/// What an attempt that was interrupted left in `home`; nothing while one is under way or one has succeeded since.
pub fn unfinished(home: &Path, runtime: &dyn Runtime) -> Option<PathBuf> {
    let whole = Installation::read(home, runtime).ok()?.map(|installation| installation.directory);
    attempts(home).into_iter().find(|path| whole.as_ref() != Some(path))
}

/// The directories of attempts at an installation in `home`, the one that succeeded among them.
fn attempts(home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| attempt_number(path).is_some()).collect()
}

fn attempt_number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

/// A name for the next attempt. Environments hold their own absolute path, so none can be moved into place later.
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
    fn a_disk_without_room_is_noticed_before_anything_is_done() {
        let directory = tempfile::tempdir().unwrap();
        check_space(directory.path(), 0).unwrap();
        let error = check_space(directory.path(), u64::MAX).unwrap_err();
        let InstallError::NoSpace { available, .. } = &error else { panic!("{error}") };
        assert!(*available < u64::MAX);
        assert!(error.to_string().ends_with("and 18446744073709 MB are needed"), "{error}");
    }

    #[test]
    fn an_attempt_gets_a_name_that_none_before_it_had() {
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
