//! Writes logs to standard output: filtered for a terminal; of several, each line begins with the name of its service.

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::terminal::filter::TerminalFilter;
use crate::cli::terminal::ui::Ui;

/// A line of several logs that is longer is divided, because it is held until it is complete.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The log of one service on standard output.
pub(super) struct LogPrinter<'a> {
    ui: &'a Ui,
    filter: Option<TerminalFilter>,
    /// Of several logs: what a line begins with.
    prefix: Option<String>,
    /// Of several logs: the beginning of the next line.
    held: Vec<u8>,
    /// Whether the last line is complete.
    complete: bool,
}

impl<'a> LogPrinter<'a> {
    pub(super) fn new(context: &'a Context, prefix: Option<String>) -> Self {
        let filter = context.ui.stdout_is_terminal.then(TerminalFilter::default);
        Self { ui: &context.ui, filter, prefix, held: Vec::new(), complete: true }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.filter {
            None => self.write_filtered(bytes),
            Some(filter) => {
                let mut text = String::new();
                filter.push(bytes, &mut text);
                self.write_filtered(text.as_bytes())
            }
        }
    }

    fn write_filtered(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(prefix) = &self.prefix else {
            self.complete = bytes.last().map_or(self.complete, |last| *last == b'\n');
            return self.ui.write_result(bytes);
        };
        self.held.extend_from_slice(bytes);
        let mut lines = Vec::new();
        let mut rest = &self.held[..];
        while let Some(length) = line_length(rest) {
            let (line, after) = rest.split_at(length);
            push_line(&mut lines, prefix, line);
            rest = after;
        }
        self.held = rest.to_vec();
        // One write, so lines of several logs do not mix.
        if lines.is_empty() { Ok(()) } else { self.ui.write_result(&lines) }
    }

    /// Completes the last line, on a terminal and of several logs.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        if let Some(filter) = &mut self.filter {
            let mut text = String::new();
            filter.finish(&mut text);
            self.write_filtered(text.as_bytes())?;
        }
        match &self.prefix {
            Some(prefix) if !self.held.is_empty() => {
                let mut line = Vec::new();
                push_line(&mut line, prefix, &self.held);
                self.ui.write_result(&line)
            }
            None if !self.complete && self.filter.is_some() => self.ui.result("\n"),
            _ => Ok(()),
        }
    }
}

/// Returns the length of the first line with its end; `None` if there is no whole line.
fn line_length(bytes: &[u8]) -> Option<usize> {
    match memchr::memchr(b'\n', bytes) {
        Some(end) if end < MAX_LINE_BYTES => Some(end + 1),
        _ => (bytes.len() > MAX_LINE_BYTES).then_some(MAX_LINE_BYTES),
    }
}

fn push_line(lines: &mut Vec<u8>, prefix: &str, line: &[u8]) {
    lines.extend_from_slice(prefix.as_bytes());
    lines.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
    lines.push(b'\n');
}
