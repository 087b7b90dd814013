//! The status line: the last line of stderr on a terminal, overwritten by the next status and erased before any message.

use std::sync::{Mutex, PoisonError};

use super::signals::{self, Terminal};
use super::streams::Output;

/// Progress, waits and spinners share it.
#[derive(Debug)]
pub struct StatusLine {
    error: Output,
    shown: Mutex<bool>,
}

impl StatusLine {
    /// Returns a line on `error`, a terminal that understands how a line is erased.
    pub fn new(error: Output) -> Self {
        Self { error, shown: Mutex::new(false) }
    }

    /// Shows `text`, which holds no control characters and is cut so that it does not wrap: a line that has wrapped
    /// cannot be overwritten.
    pub fn show(&self, text: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        signals::showing(Terminal::Line);
        *shown = true;
        let line: String = text.chars().take(line_width()).collect();
        // A closed stderr is no reason to stop.
        let _ = self.error.write_all(format!("\r\x1b[K\x1b[2m{line}\x1b[0m").as_bytes());
    }

    /// Erases the line.
    pub fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *shown) {
            let _ = self.error.write_all(b"\r\x1b[K");
            signals::showing(Terminal::Clean);
        }
    }
}

/// Returns how many characters a line on stderr may have: one fewer than the terminal, for the cursor.
pub fn line_width() -> usize {
    terminal_size::terminal_size_of(std::io::stderr())
        .map_or(79, |(width, _)| usize::from(width.0).saturating_sub(1))
}
