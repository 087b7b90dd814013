//! One change at a time for each runtime: a lock file that the kernel releases when its holder dies.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use crate::core::events::{Event, EventSink};
use crate::core::files::{self, FileError};
use crate::core::paths::RuntimePaths;
use crate::core::process::Pid;

/// How long another command may hold the lock before the observer is told: a look by `ps` is shorter.
const NOTICE_AFTER: Duration = Duration::from_millis(200);

/// The right to change a runtime, held until dropped.
#[derive(Debug)]
pub struct Lock(files::Lock);

/// Why there is no lock. Nothing may be changed without one.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another command has held it all the time.
    #[error("another fusion command{} is changing {runtime}", with_pid(*holder))]
    Held {
        /// The runtime.
        runtime: String,
        /// The command's process, where it is known.
        holder: Option<Pid>,
    },
    /// The wait was cancelled.
    #[error("interrupted while waiting for another fusion command")]
    Interrupted,
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

fn with_pid(holder: Option<Pid>) -> String {
    holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl Lock {
    /// Waits for the lock of a runtime, for at most `limit`, or until `interrupted` says so.
    pub fn acquire(
        runtime: &str,
        paths: &RuntimePaths,
        limit: Duration,
        interrupted: &dyn Fn() -> bool,
        events: &dyn EventSink,
    ) -> Result<Self, LockError> {
        files::make_directory(&paths.directory)?;
        let acquire = |limit| files::Lock::acquire(&paths.lock, limit, interrupted);
        let quiet = limit.min(NOTICE_AFTER);
        let acquired = match acquire(quiet) {
            Err(files::LockError::Held { holder, .. }) if limit > quiet => {
                events.event(&Event::WaitingForLock { runtime, holder });
                acquire(limit.saturating_sub(quiet))
            }
            acquired => acquired,
        };
        acquired.map(Self).map_err(|error| match error {
            files::LockError::Held { holder, .. } => LockError::Held { runtime: runtime.to_owned(), holder },
            files::LockError::Cancelled { .. } => LockError::Interrupted,
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
    use crate::core::events::Silent;
    use crate::core::paths::Paths;
    use crate::env::Environment;

    const SHORT: Duration = Duration::from_millis(50);

    fn paths(directory: &Path) -> RuntimePaths {
        let environment = Environment { config_dir: Some(directory.to_owned()), ..Environment::default() };
        Paths::discover(&environment).unwrap().runtime("some")
    }

    fn acquire(paths: &RuntimePaths, limit: Duration) -> Result<Lock, LockError> {
        Lock::acquire("some", paths, limit, &|| false, &Silent)
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
        assert_eq!(error.to_string(), format!("another fusion command (process {pid}) is changing some"));
    }

    struct Told(Mutex<Vec<Option<Pid>>>);

    impl EventSink for Told {
        fn event(&self, event: &Event<'_>) {
            let Event::WaitingForLock { runtime: "some", holder } = event else { panic!("{event:?}") };
            self.0.lock().unwrap().push(*holder);
        }
    }

    #[test]
    fn the_observer_is_told_once_after_some_time() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let _held = acquire(&paths, SHORT).unwrap();
        let told = Told(Mutex::default());
        Lock::acquire("some", &paths, Duration::ZERO, &|| false, &told).unwrap_err();
        assert_eq!(*told.0.lock().unwrap(), []);
        Lock::acquire("some", &paths, NOTICE_AFTER * 2, &|| false, &told).unwrap_err();
        assert_eq!(*told.0.lock().unwrap(), [own_pid()]);
    }

    #[test]
    fn waiting_can_be_interrupted() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let _held = acquire(&paths, SHORT).unwrap();
        let error = Lock::acquire("some", &paths, Duration::MAX, &|| true, &Silent).unwrap_err();
        assert!(matches!(error, LockError::Interrupted), "{error:?}");
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
