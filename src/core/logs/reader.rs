//! Reads a log as `tail -F` does: while it grows, and on across truncation, rotation and a restart.
//!
//! Each poll costs a few `stat` and one `read`. The caller waits between polls, because no portable call reports that
//! a file grows.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{FileId, file_at, file_id, lock, numbered, open};
use crate::core::files::{ContentLockKind, FileError};

const BLOCK_BYTES: usize = 64 * 1024;

/// How many of the last bytes must precede the place where reading continues.
const CONTEXT_BYTES: usize = 64;

/// The result of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadProgress {
    /// More of the text.
    Read,
    /// Nothing new.
    UpToDate,
    /// The bytes after the last read are gone: the log was truncated, or rotated more often than parts are kept.
    /// Reading continues at the beginning of the log.
    Truncated,
}

/// A position in a log.
#[derive(Debug)]
pub struct LogReader {
    log: PathBuf,
    /// What is to be read, oldest first: the current log is the last one, the others grow no further.
    files: VecDeque<LogPart>,
    /// The part `.1` at the last poll, held open so its inode is not reused.
    newest: Option<LogPart>,
    /// The last bytes that were read.
    context: Vec<u8>,
}

#[derive(Debug)]
struct LogPart {
    file: File,
    id: FileId,
    /// When it was made, where the file system knows.
    created: Option<SystemTime>,
    /// When it was opened.
    size: u64,
    /// Where reading continues.
    offset: u64,
}

impl LogPart {
    fn open(path: &Path) -> Result<Option<Self>, FileError> {
        let opened = open(path, OpenOptions::new().read(true))?;
        Ok(opened.map(|(file, metadata)| Self {
            id: file_id(&metadata),
            created: metadata.created().ok(),
            size: metadata.len(),
            offset: 0,
            file,
        }))
    }

    /// Opens an older part; `None` also for what fusion cannot have put there, such as a symbolic link.
    fn open_older(log: &Path, number: u64) -> Option<Self> {
        Self::open(&numbered(log, number)).ok().flatten()
    }

    fn remaining(&self) -> u64 {
        self.size.saturating_sub(self.offset)
    }

    /// Appends the next block to `buffer`; returns its length.
    fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let start = buffer.len();
        buffer.resize(start + BLOCK_BYTES, 0);
        let read = self.file.read_at(&mut buffer[start..], self.offset);
        buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        let length = read?;
        self.offset += length as u64;
        Ok(length)
    }

    /// Whether the file reaches to the offset, and the end of `context` precedes it.
    fn continues(&self, context: &[u8]) -> io::Result<bool> {
        let length = usize::try_from(self.offset).unwrap_or(usize::MAX).min(context.len());
        let mut before = vec![0; length];
        let is_there = self.file.read_exact_at(&mut before, self.offset - length as u64).is_ok();
        Ok(is_there && context.ends_with(&before) && self.file.metadata()?.len() >= self.offset)
    }
}

impl LogReader {
    /// Opens the log at its last `lines` lines: 0 for new output only, `u64::MAX` for all output since the start of the
    /// server. `None` if there is no log.
    pub fn open(log: &Path, lines: u64) -> Result<Option<Self>, FileError> {
        let failed = FileError::io("read", log);
        let Some(mut current) = LogPart::open(log)? else { return Ok(None) };
        let _lock = lock(&current.file, ContentLockKind::Shared);
        current.size = current.file.metadata().map_err(&failed)?.len();
        let mut files = parts_since(log, None);
        // The parts of this run were made after its log; the logs of earlier runs were made before.
        files.retain(|part| part.created.is_some() && part.created >= current.created);
        files.push_back(current);
        let newest = LogPart::open_older(log, 1);
        let mut reader = Self { log: log.to_owned(), files, newest, context: Vec::new() };
        if lines < u64::MAX {
            reader.skip(reader.start_of_last_lines(lines).map_err(&failed)?);
        }
        Ok(Some(reader))
    }

    /// Returns how many bytes are still to be read of what there was when the log was opened.
    pub fn remaining(&self) -> u64 {
        self.files.iter().map(LogPart::remaining).sum()
    }

    fn skip(&mut self, mut bytes: u64) {
        while self.files.len() > 1 && self.files[0].remaining() <= bytes {
            bytes -= self.files[0].remaining();
            self.files.pop_front();
        }
        self.files[0].offset += bytes;
    }

