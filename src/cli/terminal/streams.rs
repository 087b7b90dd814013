//! Standard input, output and error, or memory in their place when a test runs a command in-process.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout};

/// The streams of a command.
#[derive(Debug, Clone)]
pub struct Streams {
    pub input: Input,
    pub output: Output,
    pub error: Output,
}

/// The input of a command.
#[derive(Debug, Clone)]
pub enum Input {
    Standard,
    /// These bytes, as from a pipe.
    Memory(Arc<[u8]>),
}

/// The output of a command. Unbuffered, with one write per call: messages of several processes do not mix.
#[derive(Debug, Clone)]
pub enum Output {
    Standard,
    Error,
    Memory(Arc<Mutex<Vec<u8>>>),
}

impl Streams {
    /// Returns the streams of this process.
    pub fn standard() -> Self {
        Self { input: Input::Standard, output: Output::Standard, error: Output::Error }
    }

    /// Returns streams that read `input` and write into memory.
    pub fn memory(input: &[u8]) -> Self {
        let memory = || Output::Memory(Arc::default());
        Self { input: Input::Memory(input.into()), output: memory(), error: memory() }
    }
}

impl Output {
    /// Returns what was written into memory.
    pub fn written(&self) -> Vec<u8> {
        match self {
            Self::Standard | Self::Error => Vec::new(),
            Self::Memory(bytes) => bytes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Writes all of `bytes`, even to a pipe that another program made non-blocking.
    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Standard => write_all(io::stdout().as_fd(), bytes),
            Self::Error => write_all(io::stderr().as_fd(), bytes),
            Self::Memory(memory) => memory.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes),
        }
    }

    /// Waits up to `timeout` and returns whether this is a pipe without a reader.
    pub fn reader_is_gone(&self, timeout: PollTimeout) -> bool {
        match self {
            Self::Standard => is_gone(io::stdout().as_fd(), timeout),
            Self::Error => is_gone(io::stderr().as_fd(), timeout),
            Self::Memory(_) => false,
        }
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes).map_err(io::Error::from) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_gone(fd: BorrowedFd<'_>, timeout: PollTimeout) -> bool {
    // macOS reports a closed pipe only with POLLOUT.
    let mut polled = [PollFd::new(fd, PollFlags::POLLOUT)];
    let found = nix::poll::poll(&mut polled, timeout);
    let events = polled[0].revents().unwrap_or(PollFlags::empty());
    found.is_ok() && events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_what_every_clone_writes() {
        let output = Streams::memory(b"").output;
        output.write_all(b"one ").unwrap();
        output.clone().write_all(b"two").unwrap();
        assert_eq!(output.written(), b"one two");
        assert!(!output.reader_is_gone(PollTimeout::ZERO));
    }
}
