//! The status line: the last line of stderr on a terminal.
//!
//! The next status overwrites it; a message erases it first.

use std::sync::{Mutex, PoisonError};

use super::cells;
use super::signals::{self, Terminal};
use super::streams::Output;

/// The line that progress, waits and spinners share.
#[derive(Debug)]
pub struct StatusLine {
    error: Output,
    shown: Mutex<bool>,
}

impl StatusLine {
    /// Returns a line on `error`, a terminal that can erase lines.
    pub fn new(error: Output) -> Self {
        Self { error, shown: Mutex::new(false) }
    }

    /// Shows `text`, which must have no control characters. It is cut to the width of the terminal: a wrapped line
    /// cannot be overwritten.
    pub fn show(&self, text: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        signals::showing(Terminal::Line);
        *shown = true;
        let line = cells::cut(text, line_width());
        // A closed stderr is not an error.
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

/// Returns the maximum number of cells of a line on stderr: one is left for the cursor.
pub fn line_width() -> usize {
    terminal_size::terminal_size_of(std::io::stderr())
        .map_or(79, |(width, _)| usize::from(width.0).saturating_sub(1))
}
