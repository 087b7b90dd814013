//! Locks between processes.
//!
//! The kernel releases them when their holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::private::{FileError, open};
use crate::core::pid::Pid;

/// The first pause between two attempts; each later one is twice as long, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// An exclusive lock on a file that serves only as a lock, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why a lock was not acquired. Without it, nothing may be changed.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process held it until the timeout.
    #[error("{path} is locked{}", by(*holder))]
    Held {
        /// The file.
        path: PathBuf,
        /// The process that the file names.
        holder: Option<Pid>,
    },
    /// The wait was cancelled.
    #[error("cancelled while waiting for the lock {path}")]
    Cancelled {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be used as a lock.
    #[error(transparent)]
    File(#[from] FileError),
}

fn by(holder: Option<Pid>) -> String {
    holder.map(|pid| format!(" by pid {pid}")).unwrap_or_default()
}

impl Lock {
    /// Locks the file at `path`, which is created if it is missing, and writes the PID of this process to it.
    /// Attempts it at least once, until the `timeout` or until `cancelled` returns true.
    pub fn acquire(path: &Path, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Self, LockError> {
        match wait(timeout, cancelled, || Self::attempt(path))? {
            Wait::Done(lock) => Ok(lock),
            Wait::TimedOut => Err(LockError::Held { path: path.to_owned(), holder: holder(path) }),
            Wait::Cancelled => Err(LockError::Cancelled { path: path.to_owned() }),
        }
    }

    /// Like [`acquire`](Self::acquire), but others may have the lock in this way at the same time, and no holder is
    /// named.
    pub fn acquire_shared(
        path: &Path,
        timeout: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, LockError> {
        match wait(timeout, cancelled, || Self::attempt_shared(path))? {
            Wait::Done(lock) => Ok(lock),
            Wait::TimedOut => Err(LockError::Held { path: path.to_owned(), holder: holder(path) }),
            Wait::Cancelled => Err(LockError::Cancelled { path: path.to_owned() }),
        }
    }

    /// Hands the lock down to the program that this process becomes, and to its children: it is held until all have
    /// ended.
    pub fn hand_down(self) -> io::Result<()> {
        fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        // Closing it would release the lock.
        std::mem::forget(self);
        Ok(())
    }

    /// Returns whether a process holds the lock now. Creates nothing.
    pub fn is_held(path: &Path) -> Result<bool, FileError> {
        match open(path, OpenOptions::new().read(true)) {
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
            Ok(file) => is_locked(path, file.try_lock_shared()),
        }
    }

    /// Returns the lock as the standard input of a child, which then holds it until the child has ended too, even if
    /// this process is killed. A child that reads finds the end of the file.
    pub fn share(&self) -> io::Result<Stdio> {
        Ok(Stdio::from(self.file.try_clone()?))
    }

    fn attempt_shared(path: &Path) -> Result<Option<Self>, FileError> {
        let file = open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))?;
        if is_locked(path, file.try_lock_shared())?
            || !is_at(path, &file).map_err(FileError::io("lock", path))?
        {
            return Ok(None);
        }
        Ok(Some(Self { file }))
    }

    fn attempt(path: &Path) -> Result<Option<Self>, FileError> {
        let options = &mut OpenOptions::new();
        let mut file = open(path, options.read(true).write(true).create(true).truncate(false))?;
        // If the file was removed or replaced, other processes lock another file.
        if is_locked(path, file.try_lock())? || !is_at(path, &file).map_err(FileError::io("lock", path))? {
            return Ok(None);
        }
        // It only names the holder: on a full disk, too, a server is stopped.
        let pid = std::process::id();
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{pid}"));
        Ok(Some(Self { file }))
    }
}

/// Which other locks a [`ContentLock`] excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentLockKind {
    /// Excludes exclusive locks: for reading.
    Shared,
    /// Excludes every other lock: for moving the content.
    Exclusive,
}

/// A lock on the content of an open file, released when dropped.
#[derive(Debug)]
pub struct ContentLock(File);

impl ContentLock {
    /// Locks the file; `None` after the `timeout`, or if the file system does not support locks.
    pub fn acquire(file: &File, kind: ContentLockKind, timeout: Duration) -> Option<Self> {
        // Both handles have the same lock.
        let lock = Self(file.try_clone().ok()?);
        let attempt = || {
            let attempted = match kind {
                ContentLockKind::Shared => file.try_lock_shared(),
                ContentLockKind::Exclusive => file.try_lock(),
            };
            match attempted {
                Ok(()) => Ok(Some(())),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            }
        };
        match wait(timeout, &|| false, attempt) {
            Ok(Wait::Done(())) => Some(lock),
            _ => None,
        }
    }
}

impl Drop for ContentLock {
    fn drop(&mut self) {
        // If this fails, closing the file releases the lock.
        let _ = self.0.unlock();
    }
}

/// How a wait ended.
enum Wait<T> {
    Done(T),
    TimedOut,
    Cancelled,
}

