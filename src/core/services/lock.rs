//! Allows one change of a service at a time: a lock file that the kernel releases when its holder dies.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::core::cancel::{CancelToken, Cancelled};
use crate::core::events::{EventBus, EventKind};
use crate::core::files::{self, FileError};
use crate::core::paths::ServicePaths;
use crate::core::process::Pid;

/// How long another command may hold the lock before an event reports it: longer than `ps` holds it for a check.
const NOTICE_DELAY: Duration = Duration::from_millis(200);

/// The exclusive right to change a service, held until dropped.
#[derive(Debug)]
pub struct ServiceLock(files::Lock);

/// Why a command does not get the lock. Without the lock it must not change anything.
#[derive(Debug, thiserror::Error)]
pub enum ServiceLockError {
    /// Another command held the lock until the timeout.
    #[error("another fusion command{} is changing {service}", with_pid(*holder))]
    Held {
        service: Arc<str>,
        /// The pid of that command, if known.
        holder: Option<Pid>,
    },
    #[error("interrupted while waiting for another fusion command")]
    Cancelled(Cancelled),
    #[error(transparent)]
    File(#[from] FileError),
}

impl ServiceLockError {
    /// Returns whether the system does not allow to write where the lock is.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::File(error) if error.is_denied())
    }
}

fn with_pid(holder: Option<Pid>) -> String {
    holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl ServiceLock {
    /// Waits for the lock of a service until `timeout` has passed or `cancel` is cancelled.
    pub fn acquire(
        service: &Arc<str>,
        paths: &ServicePaths,
        timeout: Duration,
        cancel: &CancelToken,
        events: &EventBus,
    ) -> Result<Self, ServiceLockError> {
        files::make_directory(&paths.directory)?;
        files::refuse_of_others(&paths.directory)?;
        let acquire = |timeout| files::Lock::acquire(&paths.lock, timeout, &|| cancel.is_cancelled());
        let quiet = timeout.min(NOTICE_DELAY);
        let acquired = match acquire(quiet) {
            Err(files::LockError::Held { holder, .. }) if timeout > quiet => {
                events.emit(service, EventKind::WaitingForLock { holder });
                acquire(timeout.saturating_sub(quiet))
            }
            acquired => acquired,
        };
        acquired.map(Self).map_err(|error| match error {
            files::LockError::Held { holder, .. } => {
                ServiceLockError::Held { service: Arc::clone(service), holder }
            }
            files::LockError::Cancelled { .. } => {
                ServiceLockError::Cancelled(cancel.reason().unwrap_or(Cancelled::Abandoned))
            }
            files::LockError::File(error) => ServiceLockError::File(error),
        })
    }

    /// Returns the lock as the standard input of a child, which holds it until it ends, even if this process is
    /// killed. The child reads an empty file.
    pub fn share(&self) -> io::Result<Stdio> {
        self.0.share()
    }
}

/// Returns whether a command is changing the service now. Writes and creates nothing.
pub fn is_held(paths: &ServicePaths) -> Result<bool, ServiceLockError> {
    Ok(files::Lock::is_held(&paths.lock)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use tempfile::TempDir;

    use super::*;
    use crate::core::events::{Event, Subscriber};
    use crate::core::paths::Paths;
    use crate::env::Environment;

    const SHORT: Duration = Duration::from_millis(50);

    fn paths(directory: &Path) -> ServicePaths {
        let environment = Environment { config_dir: Some(directory.to_owned()), ..Environment::default() };
        Paths::discover(&environment).unwrap().service("some")
    }

    fn acquire(paths: &ServicePaths, limit: Duration) -> Result<ServiceLock, ServiceLockError> {
        ServiceLock::acquire(&"some".into(), paths, limit, &CancelToken::new(), &EventBus::new())
    }

    fn own_pid() -> Option<Pid> {
        Pid::try_from(i64::from(std::process::id())).ok()
    }

    #[test]
    fn held_lock_names_holder() {
        let directory = TempDir::new().unwrap();
        let paths = paths(&directory.path().join("not").join("there"));
        let _held = acquire(&paths, SHORT).unwrap();
        let error = acquire(&paths, SHORT).unwrap_err();
        assert!(matches!(&error, ServiceLockError::Held { holder, .. } if *holder == own_pid()), "{error:?}");
        let pid = std::process::id();
        assert_eq!(error.to_string(), format!("another fusion command (pid {pid}) is changing some"));
    }

    struct Holders(Mutex<Vec<Option<Pid>>>);

    impl Subscriber for Holders {
        fn event(&self, event: &Event) {
            let EventKind::WaitingForLock { holder } = &event.kind else { panic!("{event:?}") };
            assert_eq!(&*event.service, "some");
            self.0.lock().unwrap().push(*holder);
        }
    }

    #[test]
    fn slow_lock_emits_one_event() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let _held = acquire(&paths, SHORT).unwrap();
        let holders = Arc::new(Holders(Mutex::default()));
        let events = EventBus::new();
        events.subscribe(&holders);
        let acquire =
            |timeout| ServiceLock::acquire(&"some".into(), &paths, timeout, &CancelToken::new(), &events);
        acquire(Duration::ZERO).unwrap_err();
        assert_eq!(*holders.0.lock().unwrap(), []);
        acquire(NOTICE_DELAY * 2).unwrap_err();
        assert_eq!(*holders.0.lock().unwrap(), [own_pid()]);
    }

    #[test]
    fn waiting_for_lock_can_be_interrupted() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let _held = acquire(&paths, SHORT).unwrap();
        let cancel = CancelToken::new();
        cancel.cancel(Cancelled::Signal(2));
        let error = ServiceLock::acquire(&"some".into(), &paths, Duration::MAX, &cancel, &EventBus::new())
            .unwrap_err();
        assert!(matches!(error, ServiceLockError::Cancelled(Cancelled::Signal(2))), "{error:?}");
    }

    #[test]
    fn lock_check_creates_no_file() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        assert!(!is_held(&paths).unwrap());
        assert!(!paths.directory.exists());
        let _held = acquire(&paths, SHORT).unwrap();
        assert!(is_held(&paths).unwrap());
    }
}
