//! The signals that end fusion itself: remembered while something must be finished first, or obeyed at once with the
//! terminal left clean.
//!
//! A signal that was ignored when fusion started (as under `nohup`) stays ignored. One that was blocked, which is
//! inherited too and hardly ever meant, is unblocked, so that every command can be interrupted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::libc;
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};

use crate::core::cancel::{CancelToken, Cancelled};

/// What a terminal, a person and a service manager send to end a program.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP];

/// What a remembered signal cancels. A signal handler reaches nothing but statics; all other code is handed the token.
static TOKEN: OnceLock<CancelToken> = OnceLock::new();

/// The [`Terminal`] as a number.
static TERMINAL: AtomicU8 = AtomicU8::new(Terminal::Clean as u8);

/// What standard error shows that must not stay behind when a signal ends fusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Terminal {
    /// Nothing.
    Clean = 0,
    /// A line that will be overwritten, such as a spinner.
    Line = 1,
    /// Coloured or dim text.
    Styled = 2,
}

/// While it lives, signals that end fusion are only remembered.
#[derive(Debug)]
#[must_use = "signals are remembered only while this lives"]
pub struct Remembering {
    previous: Vec<(Signal, SigAction)>,
}

/// From now on, SIGINT, SIGQUIT, SIGTERM and SIGHUP only cancel the [`token`].
pub fn remember() -> Remembering {
    TOKEN.get_or_init(CancelToken::new);
    // Restarted, so that a library which takes EINTR for a failure does not fail.
    Remembering { previous: install(remember_signal, SaFlags::SA_RESTART) }
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

/// From now on, SIGINT, SIGQUIT, SIGTERM and SIGHUP first clean the terminal as [`showing`] says, and then end fusion as they
/// always do.
pub fn clean_terminal_on_death() {
    // Raised again in the handler, where by these flags it is neither caught nor blocked any more.
    install(clean_and_die, SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER);
}

/// Says what standard error, a terminal, shows now.
pub fn showing(terminal: Terminal) {
    TERMINAL.store(terminal as u8, Ordering::Relaxed);
}

/// Ends fusion by a signal that was remembered, so that a shell sees a death by that signal. Returns only when the
/// system refuses.
pub fn raise_again(signal: Signal) {
    clean_terminal();
    set_action(signal, &SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty()));
    unblock(signal);
    // When it fails, the caller goes on to an ordinary exit code.
    let _ = signal::raise(signal);
}

extern "C" fn remember_signal(number: libc::c_int) {
    if let Some(token) = TOKEN.get() {
        token.cancel(Cancelled::Signal(number));
    }
}

extern "C" fn clean_and_die(number: libc::c_int) {
    clean_terminal();
    #[expect(unsafe_code, reason = "in a signal handler, the bare function is the one known to be safe")]
    // SAFETY: raise is async-signal-safe.
    unsafe {
        libc::raise(number);
    }
}

/// Async-signal-safe: one atomic exchange and one write.
fn clean_terminal() {
    let shown = TERMINAL.swap(Terminal::Clean as u8, Ordering::Relaxed);
    let reset: &[u8] = if shown == Terminal::Line as u8 {
        b"\r\x1b[K\x1b[0m"
    } else if shown == Terminal::Styled as u8 {
        b"\x1b[0m\n"
    } else {
        return;
    };
    #[expect(unsafe_code, reason = "standard error may be locked by the code that was interrupted")]
    // SAFETY: write is async-signal-safe; pointer and length are those of one static slice.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, reset.as_ptr().cast(), reset.len()) };
}

fn install(handler: extern "C" fn(libc::c_int), flags: SaFlags) -> Vec<(Signal, SigAction)> {
    let action = SigAction::new(SigHandler::Handler(handler), flags, SigSet::empty());
    let caught = ENDING.into_iter().filter(|signal| !is_ignored(*signal));
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

/// Sets what a signal does, and returns what it did.
fn set_action(signal: Signal, action: &SigAction) -> Option<SigAction> {
    #[expect(unsafe_code, reason = "a handler can interrupt anything")]
    // SAFETY: the actions are the default, those found in place, and the two handlers of this file, which use
    // atomics, write and raise only.
    unsafe { signal::sigaction(signal, action) }.ok()
}

fn unblock(signal: Signal) {
    let mut set = SigSet::empty();
    set.add(signal);
    // Cannot fail for a set of known signals.
    let _ = set.thread_unblock();
}
