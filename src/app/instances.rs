//! Instances that go: their table in the configuration, and what fusion keeps of them.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::app::App;
use super::error::AppError;
use crate::core::cancel::CancelToken;
use crate::core::config::{EditError, KeyPath, edit};
use crate::core::process::Pid;
use crate::core::services::lock::ServiceLock;
use crate::core::services::{ManagedService, Origin, ServiceError, StartedBy, is_preset};

/// How long another command that changes the service is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an instance is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("{service} is running{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Running { service: Arc<str>, pid: Option<Pid> },
    #[error("{service} is a built-in service, which cannot be removed")]
    BuiltIn { service: Arc<str>, table: String },
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error("cannot remove {}", path.display())]
    File { path: std::path::PathBuf, source: io::Error },
}

impl App {
    /// Checks that the service is an instance, and that fusion runs no process of it, here or on another host.
    pub fn check_removable(&self, service: &ManagedService, cancel: &CancelToken) -> Result<(), RemoveError> {
        let name = || Arc::clone(&service.name);
        if service.origin == Origin::BuiltIn {
            return Err(RemoveError::BuiltIn { service: name(), table: service.server_table() });
        }
        let status = self.manager(cancel).status(service).map_err(AppError::from)?;
        if let Some(elsewhere) = status.elsewhere {
            let (service, record) = (name(), service.files.state.clone());
            return Err(AppError::from(ServiceError::Elsewhere { service, elsewhere, record }).into());
        }
        if status.state.is_running() && status.started_by == Some(StartedBy::Fusion) {
            return Err(RemoveError::Running { service: name(), pid: status.pid });
        }
        Ok(())
    }

    /// Removes the table of the service from the configuration, and its files; with `keep_log`, its logs stay.
    pub fn remove(
        &self,
        service: &ManagedService,
        keep_log: bool,
        cancel: &CancelToken,
    ) -> Result<(), RemoveError> {
        self.check_removable(service, cancel)?;
        let lock = ServiceLock::acquire(&service.name, &service.files, LOCK_TIMEOUT, cancel, &self.events);
        let lock = lock.map_err(|error| AppError::from(ServiceError::from(error)))?;
        // It may have been started before this command got the lock.
        if let Some(pid) = self.log(service).running()? {
            return Err(RemoveError::Running { service: Arc::clone(&service.name), pid: Some(pid) });
        }
        if service.origin == Origin::Instance {
            edit::unset(&self.paths.config_file(), self.table, &KeyPath::instance(&service.name))?;
        }
        remove_files(service, keep_log)?;
        drop(lock);
        Ok(())
    }
}

/// Removes what fusion itself has written, then the directory if it is empty.
fn remove_files(service: &ManagedService, keep_log: bool) -> Result<(), RemoveError> {
    let files = &service.files;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RemoveError::File { path, source }
    };
    let entries = match fs::read_dir(&files.directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(&files.directory)(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed(&files.directory))?.path();
        let known = [&files.state, &files.pid, &files.port, &files.lock, &files.in_use];
        let is_log = !keep_log && is_log(&path, &files.log);
        if is_log || known.contains(&&path) || is_preset(&path) {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    match fs::remove_dir(&files.directory) {
        // What is left is the log, or not fusion's.
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
            Err(failed(&files.directory)(error))
        }
        _ => Ok(()),
    }
}

/// Returns whether `path` is the log, a rotated one, or that of the starts at login.
fn is_log(path: &Path, log: &Path) -> bool {
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (path, log) = (name(path), name(log));
    let number = path.strip_prefix(&format!("{log}."));
    path == log
        || path == "login.log"
        || number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_told_from_other_files() {
        let is = |name: &str| is_log(&Path::new("/x").join(name), Path::new("/x/coder.log"));
        for log in ["coder.log", "coder.log.1", "coder.log.12", "login.log"] {
            assert!(is(log), "{log}");
        }
        for other in ["coder.log.old", "coder.pid", "notes.log", "xcoder.log"] {
            assert!(!is(other), "{other}");
        }
    }
}
