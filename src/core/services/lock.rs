//! One change at a time for each runtime: a lock file that the kernel releases when its holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::core::events::{Event, EventSink};
use crate::core::files::{self, FileError};
use crate::core::paths::RuntimePaths;
use crate::core::process::Pid;

/// How long between two attempts.
const RETRY: Duration = Duration::from_millis(20);

/// How long the lock may be held by somebody else before the observer is told: a glance of `ps` is shorter.
const PATIENCE: Duration = Duration::from_millis(200);

/// The right to change a runtime, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why there is no lock. Nothing may be changed without one.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has held it all the time.
    #[error("another fusion command{} is changing {runtime}", with_pid(*holder))]
    Held {
        /// The runtime.
        runtime: String,
        /// Who holds it, where it is known.
        holder: Option<Pid>,
    },
    /// The waiting was broken off.
    #[error("interrupted while waiting for another fusion command")]
    Interrupted,
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system does not lock.
    #[error("cannot lock {path}")]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
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
        let begin = Instant::now();
        let mut told = false;
        loop {
            if let Some(lock) = Self::attempt(&paths.lock)? {
                return Ok(lock);
            }
            let waited = begin.elapsed();
            if waited >= limit {
                return Err(LockError::Held {
                    runtime: runtime.to_owned(),
                    holder: written_pid(&paths.lock),
                });
            }
            if interrupted() {
                return Err(LockError::Interrupted);
            }
            if !told && waited >= PATIENCE {
                events.event(&Event::WaitingForLock { runtime, holder: written_pid(&paths.lock) });
                told = true;
            }
            std::thread::sleep(RETRY);
        }
    }

    /// The lock as the standard input of a child: it is then held until the child has ended too, even if this
    /// process is killed. A child that reads finds the end of the file.
    pub fn share(&self) -> io::Result<Stdio> {
        Ok(Stdio::from(self.file.try_clone()?))
    }

    fn attempt(path: &Path) -> Result<Option<Self>, LockError> {
        let system = |source| LockError::System { path: path.to_owned(), source };
        let options = &mut OpenOptions::new();
        let mut file = files::open(path, options.read(true).write(true).create(true).truncate(false))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(system(source)),
        }
        // Whoever removed the directory meanwhile made this a lock on a file that nobody else will open.
        if !is_still_there(path, &file).map_err(system)? {
            return Ok(None);
        }
        let pid = std::process::id();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{pid}"))
            .map_err(system)?;
        Ok(Some(Self { file }))
    }
}

fn is_still_there(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match path.symlink_metadata() {
        Ok(now) => Ok((now.dev(), now.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether somebody is changing the runtime now. Writes and creates nothing.
pub fn is_held(paths: &RuntimePaths) -> Result<bool, LockError> {
    let path = &paths.lock;
    let file = match files::open(path, OpenOptions::new().read(true)) {
        Err(error) if error.is_missing() => return Ok(false),
        other => other?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(LockError::System { path: path.clone(), source }),
    }
}

/// Who holds the lock, as far as its file tells: for messages only.
fn written_pid(path: &Path) -> Option<Pid> {
    let mut text = String::new();
    let file = files::open(path, OpenOptions::new().read(true)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    Pid::try_from(text.trim().parse::<i64>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tempfile::TempDir;

    use super::*;
    use crate::core::events::Silent;
    use crate::core::paths::Paths;
    use crate::env::Environment;

    const SOON: Duration = Duration::from_millis(50);
    /// What other tests start meanwhile has the descriptors of this process until it is executed, so a lock may be
    /// free a moment later than it was released.
    const EVER: Duration = Duration::from_secs(60);

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
    fn whoever_waits_in_vain_is_told_who_holds_it() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let _held = acquire(&paths, SOON).unwrap();
        let error = acquire(&paths, SOON).unwrap_err();
        assert!(matches!(&error, LockError::Held { holder, .. } if *holder == own_pid()), "{error:?}");
        let pid = std::process::id();
        assert_eq!(error.to_string(), format!("another fusion command (process {pid}) is changing some"));
    }

    #[test]
    fn it_is_free_once_it_is_dropped() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        for _ in 0..3 {
            drop(acquire(&paths, EVER).unwrap());
        }
    }

    #[test]
    fn eight_at_once_have_it_one_after_the_other() {
        let directory = TempDir::new().unwrap();
        let paths = paths(&directory.path().join("not").join("there"));
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let lock = acquire(&paths, EVER).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }

    struct Told(Mutex<Vec<Option<Pid>>>);

    impl EventSink for Told {
        fn event(&self, event: &Event<'_>) {
            let Event::WaitingForLock { runtime: "some", holder } = event else { panic!("{event:?}") };
            self.0.lock().unwrap().push(*holder);
        }
    }

    #[test]
    fn the_observer_is_told_once_and_not_before_some_time() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let _held = acquire(&paths, SOON).unwrap();
        let told = Told(Mutex::default());
        Lock::acquire("some", &paths, Duration::ZERO, &|| false, &told).unwrap_err();
        assert_eq!(*told.0.lock().unwrap(), []);
        Lock::acquire("some", &paths, PATIENCE * 2, &|| false, &told).unwrap_err();
        assert_eq!(*told.0.lock().unwrap(), [own_pid()]);
    }

    #[test]
    fn waiting_can_be_interrupted() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let _held = acquire(&paths, SOON).unwrap();
        let error = Lock::acquire("some", &paths, EVER, &|| true, &Silent).unwrap_err();
        assert!(matches!(error, LockError::Interrupted), "{error:?}");
    }

    #[test]
    fn looking_whether_it_is_held_makes_nothing() {
        let directory = TempDir::new().unwrap();
        let absent = paths(&directory.path().join("absent"));
        assert!(!is_held(&absent).unwrap());
        assert!(!absent.directory.exists());
        let paths = paths(directory.path());
        std::fs::create_dir(&paths.directory).unwrap();
        assert!(!is_held(&paths).unwrap());
        assert!(!paths.lock.exists());
        let held = acquire(&paths, SOON).unwrap();
        assert!(is_held(&paths).unwrap());
        drop(held);
        drop(acquire(&paths, EVER).unwrap());
        let begin = Instant::now();
        while is_held(&paths).unwrap() {
            assert!(begin.elapsed() < EVER, "held for ever");
        }
    }

    #[test]
    fn a_symlinked_lock_is_refused_and_its_target_untouched() {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let precious = directory.path().join("precious");
        std::fs::create_dir(&paths.directory).unwrap();
        std::fs::write(&precious, "mine").unwrap();
        symlink(&precious, &paths.lock).unwrap();
        let error = acquire(&paths, SOON).unwrap_err();
        assert!(matches!(error, LockError::File(FileError::SymbolicLink { .. })), "{error:?}");
        assert!(matches!(is_held(&paths), Err(LockError::File(FileError::SymbolicLink { .. }))));
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
    }

    #[test]
    fn a_lock_that_was_removed_or_replaced_is_not_the_lock_any_more() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("lock");
        let file = File::create(&path).unwrap();
        assert!(is_still_there(&path, &file).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!is_still_there(&path, &file).unwrap());
        let _other = File::create(&path).unwrap();
        assert!(!is_still_there(&path, &file).unwrap());
    }

    #[test]
    fn a_holder_that_left_garbage_is_unknown() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("lock");
        for text in ["", "0\n", "1\n", "-1\n", "4294967295\n", "x\n", "\u{ff}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(written_pid(&path), None, "{text:?}");
        }
        std::fs::write(&path, "4242\n").unwrap();
        assert_eq!(written_pid(&path), Pid::try_from(4242).ok());
    }
}
