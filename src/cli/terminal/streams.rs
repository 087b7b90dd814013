//! Standard input, output and error, or what stands in their place when a test runs a command in-process.

use std::fs::File;
use std::io::{self, BufRead as _, Cursor, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::Stdio;
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
    Memory(Arc<Mutex<Cursor<Vec<u8>>>>),
}

/// The output of a command. Unbuffered, with one write per call: messages of several processes do not mix.
#[derive(Debug, Clone)]
pub enum Output {
    Standard,
    Error,
    /// An unnamed file, to which the programs that the command runs can write, too.
    File(Arc<File>),
}

/// Makes the terminal of standard output the standard input. By its own name, for macOS cannot wait for `/dev/tty`.
pub fn take_input_from_terminal() -> io::Result<()> {
    let terminal = std::fs::File::open(nix::unistd::ttyname(io::stdout())?)?;
    Ok(nix::unistd::dup2_stdin(terminal)?)
}

impl Streams {
    /// Returns the streams of this process.
    pub fn standard() -> Self {
        Self { input: Input::Standard, output: Output::Standard, error: Output::Error }
    }

    /// Returns streams that read `input` and whose output is kept.
    pub fn captured(input: &[u8]) -> io::Result<Self> {
        let file = || Ok::<_, io::Error>(Output::File(Arc::new(tempfile::tempfile()?)));
        let input = Input::Memory(Arc::new(Mutex::new(Cursor::new(input.to_vec()))));
        Ok(Self { input, output: file()?, error: file()? })
    }
}

impl Input {
    /// Reads a line with its newline; an empty text at the end.
    pub fn read_line(&self) -> io::Result<String> {
        let mut line = String::new();
        match self {
            Self::Standard => io::stdin().read_line(&mut line)?,
            Self::Memory(bytes) => {
                bytes.lock().unwrap_or_else(PoisonError::into_inner).read_line(&mut line)?
            }
        };
        Ok(line)
    }

    /// Returns the standard input of a program that the command runs. It finds the end of input where this is memory.
    pub fn for_program(&self) -> Stdio {
        match self {
            Self::Standard => Stdio::inherit(),
            Self::Memory(_) => Stdio::null(),
        }
    }

    /// Returns whether bytes in memory are left to read.
    pub fn has_more(&self) -> bool {
        let Self::Memory(bytes) = self else { return false };
        let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.position() < bytes.get_ref().len() as u64
    }

    /// Returns what is left to read of bytes in memory.
    pub fn rest(&self) -> Vec<u8> {
        let Self::Memory(bytes) = self else { return Vec::new() };
        let mut rest = Vec::new();
        // Reading from memory cannot fail.
        let _ = bytes.lock().unwrap_or_else(PoisonError::into_inner).read_to_end(&mut rest);
        rest
    }
}

impl Output {
    /// Returns what was written to the unnamed file.
    pub fn written(&self) -> io::Result<Vec<u8>> {
        let Self::File(file) = self else { return Ok(Vec::new()) };
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Returns a descriptor of this output, for a program that writes to it.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Standard => io::stdout().as_fd().try_clone_to_owned(),
            Self::Error => io::stderr().as_fd().try_clone_to_owned(),
            Self::File(file) => file.as_fd().try_clone_to_owned(),
        }
    }

    /// Writes all of `bytes`, even to a pipe that another program made non-blocking.
    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Standard => write_all(io::stdout().as_fd(), bytes),
            Self::Error => write_all(io::stderr().as_fd(), bytes),
            Self::File(file) => (&**file).write_all(bytes),
        }
    }

    /// Waits up to `timeout` and returns whether this is a pipe without a reader.
    pub fn reader_is_gone(&self, timeout: PollTimeout) -> bool {
        match self {
            Self::Standard => is_gone(io::stdout().as_fd(), timeout),
            Self::Error => is_gone(io::stderr().as_fd(), timeout),
            Self::File(_) => false,
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
    fn captured_output_has_what_programs_write() {
        let output = Streams::captured(b"").unwrap().output;
        output.write_all(b"one ").unwrap();
        let mut program = std::process::Command::new("/bin/sh");
        program.args(["-c", "printf 'two '"]).stdout(output.duplicate().unwrap()).status().unwrap();
        output.clone().write_all(b"three").unwrap();
        assert_eq!(output.written().unwrap(), b"one two three");
        assert!(!output.reader_is_gone(PollTimeout::ZERO));
    }

    #[test]
    fn lines_are_read_one_by_one() {
        let input = Streams::captured(b"y\nno").unwrap().input;
        assert_eq!([0; 3].map(|_| input.read_line().unwrap()), ["y\n", "no", ""]);
    }
}