    /// Returns how many bytes precede the last lines. Reads blocks from the end, so the time depends on the length of
    /// those lines, not on that of the log.
    fn start_of_last_lines(&self, lines: u64) -> io::Result<u64> {
        let mut before = self.remaining();
        let mut missing = lines;
        let mut block = vec![0; BLOCK_BYTES];
        for part in self.files.iter().rev() {
            let mut end = part.size;
            while end > 0 && missing > 0 {
                let start = end.saturating_sub(BLOCK_BYTES as u64);
                let bytes = &mut block[..usize::try_from(end - start).unwrap_or(BLOCK_BYTES)];
                // If it was truncated meanwhile, the first poll reports that.
                part.file.read_at(bytes, start)?;
                // The last newline belongs to the last line.
                let is_end = before == self.remaining();
                let bytes = bytes.strip_suffix(b"\n").filter(|_| is_end).unwrap_or(bytes);
                before -= end - start;
                for newline in memchr::memrchr_iter(b'\n', bytes) {
                    missing -= 1;
                    if missing == 0 {
                        return Ok(before + newline as u64 + 1);
                    }
                }
                end = start;
            }
        }
        Ok(before)
    }

    /// Polls once, and appends at most 64 KiB of the text to `buffer`. Never waits for new text.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Result<ReadProgress, FileError> {
        let start = buffer.len();
        let progress = self.poll(buffer)?;
        let new = &buffer[start..];
        self.context.extend_from_slice(&new[new.len().saturating_sub(CONTEXT_BYTES)..]);
        self.context.drain(..self.context.len().saturating_sub(CONTEXT_BYTES));
        Ok(progress)
    }

    fn poll(&mut self, buffer: &mut Vec<u8>) -> Result<ReadProgress, FileError> {
        let failed = FileError::io("read", &self.log);
        loop {
            while self.files.len() > 1 {
                if self.files[0].read(buffer).map_err(&failed)? > 0 {
                    return Ok(ReadProgress::Read);
                }
                self.files.pop_front();
            }
            let _lock = lock(&self.files[0].file, ContentLockKind::Shared);
            self.adopt_new_files()?;
            if !self.files[0].continues(&self.context).map_err(&failed)? {
                self.files.drain(..self.files.len() - 1);
                self.files[0].offset = 0;
                return Ok(ReadProgress::Truncated);
            }
            if self.files.len() == 1 {
                let length = self.files[0].read(buffer).map_err(&failed)?;
                return Ok(if length > 0 { ReadProgress::Read } else { ReadProgress::UpToDate });
            }
        }
    }

    /// Finds the files that were made since the last poll. They continue the text, because a rotation copies the log
    /// and a restart renames it: the oldest one is read from the offset that the log was read to.
    fn adopt_new_files(&mut self) -> Result<(), FileError> {
        let known = self.newest.as_ref().map(|part| part.id);
        let newest = file_at(&numbered(&self.log, 1));
        let is_same_log = file_at(&self.log) == Some(self.files[0].id);
        if is_same_log && (newest == known || newest.is_none()) {
            return Ok(());
        }
        // While there is no log at its path, the server may still write to the file that is open here.
        let Some(log) = LogPart::open(&self.log)? else { return Ok(()) };
        let mut files = parts_since(&self.log, known);
        files.push_back(log);
        self.newest = LogPart::open_older(&self.log, 1);
        let is_deleted = files.iter().all(|part| part.id != self.files[0].id);
        if is_deleted && self.files[0].continues(&self.context).unwrap_or(false) {
            self.files.append(&mut files);
        } else {
            files[0].offset = self.files[0].offset;
            self.files = files;
        }
        Ok(())
    }
}

/// Opens the older parts that were made after the known one, oldest first.
fn parts_since(log: &Path, known: Option<FileId>) -> VecDeque<LogPart> {
    let parts = (1..).map_while(|number| LogPart::open_older(log, number));
    let mut parts: VecDeque<_> = parts.take_while(|part| Some(part.id) != known).collect();
    parts.make_contiguous().reverse();
    parts
}

/// Returns the last line of the last run that is not blank, at most 1,000 characters of it.
pub fn last_line(log: &Path) -> Result<Option<String>, FileError> {
    let text = tail_text(log, u64::MAX)?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    Ok(line.map(|line| line.trim_end().chars().take(1000).collect()))
}

/// Returns the last `lines` lines of the last run for a message, at most 64 KiB of them; empty if there is no log. What
/// is not UTF-8 is replaced; control characters are left for the front end to filter.
pub fn tail_text(log: &Path, lines: u64) -> Result<String, FileError> {
    const MAX_BYTES: u64 = 64 * 1024;
    let Some(mut reader) = LogReader::open(log, lines)? else { return Ok(String::new()) };
    let excess = reader.remaining().saturating_sub(MAX_BYTES);
    reader.skip(excess);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < MAX_BYTES && reader.read(&mut bytes)? == ReadProgress::Read {}
    let first_newline = bytes.iter().position(|byte| *byte == b'\n');
    // The first line lacks its beginning, so it is left out unless it is the only one.
    let start = first_newline.map_or(0, |end| end + 1) % bytes.len().max(1);
    let tail = if excess > 0 { &bytes[start..] } else { &bytes };
    Ok(String::from_utf8_lossy(tail).into_owned())
}