/// Repeats the attempt until it returns a result or an error, until the timeout, or until cancelled.
fn wait<T, E>(
    timeout: Duration,
    cancelled: &dyn Fn() -> bool,
    attempt: impl Fn() -> Result<Option<T>, E>,
) -> Result<Wait<T>, E> {
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(done) = attempt()? {
            return Ok(Wait::Done(done));
        }
        let left = timeout.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(Wait::TimedOut);
        }
        if cancelled() {
            return Ok(Wait::Cancelled);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

fn is_locked(path: &Path, attempted: Result<(), TryLockError>) -> Result<bool, FileError> {
    match attempted {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(FileError::io("lock", path)(error)),
    }
}

/// Returns whether the path still names the open file.
fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match path.symlink_metadata() {
        Ok(now) => Ok((now.dev(), now.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the process that the file names. For messages only: the file may be out of date.
fn holder(path: &Path) -> Option<Pid> {
    let mut text = String::new();
    let file = open(path, OpenOptions::new().read(true)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    Pid::try_from(text.trim().parse::<i64>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tempfile::TempDir;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    /// A process that another test forks holds the descriptors of this one until it executes its program. So a lock may
    /// stay held for a moment after its release.
    const LONG: Duration = Duration::from_secs(60);

    fn acquire(path: &Path, timeout: Duration) -> Result<Lock, LockError> {
        Lock::acquire(path, timeout, &|| false)
    }

    fn own_pid() -> Option<Pid> {
        Pid::try_from(i64::from(std::process::id())).ok()
    }

    fn lock_file() -> (TempDir, PathBuf) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("lock");
        (directory, path)
    }

    #[test]
    fn a_held_lock_names_its_holder() {
        let (_directory, path) = lock_file();
        let _held = acquire(&path, SHORT).unwrap();
        let error = acquire(&path, SHORT).unwrap_err();
        assert!(matches!(&error, LockError::Held { holder, .. } if *holder == own_pid()), "{error:?}");
        assert_eq!(error.to_string(), format!("{} is locked by pid {}", path.display(), std::process::id()));
    }

    #[test]
    fn a_dropped_lock_is_free() {
        let (_directory, path) = lock_file();
        for _ in 0..3 {
            drop(acquire(&path, LONG).unwrap());
        }
    }

    #[test]
    fn eight_waiting_threads_get_it_in_turn() {
        let (_directory, path) = lock_file();
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let lock = acquire(&path, LONG).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }

    #[test]
    fn a_wait_can_be_cancelled() {
        let (_directory, path) = lock_file();
        let _held = acquire(&path, SHORT).unwrap();
        let error = Lock::acquire(&path, LONG, &|| true).unwrap_err();
        assert!(matches!(error, LockError::Cancelled { .. }), "{error:?}");
    }

    #[test]
    fn a_free_lock_is_taken_although_cancelled() {
        let (_directory, path) = lock_file();
        Lock::acquire(&path, Duration::ZERO, &|| true).unwrap();
    }

    #[test]
    fn asking_whether_it_is_held_makes_nothing() {
        let (_directory, path) = lock_file();
        assert!(!Lock::is_held(&path).unwrap());
        assert!(!path.exists());
        let held = acquire(&path, SHORT).unwrap();
        assert!(Lock::is_held(&path).unwrap());
        drop(held);
        drop(acquire(&path, LONG).unwrap());
        let begin = Instant::now();
        while Lock::is_held(&path).unwrap() {
            assert!(begin.elapsed() < LONG, "it stays held");
        }
    }

    #[test]
    fn a_symbolic_link_is_refused_as_a_lock() {
        let (directory, path) = lock_file();
        let precious = directory.path().join("precious");
        std::fs::write(&precious, "mine").unwrap();
        symlink(&precious, &path).unwrap();
        let error = acquire(&path, SHORT).unwrap_err();
        assert!(matches!(error, LockError::File(FileError::SymbolicLink { .. })), "{error:?}");
        assert!(matches!(Lock::is_held(&path), Err(FileError::SymbolicLink { .. })));
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
    }

    #[test]
    fn removed_and_replaced_files_are_noticed() {
        let (_directory, path) = lock_file();
        let file = File::create(&path).unwrap();
        assert!(is_at(&path, &file).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&path, &file).unwrap());
        let _other = File::create(&path).unwrap();
        assert!(!is_at(&path, &file).unwrap());
    }

    #[test]
    fn a_lock_on_a_removed_file_is_void() {
        let (_directory, path) = lock_file();
        let _old = acquire(&path, SHORT).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _new = acquire(&path, SHORT).unwrap();
        assert!(matches!(acquire(&path, SHORT), Err(LockError::Held { .. })));
    }

    #[test]
    fn garbage_names_no_holder() {
        let (_directory, path) = lock_file();
        for text in ["", "0\n", "1\n", "-1\n", "4294967295\n", "x\n", "\u{ff}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(holder(&path), None, "{text:?}");
        }
        std::fs::write(&path, "4242\n").unwrap();
        assert_eq!(holder(&path), Pid::try_from(4242).ok());
    }

    #[test]
    fn shared_content_locks_exclude_only_exclusive_ones() {
        let (_directory, path) = lock_file();
        std::fs::write(&path, "content").unwrap();
        let [one, other, mover] = [(); 3].map(|()| File::open(&path).unwrap());
        let shared = |file| ContentLock::acquire(file, ContentLockKind::Shared, LONG);
        let exclusive = |timeout| ContentLock::acquire(&mover, ContentLockKind::Exclusive, timeout);
        let reading = [shared(&one), shared(&other)];
        assert!(reading.iter().all(Option::is_some));
        assert!(exclusive(SHORT).is_none());
        drop(reading);
        assert!(exclusive(LONG).is_some());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "content");
    }
}
