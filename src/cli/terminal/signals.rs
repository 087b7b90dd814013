//! Signals that end fusion: they cancel the work while something must be finished first, else they clean the terminal
//! and end fusion at once.
//!
//! A signal that was ignored when fusion started (as under `nohup`) stays ignored. A blocked signal is unblocked: the
//! mask is inherited, rarely on purpose, and every command must be interruptible.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::libc;
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};

use super::keyboard;
use crate::core::cancel::{CancelToken, Cancelled};

/// The signals that a terminal, a user or a service manager sends to end a program.
const ENDING_SIGNALS: [Signal; 4] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP];

/// Cancelled by a remembered signal. Static, because a signal handler can use only statics.
static TOKEN: OnceLock<CancelToken> = OnceLock::new();

/// The [`Terminal`] as a number.
static TERMINAL: AtomicU8 = AtomicU8::new(Terminal::Clean as u8);

/// The part of standard error that must be cleaned when a signal ends fusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Terminal {
    Clean = 0,
    /// A line that will be overwritten, such as a spinner.
    Line = 1,
    /// Coloured or dim text.
    Styled = 2,
    /// A line that is being edited.
    Edited = 3,
    /// A screen that is drawn again and again, without a cursor.
    Screen = 4,
}

/// Until it is dropped, the signals that end fusion only cancel the [`token`].
#[derive(Debug)]
#[must_use = "signals cancel the token only until this is dropped"]
pub struct Remembering {
    previous: Vec<(Signal, SigAction)>,
}

/// Makes SIGINT, SIGQUIT, SIGTERM and SIGHUP only cancel the [`token`].
pub fn remember() -> Remembering {
    remember_these(&ENDING_SIGNALS)
}

/// Makes SIGINT only cancel the [`token`]: for a command that Ctrl-C does not end.
pub fn remember_interrupts() -> Remembering {
    remember_these(&[Signal::SIGINT])
}

fn remember_these(signals: &[Signal]) -> Remembering {
    TOKEN.get_or_init(CancelToken::new);
    // SA_RESTART, because some libraries treat EINTR as a failure.
    Remembering { previous: install(signals, remember_signal, SaFlags::SA_RESTART) }
}

impl Drop for Remembering {
    fn drop(&mut self) {
        for (signal, action) in &self.previous {
            set_action(*signal, action);
        }
    }
}

/// Returns the token that remembered signals cancel.
pub fn token() -> CancelToken {
    TOKEN.get_or_init(CancelToken::new).clone()
}

/// Returns the signal by which a token was cancelled.
pub fn cause(token: &CancelToken) -> Option<Signal> {
    match token.reason() {
        Some(Cancelled::Signal(number)) => Signal::try_from(number).ok(),
        _ => None,
    }
}

/// Makes SIGINT, SIGQUIT, SIGTERM and SIGHUP clean the terminal as [`showing`] requires before they end fusion.
pub fn clean_terminal_on_death() {
    // The handler raises the signal again: with these flags it is then neither caught nor blocked.
    install(&ENDING_SIGNALS, clean_and_die, SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER);
}

/// Restores the keyboard while Ctrl-Z has stopped fusion.
pub fn restore_while_stopped() {
    install(&[Signal::SIGTSTP], stop, STOPPING);
}

/// The handler raises the signal again, and the system may restart what it interrupted.
const STOPPING: SaFlags = SaFlags::SA_RESETHAND.union(SaFlags::SA_NODEFER).union(SaFlags::SA_RESTART);

extern "C" fn stop(number: libc::c_int) {
    let is_kept = keyboard::restore();
    raise(number);
    if is_kept {
        keyboard::keep();
    }
    set_action(Signal::SIGTSTP, &SigAction::new(SigHandler::Handler(stop), STOPPING, SigSet::empty()));
}

/// Cleans the terminal when fusion panics, before the message of the panic.
pub fn clean_terminal_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        clean_terminal();
        tell(panic);
    }));
}

/// Has a change of the terminal's size interrupt a wait.
pub fn wake_on_resize() {
    install(&[Signal::SIGWINCH], ignore_signal, SaFlags::empty());
}

extern "C" fn ignore_signal(_: libc::c_int) {}

/// Sets what the terminal on standard error shows now.
pub fn showing(terminal: Terminal) {
    TERMINAL.store(terminal as u8, Ordering::Relaxed);
}

/// Ends fusion by a remembered signal, so the shell sees a death by that signal. Returns only if that fails.
pub fn raise_again(signal: Signal) {
    clean_terminal();
    set_action(signal, &SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty()));
    unblock(signal);
    // On failure the caller ends with an exit code.
    let _ = signal::raise(signal);
}

extern "C" fn remember_signal(number: libc::c_int) {
    if let Some(token) = TOKEN.get() {
        token.cancel(Cancelled::Signal(number));
    }
}

extern "C" fn clean_and_die(number: libc::c_int) {
    clean_terminal();
    raise(number);
}

fn raise(number: libc::c_int) {
    #[expect(unsafe_code, reason = "in a signal handler, the bare function is the one known to be safe")]
    // SAFETY: raise is async-signal-safe.
    unsafe {
        libc::raise(number);
    }
}

/// Cleans the terminal. Async-signal-safe: atomics, writes, and one tcsetattr.
fn clean_terminal() {
    keyboard::restore();
    let shown = TERMINAL.swap(Terminal::Clean as u8, Ordering::Relaxed);
    let reset: &[u8] = if shown == Terminal::Line as u8 {
        b"\r\x1b[K\x1b[0m"
    } else if shown == Terminal::Styled as u8 {
        b"\x1b[0m\n"
    } else if shown == Terminal::Edited as u8 {
        b"\n"
    } else if shown == Terminal::Screen as u8 {
        b"\x1b[0m\x1b[?25h\r\n"
    } else {
        return;
    };
    #[expect(unsafe_code, reason = "standard error may be locked by the code that was interrupted")]
    // SAFETY: write is async-signal-safe; pointer and length are those of one static slice.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, reset.as_ptr().cast(), reset.len()) };
}

fn install(
    signals: &[Signal],
    handler: extern "C" fn(libc::c_int),
    flags: SaFlags,
) -> Vec<(Signal, SigAction)> {
    let action = SigAction::new(SigHandler::Handler(handler), flags, SigSet::empty());
    let caught = signals.iter().copied().filter(|signal| !is_ignored(*signal));
    caught
        .filter_map(|signal| {
            let previous = set_action(signal, &action);
            unblock(signal);
            previous.map(|previous| (signal, previous))
        })
        .collect()
}

fn is_ignored(signal: Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    #[expect(unsafe_code, reason = "nix can only ask for a disposition by replacing it")]
    // SAFETY: without a new action, sigaction only writes the present one to `now`, which has its type. All zeroes
    // is a valid value of that type, should the call fail.
    let now = unsafe {
        libc::sigaction(signal as libc::c_int, std::ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    now.sa_sigaction == libc::SIG_IGN
}

/// Sets the action of a signal and returns the previous one.
fn set_action(signal: Signal, action: &SigAction) -> Option<SigAction> {
    #[expect(unsafe_code, reason = "a handler can interrupt anything")]
    // SAFETY: the actions are the default, those found in place, and the handlers of this file, which use
    // atomics, write and raise only.
    unsafe { signal::sigaction(signal, action) }.ok()
}

fn unblock(signal: Signal) {
    let mut set = SigSet::empty();
    set.add(signal);
    // Cannot fail for a set of known signals.
    let _ = set.thread_unblock();
}
