//! A session: a conversation, and the file to which each of its lines is appended as it comes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::conversation::{Conversation, SessionHeader, SessionLine};
use crate::core::files::{self, FileError};

/// Maximum size of a session file: far more than any model takes, images included.
const MAX_SESSION_BYTES: u64 = 1 << 30;

/// Why a session cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("`{name}` cannot be the name of a session")]
    InvalidName { name: String },
    /// Another process has it open, and would write between the lines of this one.
    #[error("the session {name} is open in another process")]
    InUse { name: String },
    #[error("there is no session {name}")]
    Missing { name: String },
    /// There is no session to continue.
    #[error("there is no session yet{}", of_service.as_ref().map(|name| format!(" of {name}")).unwrap_or_default())]
    NoneYet { of_service: Option<String> },
    #[error(transparent)]
    File(#[from] FileError),
}

/// A conversation with a service, and its file unless it is not saved.
#[derive(Debug)]
pub struct ChatSession {
    pub service: String,
    pub conversation: Conversation,
    file: Option<SessionFile>,
}

impl ChatSession {
    /// Returns a new session without a file.
    pub fn new(header: SessionHeader) -> Self {
        let mut conversation = Conversation::default();
        let service = header.service.clone();
        conversation.apply(&SessionLine::Header(header));
        Self { service, conversation, file: None }
    }

    /// Returns its name, if it is saved.
    pub fn name(&self) -> Option<&str> {
        self.file.as_ref().map(|file| file.name.as_str())
    }

    /// Has every further line written to `file`, and writes those so far.
    pub(super) fn save_to(&mut self, file: SessionFile) -> Result<(), FileError> {
        let Conversation { model, system, parameters, .. } = &self.conversation;
        let header = SessionHeader {
            service: self.service.clone(),
            model: model.clone(),
            system: system.clone(),
            parameters: parameters.clone(),
        };
        let messages = self.conversation.messages().iter().cloned().map(SessionLine::Message);
        let lines: Vec<SessionLine> = [SessionLine::Header(header)].into_iter().chain(messages).collect();
        self.file.insert(file).append(&lines)
    }

    /// Applies a line and writes it. The conversation has the line even if it cannot be written; then it is written
    /// with the next one.
    pub fn push(&mut self, line: &SessionLine) -> Result<(), FileError> {
        self.conversation.apply(line);
        self.file.as_mut().map_or(Ok(()), |file| file.append(std::slice::from_ref(line)))
    }

    /// Writes the lines that could not be written when they came.
    pub fn write_rest(&mut self) -> Result<(), FileError> {
        self.file.as_mut().map_or(Ok(()), |file| file.append(&[]))
    }
}

/// A session that was read from its file.
#[derive(Debug)]
pub struct SavedSession {
    pub contents: Contents,
    /// `None` if no further line is written.
    file: Option<SessionFile>,
}

impl SavedSession {
    /// Returns a session to which no further line is written.
    pub(super) fn unlocked(contents: Contents) -> Self {
        Self { contents, file: None }
    }

    /// Returns the session. If the header is damaged, `header` takes its place, which is written, too.
    pub fn resume(self, header: SessionHeader) -> (ChatSession, Result<(), FileError>) {
        let Contents { header: known, conversation, .. } = self.contents;
        let service = known.as_ref().unwrap_or(&header).service.clone();
        let mut session = ChatSession { service, conversation, file: self.file };
        let written = if known.is_some() { Ok(()) } else { session.push(&SessionLine::Header(header)) };
        (session, written)
    }
}

/// What a session file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    /// `None` if the header is damaged.
    pub header: Option<SessionHeader>,
    pub conversation: Conversation,
    /// The number of lines that cannot be read. They are skipped, and stay in the file.
    pub damaged: usize,
    /// Whether the last line has its end.
    is_whole: bool,
}

impl Contents {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut contents =
            Self { is_whole: bytes.last().is_none_or(|last| *last == b'\n'), ..Self::default() };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let Some(line) = SessionLine::read(line) else {
                contents.damaged += 1;
                continue;
            };
            contents.conversation.apply(&line);
            if let SessionLine::Header(header) = line {
                contents.header = Some(header);
            }
        }
        contents
    }
}

