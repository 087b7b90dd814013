//! A screen that is drawn again and again while keys are read, without an alternate screen.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::keyboard::{self, Keyboard};
use super::signals::{self, Terminal};
use super::streams::Output;

/// A key, or a few bytes that stand for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPress {
    Up,
    Down,
    Escape,
    Char(char),
    /// The terminal is gone.
    Gone,
}

/// The terminal on standard input and output, with every key passed on and the cursor hidden. Dropping it restores
/// both.
#[derive(Debug)]
pub struct Screen {
    output: Output,
    /// What is on the screen; empty if that is not known.
    shown: Vec<String>,
    size: (usize, usize),
}

impl Screen {
    /// Takes over the terminal. What it shows is scrolled away.
    pub fn open(output: &Output) -> io::Result<Self> {
        signals::wake_on_resize();
        let mut screen = Self { output: output.clone(), shown: Vec::new(), size: Self::measure() };
        screen.take()?;
        let rows = screen.size.1;
        screen.output.write_all("\n".repeat(rows.saturating_sub(1)).as_bytes())?;
        Ok(screen)
    }

    /// Returns columns and rows as they are now.
    fn measure() -> (usize, usize) {
        let size = terminal_size::terminal_size_of(io::stdout());
        size.map_or((80, 24), |(columns, rows)| (usize::from(columns.0).max(1), usize::from(rows.0).max(1)))
    }

    /// Returns columns and rows. After a change, the next drawing is a whole one.
    pub fn size(&mut self) -> (usize, usize) {
        let size = Self::measure();
        if size != self.size {
            self.size = size;
            self.shown.clear();
        }
        size
    }

    fn take(&mut self) -> io::Result<()> {
        signals::showing(Terminal::Screen);
        keyboard::set(Keyboard::Read)?;
        self.shown.clear();
        self.output.write_all(b"\x1b[?25l")
    }

    fn give_back(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = self.output.write_all(format!("\x1b[0m\x1b[{};1H\x1b[?25h\r\n", self.size.1).as_bytes());
        keyboard::restore();
        signals::showing(Terminal::Clean);
    }

    /// Draws the lines, which fit into the screen and end with the style of its own. Writes only those that have
    /// changed.
    pub fn draw(&mut self, lines: Vec<String>) -> io::Result<()> {
        let mut text = String::from(if self.shown.is_empty() { "\x1b[H\x1b[J" } else { "" });
        for row in 0..lines.len().max(self.shown.len()) {
            let line = lines.get(row).map_or("", String::as_str);
            if self.shown.get(row).is_none_or(|shown| shown != line) {
                text.extend(["\x1b[", &(row + 1).to_string(), ";1H", line, "\x1b[K"]);
            }
        }
        self.shown = lines;
        if text.is_empty() { Ok(()) } else { self.output.write_all(text.as_bytes()) }
    }

    /// Waits for keys, for bytes at `other`, or for a signal; returns the keys.
    pub fn wait(&mut self, other: BorrowedFd<'_>) -> io::Result<Vec<KeyPress>> {
        let input = io::stdin();
        let mut polled =
            [PollFd::new(input.as_fd(), PollFlags::POLLIN), PollFd::new(other, PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let [keys, _] = polled.map(|polled| polled.revents().is_some_and(|events| !events.is_empty()));
        if !keys {
            return Ok(Vec::new());
        }
        let mut bytes = [0; 256];
        let count = match nix::unistd::read(&input, &mut bytes) {
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Ok(0) | Err(_) => return Ok(vec![KeyPress::Gone]),
            Ok(count) => count,
        };
        self.keys(&bytes[..count])
    }

    /// Returns the keys, without those that mean signals, which are raised.
    fn keys(&mut self, bytes: &[u8]) -> io::Result<Vec<KeyPress>> {
        let mut keys = Vec::new();
        for typed in decode(bytes) {
            match typed {
                Keystroke::Key(key) => keys.push(key),
                Keystroke::Signal(Signal::SIGTSTP) => {
                    self.give_back();
                    // The whole job, as the terminal does.
                    signal::kill(Pid::from_raw(0), Signal::SIGTSTP)?;
                    self.take()?;
                }
                Keystroke::Signal(signal) => signal::kill(Pid::from_raw(0), signal)?,
            }
        }
        Ok(keys)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Keystroke {
    Key(KeyPress),
    Signal(Signal),
}

/// Returns what these bytes of a terminal mean. Sequences that mean nothing here are left out.
fn decode(bytes: &[u8]) -> Vec<Keystroke> {
    let text = String::from_utf8_lossy(bytes);
    let (mut typed, mut rest) = (Vec::new(), text.as_ref());
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        typed.push(match first {
            '\u{3}' => Keystroke::Signal(Signal::SIGINT),
            '\u{1c}' => Keystroke::Signal(Signal::SIGQUIT),
            '\u{1a}' => Keystroke::Signal(Signal::SIGTSTP),
            '\u{1b}' => match rest.strip_prefix(['[', 'O']) {
                Some(sequence) => {
                    let end = sequence.find(|last: char| ('@'..='~').contains(&last));
                    let (body, after) = sequence.split_at(end.map_or(sequence.len(), |end| end + 1));
                    rest = after;
                    match body {
                        "A" => Keystroke::Key(KeyPress::Up),
                        "B" => Keystroke::Key(KeyPress::Down),
                        _ => continue,
                    }
                }
                None => Keystroke::Key(KeyPress::Escape),
            },
            other => Keystroke::Key(KeyPress::Char(other)),
        });
    }
    typed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_keys_or_signals() {
        let key = |key| Keystroke::Key(key);
        for (bytes, typed) in [
            (&b"q"[..], vec![key(KeyPress::Char('q'))]),
            (b"\x1b[A\x1bOBj", vec![key(KeyPress::Up), key(KeyPress::Down), key(KeyPress::Char('j'))]),
            (b"\x1b", vec![key(KeyPress::Escape)]),
            (b"\x1b[1;5Cx\x1b[", vec![key(KeyPress::Char('x'))]),
            (b"\x03\x1c", vec![Keystroke::Signal(Signal::SIGINT), Keystroke::Signal(Signal::SIGQUIT)]),
            (b"\x1a", vec![Keystroke::Signal(Signal::SIGTSTP)]),
            (b"\xff", vec![key(KeyPress::Char('\u{fffd}'))]),
        ] {
            assert_eq!(decode(bytes), typed, "{bytes:?}");
        }
    }
}
