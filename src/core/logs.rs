//! The log of a service: the file to which the server appends, and the older parts beside it (`.1`, `.2` ...).
//!
//! The server itself holds the log open, with `O_APPEND`, so nothing that fusion does can stop it or slow it down.
//! [`rotate`] puts the log of the last run aside before a start. While the server runs, a [`rotator::LogRotator`]
//! copies and truncates a log above its limit. A [`LogReader`] reads the parts of the run and the log as one text.

mod reader;
pub mod rotator;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::reader::{LogReader, ReadProgress, last_line, tail_text};
use crate::core::config::ServerSettings;
use crate::core::files::{self, ContentLock, ContentLockKind, FileError};

/// How much of a log stays on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The size above which the log is rotated, in bytes.
    pub max_bytes: u64,
    /// The number of older parts.
    pub keep: u64,
}

impl From<&ServerSettings> for Limits {
    fn from(server: &ServerSettings) -> Self {
        Self { max_bytes: server.log_max_size, keep: server.log_keep }
    }
}

/// Puts the log aside before a start: it becomes `.1`, which becomes `.2`, and so on up to `keep`.
///
/// Afterwards there is no file at `log`.
pub fn rotate(log: &Path, keep: u64) -> Result<(), FileError> {
    let Some((file, metadata)) = open(log, OpenOptions::new().write(true))? else { return Ok(()) };
    // The rotator of the last run may be about to end.
    let _lock = lock(&file, ContentLockKind::Exclusive);
    if metadata.len() == 0 || keep == 0 {
        return files::remove(log);
    }
    shift_parts(log, keep)?;
    fs::rename(log, numbered(log, 1)).map_err(FileError::io("rotate", log))
}

/// Frees the name `.1`: each older part gets the next number, and those above `keep` are removed.
fn shift_parts(log: &Path, keep: u64) -> Result<(), FileError> {
    for number in (1..=part_count(log)).rev() {
        let part = numbered(log, number);
        if number >= keep {
            files::remove(&part)?;
        } else {
            fs::rename(&part, numbered(log, number + 1)).map_err(FileError::io("rename", &part))?;
        }
    }
    Ok(())
}

fn part_count(log: &Path) -> u64 {
    let is_there = |number: &u64| numbered(log, *number).symlink_metadata().is_ok();
    (1..=u64::MAX).take_while(is_there).last().unwrap_or_default()
}

/// Opens the log or an older part; `None` if it does not exist.
fn open(path: &Path, options: &mut OpenOptions) -> Result<Option<(File, Metadata)>, FileError> {
    let file = match files::open(path, options) {
        Err(error) if error.is_missing() => return Ok(None),
        other => other?,
    };
    let metadata = file.metadata().map_err(FileError::io("read", path))?;
    Ok(Some((file, metadata)))
}

/// Returns the beginning of a log: what a server tells of itself at its start.
pub fn beginning(log: &Path) -> Result<String, FileError> {
    const MAX_BYTES: u64 = 128 * 1024;
    let Some((file, _)) = open(log, OpenOptions::new().read(true))? else { return Ok(String::new()) };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(FileError::io("read", log))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn numbered(log: &Path, number: u64) -> PathBuf {
    beside(log, &number.to_string())
}

fn beside(log: &Path, extension: &str) -> PathBuf {
    let mut path = OsString::from(log);
    path.push(format!(".{extension}"));
    path.into()
}

/// The device and inode of a file, which a rename does not change.
type FileId = (u64, u64);

fn file_id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// Returns the file that has this path now.
fn file_at(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().map(|metadata| file_id(&metadata))
}

/// Locks the log for a rotation or a read. Returns `None` after two seconds: a suspended reader must not stop the
/// rotation, nor a suspended rotator a reader, which then may repeat or miss lines.
fn lock(log: &File, kind: ContentLockKind) -> Option<ContentLock> {
    ContentLock::acquire(log, kind, Duration::from_secs(2))
}
