//! Reads a log as one text, while it grows and its files are moved.
//!
//! The text is the parts that were moved away since the start, oldest first, and then the log. A reader remembers
//! which file it reads, which part was the newest, and the last bytes that it read; from these it knows what
//! happened since it looked last: a new `.1` holds what the log no longer begins with; a log that has another name
//! now is read to its end before the one that took its place; a log that no longer holds what was read was
//! truncated. Waiting is the caller's affair: there is no portable way to be told of changes, and a look costs
//! a few `stat` and one `read`.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{FileId, Lock, lines, lock, numbered, open};
use crate::core::files::FileError;

/// How much is read at once.
const BLOCK: usize = 64 * 1024;

/// How many of the last bytes are remembered to recognise the place.
const REMEMBERED: usize = 256;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first line since the runtime was started.
    Beginning,
    /// With the last lines; 0 for what is written from now on.
    LastLines(u64),
    /// With the last bytes.
    LastBytes(u64),
}

/// What a look at the log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More of the text.
    Read,
    /// Nothing new.
    UpToDate,
    /// Somebody truncated the log; reading goes on at its beginning.
    Truncated,
    /// More was moved away since the last look than is kept: some lines are lost to this reader. Reading goes on
    /// with the oldest that is kept.
    Overtaken,
}

/// A position in a log.
#[derive(Debug)]
pub struct Reader {
    log: PathBuf,
    /// Files that get no longer, to be read before the current one.
    older: VecDeque<Part>,
    current: Part,
    /// The newest part at the last look; held open, so that its inode is not used again.
    newest: Option<Part>,
    /// The last bytes that were read.
    recent: Vec<u8>,
}

#[derive(Debug)]
struct Part {
    file: File,
    id: FileId,
    /// When it was made, where the file system tells.
    made: Option<SystemTime>,
    size: u64,
    offset: u64,
}

impl Part {
    fn open(path: &Path) -> Result<Option<Self>, FileError> {
        let opened = open(path, OpenOptions::new().read(true))?;
        Ok(opened.map(|(file, metadata)| Self {
            file,
            id: FileId::of(&metadata),
            made: metadata.created().ok(),
            size: metadata.len(),
            offset: 0,
        }))
    }

    /// Opens the older part `number`. What fusion did not put there is no part.
    fn open_older(log: &Path, number: u64) -> Result<Option<Self>, FileError> {
        match Self::open(&numbered(log, number)) {
            Err(
                FileError::SymbolicLink { .. } | FileError::NotAFile { .. } | FileError::AnotherOwner { .. },
            ) => Ok(None),
            result => result,
        }
    }

    fn unread(&self) -> u64 {
        self.size.saturating_sub(self.offset)
    }

    /// Appends the next block to `buffer`; `None` when what precedes it is not the end of `recent`.
    fn read_after(&mut self, recent: &[u8], buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let known = usize::try_from(self.offset).unwrap_or(usize::MAX).min(recent.len());
        let start = buffer.len();
        buffer.resize(start + known + BLOCK, 0);
        let read = self.file.read_at(&mut buffer[start..], self.offset - known as u64);
        buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        read?;
        if !buffer[start..].starts_with(&recent[recent.len() - known..]) {
            buffer.truncate(start);
            return Ok(None);
        }
        buffer.drain(start..start + known);
        let length = buffer.len() - start;
        self.offset += length as u64;
        Ok(Some(length))
    }

    /// Whether the bytes before the offset are the end of `recent`.
    fn follows(&self, recent: &[u8]) -> bool {
        let known = usize::try_from(self.offset).unwrap_or(usize::MAX).min(recent.len());
        let mut bytes = vec![0; known];
        let read = self.file.read_exact_at(&mut bytes, self.offset - known as u64);
        read.is_ok() && recent.ends_with(&bytes)
    }

    /// Whether `other` holds the same where this file begins and where it was read last.
    fn is_copied_to(&self, other: &Self) -> bool {
        let before = self.offset.saturating_sub(REMEMBERED as u64);
        [0, before].iter().all(|start| {
            let mut bytes = [[0; REMEMBERED]; 2];
            let [own, others] = &mut bytes;
            let length = self.file.read_at(own, *start).unwrap_or(0);
            other.file.read_exact_at(&mut others[..length], *start).is_ok() && own == others
        })
    }

