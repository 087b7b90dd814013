//! A log that is kept: within its bounds, and at its path. One that is deleted while it is written is put back.
//!
//! Its writer goes on writing to the deleted file, which has no name any more and can get none. So a copy takes its
//! place, and what is written from then on is appended to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::bound::{Bounded, Limits};
use super::{Lock, beside, lock};
use crate::core::files::{self, FileError};

/// A log that somebody else writes.
pub(super) struct Kept {
    path: PathBuf,
    limits: Limits,
    /// What is written.
    log: Bounded,
    place: Place,
}

/// What is at the path.
enum Place {
    /// What is written.
    Log,
    /// A copy of what is written, for that was deleted.
    Replaced(Replacement),
    /// What is written was deleted and could not be put back.
    Lost,
}

struct Replacement {
    log: Bounded,
    writer: File,
    /// Up to where the deleted file was copied.
    copied: u64,
}

impl Kept {
    /// `None` when there is no log.
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Option<Self>, FileError> {
        let log = Bounded::open(path, limits)?;
        Ok(log.map(|log| Self { path: path.to_owned(), limits, log, place: Place::Log }))
    }

    /// The size of what is written now.
    pub(super) fn size(&self) -> io::Result<u64> {
        self.log.size()
    }

    /// Whether what is written can be seen only when it is copied.
    pub(super) fn is_copied(&self) -> bool {
        matches!(self.place, Place::Replaced(_))
    }

    /// Does what has become necessary since the last time.
    pub(super) fn tend(&mut self) -> io::Result<()> {
        let deleted = match &self.place {
            Place::Log => is_deleted(self.log.file())?,
            Place::Replaced(copy) => is_deleted(copy.log.file())?,
            Place::Lost => false,
        };
        if deleted {
            // When it cannot be put back, the bound is what is left to be kept.
            self.place = self.put_back().ok().flatten().map_or(Place::Lost, Place::Replaced);
        }
        match &mut self.place {
            Place::Replaced(copy) => copy.catch_up(&mut self.log, self.limits.max_bytes),
            Place::Log | Place::Lost => self.log.enforce(),
        }
    }

    /// `None` when another log has taken the place.
    fn put_back(&self) -> Result<Option<Replacement>, FileError> {
        let failed = FileError::io("put back", &self.path);
        let file = self.log.file().try_clone().map_err(&failed)?;
        // Until the copy is complete and in its place, so that readers find in it what they have read.
        let _locked = lock(&file, Lock::Exclusive);
        let new = beside(&self.path, "moving");
        files::remove(&new)?;
        let mut writer = files::open(&new, OpenOptions::new().append(true).create_new(true))?;
        let mut deleted = &file;
        let copied = deleted.rewind().and_then(|()| io::copy(&mut deleted, &mut writer)).map_err(&failed)?;
        // Unlike a rename, a link never takes the place of another file.
        let linked = fs::hard_link(&new, &self.path);
        files::remove(&new)?;
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            other => other.map_err(&failed)?,
        }
        let log = Bounded::open(&self.path, self.limits)?;
        Ok(log.map(|log| Replacement { log, writer, copied }))
    }
}

impl Replacement {
    /// Copies what was written meanwhile; what was copied and is large is removed from the deleted file.
    fn catch_up(&mut self, deleted: &mut Bounded, max_bytes: u64) -> io::Result<()> {
        let mut block = vec![0; 64 * 1024];
        loop {
            self.log.enforce()?;
            let length = deleted.file().read_at(&mut block, self.copied)?;
            if length == 0 {
                break;
            }
            // A disk that is full now may have room the next time.
            let Ok(written) = self.writer.write(&block[..length]) else { break };
            self.copied += written as u64;
        }
        if self.copied > max_bytes {
            self.copied -= deleted.cut(self.copied)?;
        }
        Ok(())
    }
}

fn is_deleted(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.nlink() == 0)
}
