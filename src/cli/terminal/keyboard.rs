//! The settings of the terminal on standard input: what fusion makes of them, and how they are restored.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::termios::tcgetattr;

/// The longest pause within a pasted text, in milliseconds.
const PAUSE_MS: u8 = 50;

/// What happens to a key before fusion reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Keyboard {
    /// As fusion found it: a line is edited by the terminal.
    Found = 0,
    /// It waits for the next prompt, off the screen, and so does pasted text; only the keys of signals act.
    Kept = 1,
    /// It is passed on, also if it is that of a signal.
    Read = 2,
}

/// The [`Keyboard`] as a number.
static NOW: AtomicU8 = AtomicU8::new(Keyboard::Found as u8);

/// The settings that fusion found.
static FOUND: OnceLock<libc::termios> = OnceLock::new();

/// Until it is dropped, the terminal is as fusion found it: for a program, or a question.
#[derive(Debug)]
#[must_use = "the terminal is lent until this is dropped"]
pub struct Lent(bool);

/// Lends the terminal if its keys are [kept](Keyboard::Kept).
pub fn lend() -> Lent {
    Lent(restore())
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.0 {
            keep();
        }
    }
}

/// Changes the settings.
pub fn set(keyboard: Keyboard) -> io::Result<()> {
    if FOUND.get().is_none() {
        let _ = FOUND.set(tcgetattr(io::stdin())?.into());
    }
    apply(keyboard)
}

/// Keeps what is typed for the next prompt.
pub fn keep() {
    // A terminal that is gone needs nothing.
    let _ = apply(Keyboard::Kept);
}

/// Drops what was typed, until nothing more comes: the rest of a pasted text would be taken for messages.
pub fn drop_typed() {
    let (input, mut bytes) = (io::stdin(), [0; 4096]);
    let mut polled = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    while poll(&mut polled, PAUSE_MS).is_ok_and(|ready| ready > 0)
        && nix::unistd::read(&input, &mut bytes).is_ok_and(|count| count > 0)
    {}
}

/// Restores the settings that fusion found; returns whether keys were [kept](Keyboard::Kept). Async-signal-safe.
pub fn restore() -> bool {
    let was = NOW.load(Ordering::Relaxed);
    if was != Keyboard::Found as u8 {
        let _ = apply(Keyboard::Found);
    }
    was == Keyboard::Kept as u8
}

/// Async-signal-safe: atomics, one write, one tcsetattr.
fn apply(keyboard: Keyboard) -> io::Result<()> {
    let Some(mut settings) = FOUND.get().copied() else { return Ok(()) };
    let was_kept = NOW.swap(keyboard as u8, Ordering::Relaxed) == Keyboard::Kept as u8;
    let unedited = libc::ICANON | libc::ECHO | libc::IEXTEN;
    let (input, local, paste): (_, _, &[u8]) = match keyboard {
        // Enter is then the same byte as at the prompt.
        Keyboard::Kept => (libc::ICRNL, unedited, b"\x1b[?2004h"),
        // Without signals from keys, Ctrl-Z can restore the terminal first.
        Keyboard::Read => (0, unedited | libc::ISIG, b""),
        Keyboard::Found if was_kept => (0, 0, b"\x1b[?2004l"),
        Keyboard::Found => (0, 0, b""),
    };
    settings.c_iflag &= !input;
    settings.c_lflag &= !local;
    #[expect(unsafe_code, reason = "nix has a lock around its settings, and standard output may be locked")]
    // SAFETY: write and tcsetattr are async-signal-safe; pointer and length are those of one static slice, and the
    // settings are those that tcgetattr gave, but for a few flags.
    let result = unsafe {
        libc::write(libc::STDOUT_FILENO, paste.as_ptr().cast(), paste.len());
        libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const settings)
    };
    Ok(nix::errno::Errno::result(result).map(drop)?)
}