    /// The offset after the first occurrence of `wanted`.
    fn find(&self, wanted: &[u8]) -> Option<u64> {
        let mut bytes = vec![0; BLOCK];
        let mut start = 0;
        loop {
            let length =
                self.file.read_at(&mut bytes, start).ok().filter(|length| *length >= wanted.len())?;
            if let Some(at) = bytes[..length].windows(wanted.len()).position(|window| window == wanted) {
                return Some(start + (at + wanted.len()) as u64);
            }
            start += (length - wanted.len() + 1) as u64;
        }
    }
}

impl Reader {
    /// Opens the log; `None` when there is none.
    pub fn open(log: &Path, start: Start) -> Result<Option<Self>, FileError> {
        let failed = FileError::io("read", log);
        let Some(mut current) = Part::open(log)? else { return Ok(None) };
        let file = current.file.try_clone().map_err(&failed)?;
        let _locked = lock(&file, Lock::Shared);
        current.size = file.metadata().map_err(&failed)?.len();
        let older = parts_of(log, &current)?;
        let newest = Part::open_older(log, 1)?;
        let mut reader = Self { log: log.to_owned(), older, current, newest, recent: Vec::new() };
        match start {
            Start::Beginning => {}
            Start::LastLines(lines) => reader.skip_to_last(lines).map_err(&failed)?,
            Start::LastBytes(bytes) => reader.skip(reader.remaining().saturating_sub(bytes)),
        }
        Ok(Some(reader))
    }

    /// How many bytes there were still to be read at the last look.
    pub fn remaining(&self) -> u64 {
        self.older.iter().chain([&self.current]).map(Part::unread).sum()
    }

    /// Skips the first bytes of what there is.
    fn skip(&mut self, mut bytes: u64) {
        while let Some(part) = self.older.front().filter(|part| part.size <= bytes) {
            bytes -= part.size;
            self.older.pop_front();
        }
        self.older.front_mut().unwrap_or(&mut self.current).offset = bytes;
    }

    fn skip_to_last(&mut self, lines: u64) -> io::Result<()> {
        let parts = self.older.iter().chain([&self.current]);
        let files: Vec<_> = parts.map(|part| (&part.file, part.size)).collect();
        let (index, offset) = lines::start_of_last_in(&files, lines)?;
        self.older.drain(..index);
        self.older.front_mut().unwrap_or(&mut self.current).offset = offset;
        Ok(())
    }

