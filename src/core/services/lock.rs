//! One change at a time for each service: a lock file that the kernel releases when its holder dies.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::core::cancel::{CancelToken, Cancelled};
use crate::core::events::{EventBus, EventKind};
use crate::core::files::{self, FileError};
use crate::core::paths::RuntimePaths;
use crate::core::process::Pid;

/// How long another command may hold the lock before an event says so: a check by `ps` is shorter.
const NOTICE_AFTER: Duration = Duration::from_millis(200);

/// The right to change a runtime, held until dropped.
#[derive(Debug)]
pub struct ServiceLock(files::Lock);

/// Why there is no lock. Nothing may be changed without one.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another command has held it all the time.
    #[error("another fusion command{} is changing {service}", with_pid(*holder))]
    Held {
        /// The service.
        service: Arc<str>,
        /// The command's process, where it is known.
        holder: Option<Pid>,
    },
    /// The wait was cancelled.
    #[error("interrupted while waiting for another fusion command")]
    Cancelled(Cancelled),
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

fn with_pid(holder: Option<Pid>) -> String {
    holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl ServiceLock {
    /// Waits for the lock of a service, for at most `timeout`, or until `cancel` says so.
    pub fn acquire(
        service: &Arc<str>,
        paths: &RuntimePaths,
        timeout: Duration,
        cancel: &CancelToken,
        events: &EventBus,
    ) -> Result<Self, LockError> {
        files::make_directory(&paths.directory)?;
        let acquire = |timeout| files::Lock::acquire(&paths.lock, timeout, &|| cancel.is_cancelled());
        let quiet = timeout.min(NOTICE_AFTER);
        let acquired = match acquire(quiet) {
            Err(files::LockError::Held { holder, .. }) if timeout > quiet => {
                events.emit(service, EventKind::WaitingForLock { holder });
                acquire(timeout.saturating_sub(quiet))
            }
            acquired => acquired,
        };
        acquired.map(Self).map_err(|error| match error {
            files::LockError::Held { holder, .. } => LockError::Held { service: Arc::clone(service), holder },
            files::LockError::Cancelled { .. } => {
                LockError::Cancelled(cancel.reason().unwrap_or(Cancelled::Abandoned))
            }
            files::LockError::File(error) => LockError::File(error),
        })
    }

    /// Returns the lock as the standard input of a child, which then holds it until the child has ended too, even if
    /// this process is killed. A child that reads finds the end of the file.
    pub fn share(&self) -> io::Result<Stdio> {
        self.0.share()
    }
}

/// Returns whether a command is changing the runtime now. Writes and creates nothing.
pub fn is_held(paths: &RuntimePaths) -> Result<bool, LockError> {
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

    fn paths(directory: &Path) -> RuntimePaths {
        let environment = Environment { config_dir: Some(directory.to_owned()), ..Environment::default() };
        Paths::discover(&environment).unwrap().runtime("some")
    }

    fn acquire(paths: &RuntimePaths, limit: Duration) -> Result<ServiceLock, LockError> {
        ServiceLock::acquire(&"some".into(), paths, limit, &CancelToken::new(), &EventBus::new())
    }

    fn own_pid() -> Option<Pid> {
        Pid::try_from(i64::from(std::process::id())).ok()
    }

    #[test]
    fn a_held_lock_names_the_other_command() {
        let directory = TempDir::new().unwrap();
        let paths = paths(&directory.path().join("not").join("there"));
        let _held = acquire(&paths, SHORT).unwrap();
        let error = acquire(&paths, SHORT).unwrap_err();
        assert!(matches!(&error, LockError::Held { holder, .. } if *holder == own_pid()), "{error:?}");
        let pid = std::process::id();
        assert_eq!(error.to_string(), format!("another fusion command (pid {pid}) is changing some"));
    }

    struct Told(Mutex<Vec<Option<Pid>>>);

    impl Subscriber for Told {
        fn event(&self, event: &Event) {
            let EventKind::WaitingForLock { holder } = &event.kind else { panic!("{event:?}") };
            assert_eq!(&*event.service, "some");
            self.0.lock().unwrap().push(*holder);
        }
    }

    #[test]
    fn the_observer_is_told_once_after_some_time() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let _held = acquire(&paths, SHORT).unwrap();
        let told = Arc::new(Told(Mutex::default()));
        let events = EventBus::new();
        events.subscribe(&told);
        let acquire =
            |timeout| ServiceLock::acquire(&"some".into(), &paths, timeout, &CancelToken::new(), &events);
        acquire(Duration::ZERO).unwrap_err();
        assert_eq!(*told.0.lock().unwrap(), []);
        acquire(NOTICE_AFTER * 2).unwrap_err();
        assert_eq!(*told.0.lock().unwrap(), [own_pid()]);
    }

    #[test]
    fn waiting_can_be_interrupted() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let _held = acquire(&paths, SHORT).unwrap();
        let cancel = CancelToken::new();
        cancel.cancel(Cancelled::Signal(2));
        let error = ServiceLock::acquire(&"some".into(), &paths, Duration::MAX, &cancel, &EventBus::new())
            .unwrap_err();
        assert!(matches!(error, LockError::Cancelled(Cancelled::Signal(2))), "{error:?}");
    }

    #[test]
    fn asking_whether_it_is_held_makes_nothing() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        assert!(!is_held(&paths).unwrap());
        assert!(!paths.directory.exists());
        let _held = acquire(&paths, SHORT).unwrap();
        assert!(is_held(&paths).unwrap());
    }
}
