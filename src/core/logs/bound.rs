//! Keeps a log that is being written within bounds, without its writer's help: moves its head to `.1`.
//!
//! The writer appends with `O_APPEND`, so it goes on at the end wherever that is. On Linux the head is cut off with
//! `FALLOC_FL_COLLAPSE_RANGE` (ext4 and XFS), under which no byte is lost. Elsewhere the whole log is copied and
//! then truncated: what is written in the few microseconds between the last read that found nothing more and the
//! truncation is lost; there is no portable way to close that window without standing between the writer and its
//! log. In both cases the parts, oldest first, and then the log are exactly what was written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{FileId, Lock, beside, lock, make_room, numbered, open};
use crate::core::config::ServerSettings;
use crate::core::files::{self, FileError};

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The size of the log, and of each older part, in bytes.
    pub max_bytes: u64,
    /// How many older parts.
    pub keep: u64,
}

impl From<&ServerSettings> for Limits {
    fn from(server: &ServerSettings) -> Self {
        Self { max_bytes: server.log_max_size, keep: server.log_keep }
    }
}

/// What is cut off at once is a multiple of this; file systems demand a multiple of their block size.
const ALIGNMENT: u64 = 64 * 1024;

/// A log that somebody else writes.
pub(super) struct Bounded {
    log: PathBuf,
    file: File,
    limits: Limits,
    /// Whether the head can be cut off; assumed until the file system says no.
    collapses: bool,
}

impl Bounded {
    /// `None` when there is no log.
    pub(super) fn open(log: &Path, limits: Limits) -> Result<Option<Self>, FileError> {
        let opened = open(log, OpenOptions::new().read(true).write(true))?;
        Ok(opened.map(|(file, _)| Self {
            log: log.to_owned(),
            file,
            limits,
            collapses: cfg!(target_os = "linux"),
        }))
    }

    /// As where the file system does not cut off heads.
    #[cfg(test)]
    pub(super) fn never_collapse(&mut self) {
        self.collapses = false;
    }

    #[cfg(test)]
    pub(super) fn collapses(&self) -> bool {
        self.collapses
    }

    /// What is written.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Removes at most the first `most` bytes, which are kept elsewhere; how many.
    pub(super) fn cut(&mut self, most: u64) -> io::Result<u64> {
        let size = self.size()?;
        if let Some(length) = self.collapsible(most, size)
            && collapse(&self.file, length).is_ok()
        {
            return Ok(length);
        }
        if most < size {
            return Ok(0);
        }
        self.file.set_len(0)?;
        Ok(most)
    }

    /// How many of the first `most` bytes of a log of this size can be cut off: never all of it.
    fn collapsible(&self, most: u64, size: u64) -> Option<u64> {
        let length = most.min(size.saturating_sub(1)) / ALIGNMENT * ALIGNMENT;
        (self.collapses && length > 0).then_some(length)
    }

    /// The size of the log now.
    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Moves heads away until the log is within its limit.
    pub(super) fn enforce(&mut self) -> io::Result<()> {
        if self.size()? <= self.limits.max_bytes {
            return Ok(());
        }
        // A second handle, so that the lock does not borrow what is worked on.
        let file = self.file.try_clone()?;
        let _locked = lock(&file, Lock::Exclusive);
        let mut copied = 0;
        loop {
            let size = self.size()?;
            if copied == 0 && size <= self.limits.max_bytes {
                return Ok(());
            }
            copied = self.move_piece(size, copied)?;
        }
    }

    /// Moves a piece away from a log that was seen to have `size` bytes, the first `copied` of which were copied
    /// already; how many are copied now and still there. When somebody else truncated it meanwhile, there are none.
    pub(super) fn move_piece(&mut self, size: u64, copied: u64) -> io::Result<u64> {
        if size <= copied {
            return Ok(0);
        }
        let most = (size - copied).min(self.limits.max_bytes);
        let collapsible = self.collapsible(most, size).filter(|_| copied == 0);
        let length = collapsible.unwrap_or(most);
        let part = match self.keep_part(copied, length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            // A log without bounds is worse than one without its head.
            part => part.ok().flatten(),
        };
        if collapsible.is_some() {
            if collapse(&self.file, length).is_ok() || self.size()? <= length {
                return Ok(0);
            }
            self.collapses = false;
        }
        let copied = copied + length;
        if copied >= size {
            self.truncate(part, copied)?;
            return Ok(0);
        }
        Ok(copied)
    }

    /// Copies what was written since the last look to the end of `part`, and empties the log.
    fn truncate(&mut self, mut part: Option<File>, mut copied: u64) -> io::Result<()> {
        let mut block = vec![0; 64 * 1024];
        while let Some(file) = &mut part {
            let length = self.file.read_at(&mut block, copied)?;
            if length == 0 {
                break;
            }
            copied += length as u64;
            if file.write_all(&block[..length]).is_err() {
                part = None;
            }
        }
        self.file.set_len(0)
    }

    /// Copies a piece of the log to `.1`, the older parts shifted. When the disk has no room for it, the oldest parts
    /// go first. `None` when no parts are kept.
    fn keep_part(&self, start: u64, length: u64) -> io::Result<Option<File>> {
        // Another log lies at the path: this one was rotated or deleted, and the parts are not its own.
        let ours = FileId::of(&self.file.metadata()?);
        if self.limits.keep == 0 || FileId::at(&self.log).is_some_and(|there| there != ours) {
            return Ok(None);
        }
        let moving = beside(&self.log, "moving");
        let mut oldest = self.limits.keep;
        let copied = loop {
            match self.copy(start, length, &moving) {
                Err(error) if is_full(&error) && oldest > 0 => {
                    files::remove(&numbered(&self.log, oldest))?;
                    oldest -= 1;
                }
                copied => break copied,
            }
        };
        let kept = copied.and_then(|file| {
            make_room(&self.log, self.limits.keep)?;
            fs::rename(&moving, numbered(&self.log, 1))?;
            Ok(file)
        });
        if kept.is_err() {
            let _ = files::remove(&moving);
        }
        kept.map(Some)
    }

    fn copy(&self, start: u64, length: u64, to: &Path) -> io::Result<File> {
        files::remove(to)?;
        let mut copy = files::open(to, OpenOptions::new().append(true).create_new(true))?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start))?;
        if io::copy(&mut file.take(length), &mut copy)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(copy)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Cuts the first `length` bytes off.
#[cfg(target_os = "linux")]
fn collapse(file: &File, length: u64) -> io::Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};

    let length = i64::try_from(length).map_err(io::Error::other)?;
    Ok(fallocate(file, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, length)?)
}

/// No other system has it.
#[cfg(not(target_os = "linux"))]
fn collapse(_file: &File, _length: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