/// An open session file, locked against every other process until it is dropped.
#[derive(Debug)]
pub(super) struct SessionFile {
    name: String,
    path: PathBuf,
    file: File,
    /// The length of the lines that were written whole.
    length: u64,
    /// Whether the file ends within a line.
    is_cut: bool,
    /// Lines that could not be written yet.
    unwritten: Vec<u8>,
}

/// Closing the file is not enough: a child that is being started has a copy of it for a moment.
impl Drop for SessionFile {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl SessionFile {
    /// Creates the file; returns `None` if it exists.
    pub(super) fn create(name: &str, path: &Path) -> Result<Option<Self>, SessionError> {
        match files::open(path, OpenOptions::new().read(true).append(true).create_new(true)) {
            Err(_) if path.symlink_metadata().is_ok() => Ok(None),
            Err(error) => Err(error.into()),
            Ok(file) => Self::locked(name, path, file).map(Some),
        }
    }

    /// Opens a session; returns `None` if there is none.
    pub(super) fn open(name: &str, path: &Path) -> Result<Option<SavedSession>, SessionError> {
        let file = match files::open(path, OpenOptions::new().read(true).append(true)) {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        let mut opened = Self::locked(name, path, file)?;
        let bytes = opened.read()?;
        let contents = Contents::of(&bytes);
        opened.length = bytes.len() as u64;
        opened.is_cut = !contents.is_whole;
        Ok(Some(SavedSession { contents, file: Some(opened) }))
    }

    fn locked(name: &str, path: &Path, file: File) -> Result<Self, SessionError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SessionError::InUse { name: name.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(FileError::io("lock", path)(error).into()),
        }
        let (name, path) = (name.to_owned(), path.to_owned());
        Ok(Self { name, path, file, length: 0, is_cut: false, unwritten: Vec::new() })
    }

    fn read(&mut self) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        let read = (&mut self.file).take(MAX_SESSION_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(FileError::io("read", &self.path))?;
        if bytes.len() as u64 > MAX_SESSION_BYTES {
            return Err(FileError::TooLarge { path: self.path.clone(), limit: MAX_SESSION_BYTES });
        }
        Ok(bytes)
    }

    /// Writes the lines, after those that could not be written before. On failure the file ends with a whole line,
    /// and the lines wait for the next attempt.
    fn append(&mut self, lines: &[SessionLine]) -> Result<(), FileError> {
        if !lines.is_empty() && std::mem::take(&mut self.is_cut) {
            self.unwritten.push(b'\n');
        }
        for line in lines {
            // Its keys are strings, so a line is always JSON.
            self.unwritten.extend(serde_json::to_vec(line).unwrap_or_default());
            self.unwritten.push(b'\n');
        }
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.unwritten).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += self.unwritten.len() as u64;
                self.unwritten.clear();
                Ok(())
            }
            Err(error) => {
                // A part that stays is a damaged line, which a reader skips.
                let _ = self.file.set_len(self.length);
                Err(FileError::io("write", &self.path)(error))
            }
        }
    }
}

/// Reads a session file without locking it; returns `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Contents>, FileError> {
    Ok(files::read(path, MAX_SESSION_BYTES)?.map(|bytes| Contents::of(&bytes)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::conversation::ChatMessage;
    use super::*;

    #[test]
    fn lines_are_written_once_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one.jsonl");
        std::fs::write(&path, "{}").unwrap();
        let mut file = SessionFile::open("one", &path).unwrap().unwrap().file.unwrap();
        // Nothing can be written to it.
        let writable = std::mem::replace(&mut file.file, File::open(&path).unwrap());
        let mut session =
            ChatSession { service: String::new(), conversation: Conversation::default(), file: Some(file) };
        session.push(&SessionLine::Message(ChatMessage::question(json!("q")))).unwrap_err();
        session.write_rest().unwrap_err();
        session.file.as_mut().unwrap().file = writable;
        session.write_rest().unwrap();
        session.write_rest().unwrap();
        let expected = "{}\n{\"role\":\"user\",\"content\":\"q\"}\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}
