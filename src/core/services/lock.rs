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
    #[error("interrupted while waiting for another fusion command{}", with_pid(*holder))]
    Interrupted {
        /// Who holds it, where it is known.
        holder: Option<Pid>,
    },
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
                return Err(LockError::Interrupted { holder: written_pid(&paths.lock) });
            }
            if !told && waited >= PATIENCE {
                events.event(&Event::WaitingForLock { runtime, holder: written_pid(&paths.lock) });
                told = true;
            }
            std::thread::sleep(RETRY);
        }
    }

    /// The lock as the standard input of a child: it is then held until the child has ended too, even if this
    /// process is killed. The child reads a line with this process's PID.
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
