//! A runtime's log: the file to which it appends, the older parts beside it (`.1`, `.2` ...), and what may be done
//! with them.
//!
//! The runtime holds the log open itself, with `O_APPEND`, so nothing stands between it and its log that could
//! fail or make it wait. [`rotate`] moves the log of the last run away before a new one starts. While the runtime
//! runs, its log is kept within bounds by a process of its own, see [`rotator`]. A [`Reader`] reads the log as one
//! text whatever happens to its files meanwhile.

mod bound;
mod kept;
mod lines;
mod reader;
pub mod rotator;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::bound::Limits;
pub use self::reader::{Progress, Reader, Start};
use crate::core::files::{self, ContentLock, ContentLockKind as Lock, FileError};

/// Makes way for a new log before a start: the log becomes `.1`, that becomes `.2`, and so on up to `keep`.
///
/// Afterwards there is no file at `log`.
pub fn rotate(log: &Path, keep: u64) -> Result<(), FileError> {
    let Some((_, metadata)) = open(log, OpenOptions::new().write(true))? else { return Ok(()) };
    if metadata.len() == 0 {
        return files::remove(log);
    }
    make_room(log, keep)?;
    if keep == 0 {
        return files::remove(log);
    }
    fs::rename(log, numbered(log, 1)).map_err(FileError::io("rotate", log))
}

/// The last line of the last run that is not blank; `None` when there is none, or no log.
pub fn last_line(log: &Path) -> Result<Option<String>, FileError> {
    /// Characters: enough to tell what happened, little enough for a table.
    const LONGEST: usize = 1000;
    let text = tail_text(log, u64::MAX)?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    Ok(line.map(|line| line.trim_end().chars().take(LONGEST).collect()))
}

/// The last `lines` lines of the last run, at most about 64 KiB of them, for messages. What is not UTF-8 is replaced;
/// control characters are not, that is for the front end. Empty when there is no log.
pub fn tail_text(log: &Path, lines: u64) -> Result<String, FileError> {
    const LONGEST: usize = 64 * 1024;
    let Some(mut reader) = Reader::open(log, Start::LastBytes(LONGEST as u64 + 1))? else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    while bytes.len() <= LONGEST && reader.read(&mut bytes)? == Progress::Read {}
    let start = lines::start_of_last(&bytes, lines);
    let mut bytes = &bytes[start..];
    // A line whose beginning was cut off says less than none, unless there is no other.
    if start == 0
        && bytes.len() > LONGEST
        && let Some(end) = bytes.iter().position(|byte| *byte == b'\n').filter(|end| end + 1 < bytes.len())
    {
        bytes = &bytes[end + 1..];
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Opens the log or one of its parts; `None` when it does not exist.
fn open(path: &Path, options: &mut OpenOptions) -> Result<Option<(File, Metadata)>, FileError> {
    let file = match files::open(path, options) {
        Err(error) if error.is_missing() => return Ok(None),
        other => other?,
    };
    let metadata = file.metadata().map_err(FileError::io("look at", path))?;
    Ok(Some((file, metadata)))
}

/// Shifts the older parts so that `.1` is free; what would become number `keep + 1` or more is removed.
fn make_room(log: &Path, keep: u64) -> Result<(), FileError> {
    for number in (1..=last_part(log)).rev() {
        let part = numbered(log, number);
        if number >= keep {
            files::remove(&part)?;
        } else {
            fs::rename(&part, numbered(log, number + 1)).map_err(FileError::io("rename", &part))?;
        }
    }
    Ok(())
}

/// The number of the oldest part, 0 when there is none.
fn last_part(log: &Path) -> u64 {
    let mut number = 0;
    while numbered(log, number + 1).symlink_metadata().is_ok() {
        number += 1;
    }
    number
}

/// The path of the older part `number`.
fn numbered(log: &Path, number: u64) -> PathBuf {
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

/// Locks the log for at most a while: a reader that was stopped must not undo the bound, nor a stopped rotator make
/// readers wait. Going on without the lock can at worst show a reader some lines twice or not at all.
fn lock(file: &File, kind: Lock) -> Option<ContentLock<'_>> {
    ContentLock::acquire(file, kind, Duration::from_secs(2))
}