    /// Looks once, and appends at most 64 KiB of what comes next to `buffer`. Never waits for more to be written.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Progress, FileError> {
        let start = buffer.len();
        let progress = self.look(buffer)?;
        match progress {
            Progress::Read => {
                self.recent.extend_from_slice(&buffer[start.max(buffer.len().saturating_sub(REMEMBERED))..]);
                self.recent.drain(..self.recent.len().saturating_sub(REMEMBERED));
            }
            Progress::Truncated | Progress::Overtaken => self.recent.clear(),
            Progress::UpToDate => {}
        }
        Ok(progress)
    }

    fn look(&mut self, buffer: &mut Vec<u8>) -> Result<Progress, FileError> {
        let log = self.log.clone();
        let failed = FileError::io("read", &log);
        loop {
            if self.read_older(buffer).map_err(&failed)? {
                return Ok(Progress::Read);
            }
            let file = self.current.file.try_clone().map_err(&failed)?;
            let _locked = lock(&file, Lock::Shared);
            self.current.size = file.metadata().map_err(&failed)?.len();
            if self.was_overtaken()? {
                return Ok(Progress::Overtaken);
            }
            if !self.older.is_empty() {
                continue;
            }
            let read = if self.current.size < self.current.offset {
                None
            } else {
                self.current.read_after(&self.recent, buffer).map_err(&failed)?
            };
            return Ok(match read {
                Some(0) => Progress::UpToDate,
                Some(_) => Progress::Read,
                None => {
                    self.current.offset = 0;
                    Progress::Truncated
                }
            });
        }
    }

    /// Reads on in the files before the current one; false at their end.
    fn read_older(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        while let Some(part) = self.older.front_mut() {
            if part.read_after(&[], buffer)?.is_some_and(|length| length > 0) {
                return Ok(true);
            }
            self.older.pop_front();
        }
        Ok(false)
    }

    /// Finds the place again, if files were moved, rotated or made anew since the last look. True when it is not
    /// there any more. Without a log at the path, whoever writes may still write to the file that is open here, and
    /// reading goes on in it.
    fn was_overtaken(&mut self) -> Result<bool, FileError> {
        let there = FileId::at(&self.log);
        let newest = FileId::at(&numbered(&self.log, 1));
        let known = self.newest.as_ref().map(|part| part.id);
        if there == Some(self.current.id) && (newest == known || newest.is_none()) {
            return Ok(false);
        }
        let Some(log) = Part::open(&self.log)? else { return Ok(false) };
        // Newest first, up to the parts that were there at the last look.
        let mut files = vec![log];
        let mut all = known.is_none();
        for number in 1.. {
            let Some(part) = Part::open_older(&self.log, number)? else { break };
            if Some(part.id) == known {
                all = true;
                break;
            }
            files.push(part);
        }
        self.newest = Part::open_older(&self.log, 1)?;
        let Some(index) = files.iter().position(|part| part.id == self.current.id) else {
            // Deleted, and put back by the rotator or made anew.
            let log = Part { offset: self.current.offset, ..files.remove(0) };
            let deleted = std::mem::replace(&mut self.current, log);
            let put_back = if files.is_empty() {
                deleted.is_copied_to(&self.current)
            } else {
                self.skip_read(files, all)
            };
            if !put_back {
                self.current.offset = 0;
                self.older.push_front(deleted);
            }
            return Ok(false);
        };
        let moved = files.split_off(index + 1);
        let overtaken = !self.skip_read(moved, all);
        files.truncate(index);
        for newer in files.into_iter().rev() {
            self.older.push_back(std::mem::replace(&mut self.current, newer));
        }
        Ok(overtaken)
    }

    /// Sets the offsets in the parts, newest first, that were moved away from the current file, and in what is left
    /// of that. `all` tells that these are surely all that were moved. False when they are not the continuation of
    /// what was read: then they are wholly unread.
    fn skip_read(&mut self, moved: Vec<Part>, all: bool) -> bool {
        if moved.is_empty() {
            return true;
        }
        let mut skip = self.current.offset;
        self.older.extend(moved.into_iter().rev());
        for part in &mut self.older {
            part.offset = skip.min(part.size);
            skip -= part.offset;
        }
        self.current.offset = skip;
        let next = self.older.iter().find(|part| part.unread() > 0).unwrap_or(&self.current);
        if (all || next.offset > 0) && next.follows(&self.recent) {
            return true;
        }
        for part in self.older.iter_mut().chain([&mut self.current]) {
            part.offset = 0;
        }
        self.skip_through_recent()
    }

    /// Skips what precedes the end of the last bytes that were read, wherever those are; false when nowhere.
    fn skip_through_recent(&mut self) -> bool {
        if self.recent.len() < REMEMBERED {
            return false;
        }
        let parts: Vec<&mut Part> = self.older.iter_mut().chain([&mut self.current]).collect();
        let found =
            parts.iter().enumerate().find_map(|(index, part)| Some((index, part.find(&self.recent)?)));
        let Some((index, offset)) = found else { return false };
        for (number, part) in parts.into_iter().enumerate() {
            match number.cmp(&index) {
                Ordering::Less => part.offset = part.size,
                Ordering::Equal => part.offset = offset,
                Ordering::Greater => {}
            }
        }
        true
    }
}

/// The parts, oldest first, that were moved away from this log: they were made after it. (A log that was rotated
/// before a start was made before the log that took its place.)
fn parts_of(log: &Path, current: &Part) -> Result<VecDeque<Part>, FileError> {
    let mut parts = VecDeque::new();
    for number in 1.. {
        match Part::open_older(log, number)? {
            Some(part) if current.made.is_some() && part.made >= current.made => parts.push_front(part),
            _ => break,
        }
    }
    Ok(parts)
}
