//! A runtime's log: the file to which it appends, the older parts beside it (`.1`, `.2` ...), and what may be done
//! with them.
//!
//! The runtime holds the log open itself, with `O_APPEND`, so nothing stands between it and its log that could
//! fail or make it wait. [`rotate`] moves the log of the last run away before a new one starts. While the runtime
//! runs, its log is kept within bounds by a process of its own, see [`keeper`]. A [`Reader`] reads the log as one
//! text whatever happens to its files meanwhile.

mod bound;
pub mod keeper;
mod lines;
mod reader;

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

pub use self::bound::Limits;
pub use self::reader::{Progress, Reader, Start};

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What lies at the path is not a file that fusion made: following or moving it would touch something else.
    #[error("{path} is {what}")]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What it is: "a symbolic link", "not a regular file", "owned by another user".
        what: &'static str,
    },
    /// The system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LogError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + use<'a> {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Makes way for a new log before a start: the log becomes `.1`, that becomes `.2`, and so on up to `keep`.
///
/// Afterwards there is no file at `log`.
pub fn rotate(log: &Path, keep: u32) -> Result<(), LogError> {
    let Some((_, metadata)) = open(log, OpenOptions::new().read(true))? else { return Ok(()) };
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(LogError::Foreign { path: log.to_owned(), what: "owned by another user" });
    }
    if keep == 0 || metadata.len() == 0 {
        return fs::remove_file(log).map_err(LogError::io("remove", log));
    }
    make_room(log, keep)?;
    fs::rename(log, numbered(log, 1)).map_err(LogError::io("rotate", log))
}

/// The last line of the last run that is not blank; `None` when there is none, or no log.
pub fn last_line(log: &Path) -> Result<Option<String>, LogError> {
    /// Characters: enough to tell what happened, little enough for a table.
    const LONGEST: usize = 1000;
    let text = tail_text(log, u64::MAX)?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    Ok(line.map(|line| line.trim_end().chars().take(LONGEST).collect()))
}

/// The last `lines` lines of the last run, at most 64 KiB of them, for messages. What is not UTF-8 is replaced;
/// control characters are not, that is for the front end. Empty when there is no log.
pub fn tail_text(log: &Path, lines: u64) -> Result<String, LogError> {
    const LONGEST: u64 = 64 * 1024;
    let Some((file, metadata)) = open(log, OpenOptions::new().read(true))? else { return Ok(String::new()) };
    let bytes = read_end(&file, metadata.len(), LONGEST).map_err(LogError::io("read", log))?;
    let start = lines::start_of_last(&bytes, lines);
    let mut bytes = &bytes[start..];
    // A line whose beginning was cut off says less than none, unless there is no other.
    if start == 0
        && metadata.len() > LONGEST
        && let Some(end) = bytes.iter().position(|byte| *byte == b'\n').filter(|end| end + 1 < bytes.len())
    {
        bytes = &bytes[end + 1..];
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// At most the last `most` bytes of a file of this size.
fn read_end(file: &File, size: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = file;
    file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens the log or one of its parts; `None` when it does not exist. Never through a symbolic link, and without
/// waiting for the other end of a pipe that somebody put there.
fn open(path: &Path, options: &mut OpenOptions) -> Result<Option<(File, Metadata)>, LogError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let foreign = |what| Err(LogError::Foreign { path: path.to_owned(), what });
    let file = match options.custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => return foreign("a symbolic link"),
        Err(error) => return Err(LogError::io("open", path)(error)),
    };
    let metadata = file.metadata().map_err(LogError::io("look at", path))?;
    if metadata.is_file() { Ok(Some((file, metadata))) } else { foreign("not a regular file") }
}

/// Shifts the older parts so that `.1` is free; what would become `keep + 1` or more is removed.
fn make_room(log: &Path, keep: u32) -> Result<(), LogError> {
    for number in keep.. {
        let part = numbered(log, number);
        match fs::remove_file(&part) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(LogError::io("remove", &part)(error)),
        }
    }
    for number in (1..keep).rev() {
        let part = numbered(log, number);
        match fs::rename(&part, numbered(log, number + 1)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(LogError::io("rename", &part)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The path of the older part `number`.
fn numbered(log: &Path, number: u32) -> PathBuf {
    beside(log, &number.to_string())
}

/// The path of a file that belongs to the log.
fn beside(log: &Path, extension: &str) -> PathBuf {
    let mut path = OsString::from(log);
    path.push(".");
    path.push(extension);
    path.into()
}

/// A file, whatever its name becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Who lies at the path now.
    fn at(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// What keeps the log from being read while its head is being moved.
#[derive(Debug, Clone, Copy)]
enum Lock {
    /// For reading.
    Shared,
    /// For moving.
    Exclusive,
}

/// Holds a lock on a file until it is dropped.
struct Locked<'a>(&'a File);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // An unlock that fails is made good when the file is closed.
        let _ = self.0.unlock();
    }
}

/// Takes a lock, with bounded patience: a reader that was stopped must not undo the bound, nor a stopped keeper
/// make readers wait for ever. Going on without it can at worst show a reader some lines twice or not at all.
fn lock(file: &File, kind: Lock) -> Locked<'_> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let taken = match kind {
            Lock::Shared => file.try_lock_shared(),
            Lock::Exclusive => file.try_lock(),
        };
        // Any other failure: the file system has no locks.
        if !matches!(taken, Err(TryLockError::WouldBlock)) || Instant::now() >= deadline {
            return Locked(file);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
