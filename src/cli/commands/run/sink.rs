//! Where the answer goes: its text to stdout as it arrives, or into memory for `--json` and `--schema`; its reasoning
//! to stderr, or nowhere.

use std::io;
use std::mem;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use crate::cli::terminal::filter::TerminalFilter;
use crate::cli::terminal::signals::{self, Remembering, Terminal};
use crate::cli::terminal::streams;
use crate::cli::terminal::ui::Ui;
use crate::cli::terminal::waiting::{FRAME_INTERVAL, Waiting};
use crate::core::api::chat::Receiver;
use crate::core::cancel::CancelToken;

/// Takes the answer.
pub(super) struct Sink {
    waiting: Waiting,
    cancel: CancelToken,
    stdout: streams::Output,
    output: Option<Output>,
    reasoning_output: Option<ReasoningOutput>,
    /// Whether both are written to as the answer is made.
    as_made: bool,
    /// There is text that is printed at the end: a signal must wait until it is.
    keeping: Option<Remembering>,
    /// The text, where it is needed as a whole.
    pub(super) text: Option<String>,
    /// The reasoning, where it is needed as a whole.
    pub(super) reasoning: Option<String>,
    /// Whether there was any text.
    pub(super) has_text: bool,
    pub(super) begun: Instant,
    /// When it was looked last whether anybody still reads.
    looked: Instant,
    /// From the request to the first piece of the answer.
    pub(super) first_piece: Option<Duration>,
}

/// What becomes of an answer's parts.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // Independent switches.
pub(super) struct Wishes {
    /// The text is printed.
    pub print_text: bool,
    /// What is printed is printed as it is made, and not at the end.
    pub print_as_made: bool,
    /// The reasoning is printed on stderr.
    pub print_reasoning: bool,
    /// The text is wanted as a whole.
    pub keep_text: bool,
    /// The reasoning is wanted as a whole.
    pub keep_reasoning: bool,
}

impl Sink {
    /// Takes an answer from now on.
    pub(super) fn new(ui: &Ui, waiting: Waiting, cancel: CancelToken, wishes: Wishes) -> Self {
        Self {
            waiting,
            cancel,
            stdout: ui.output().clone(),
            output: wishes.print_text.then(|| Output::new(ui)),
            reasoning_output: wishes.print_reasoning.then(|| ReasoningOutput::new(ui)),
            as_made: wishes.print_as_made,
            keeping: None,
            text: wishes.keep_text.then(String::new),
            reasoning: wishes.keep_reasoning.then(String::new),
            has_text: false,
            begun: Instant::now(),
            looked: Instant::now(),
            first_piece: None,
        }
    }

    /// Writes what is left, and ends the text with a newline, where it has none.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        // The reader may take its time: another signal ends that at once.
        self.keeping = None;
        self.waiting.end();
        if let Some(reasoning) = &mut self.reasoning_output {
            reasoning.end();
        }
        self.output.as_mut().map_or(Ok(()), Output::finish)
    }

    /// How long it has taken so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether text is on stdout as soon as it has come.
    fn shows_text(&self) -> bool {
        self.as_made && self.output.is_some()
    }
}

impl Receiver for Sink {
    fn begin(&mut self) {
        self.begun = Instant::now();
        self.waiting.restart();
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let is_shown = self.shows_text();
        if !self.has_text {
            self.has_text = true;
            self.first_piece.get_or_insert_with(|| self.begun.elapsed());
            if let Some(reasoning) = &mut self.reasoning_output
                && self.as_made
            {
                reasoning.end();
            }
            if is_shown {
                self.waiting.end();
            } else {
                self.keeping.get_or_insert_with(signals::remember);
            }
        }
        if !is_shown {
            self.waiting.set_what("writing the answer");
        }
        if let Some(kept) = &mut self.text {
            kept.push_str(text);
        }
        if let Some(output) = &mut self.output {
            output.push(text);
        }
        Ok(())
    }

    fn reasoning(&mut self, text: &str) -> io::Result<()> {
        self.first_piece.get_or_insert_with(|| self.begun.elapsed());
        if self.reasoning.is_some() || (self.reasoning_output.is_some() && !self.as_made) {
            self.keeping.get_or_insert_with(signals::remember);
        }
        if let Some(kept) = &mut self.reasoning {
            kept.push_str(text);
        }
        if let Some(output) = &mut self.reasoning_output {
            output.push(text);
        }
        if self.as_made && self.reasoning_output.is_some() {
            self.waiting.end();
        } else {
            self.waiting.set_what("thinking");
        }
        Ok(())
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.waiting.set_what(format!("reading the prompt, {done} of {total} tokens"));
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.cancel.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // Who writes finds out by that.
        let writes = self.shows_text() && self.has_text;
        if !writes && self.looked.elapsed() >= FRAME_INTERVAL {
            self.looked = Instant::now();
            if self.stdout.reader_is_gone(PollTimeout::ZERO) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        if !self.as_made {
            return Ok(());
        }
        if let Some(reasoning) = &mut self.reasoning_output {
            reasoning.flush();
        }
        self.output.as_mut().map_or(Ok(()), Output::flush)
    }
}

/// Standard output: one write for each flush, filtered when it is a terminal.
struct Output {
    stdout: streams::Output,
    filter: Option<TerminalFilter>,
    pending: String,
    /// The last line has no end yet.
    in_line: bool,
}

impl Output {
    fn new(ui: &Ui) -> Self {
        let filter = ui.stdout_is_terminal.then(TerminalFilter::default);
        Self { stdout: ui.output().clone(), filter, pending: String::new(), in_line: false }
    }

    fn push(&mut self, text: &str) {
        match &mut self.filter {
            Some(filter) => filter.push(text.as_bytes(), &mut self.pending),
            None => self.pending.push_str(text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(last) = self.pending.as_bytes().last() {
            self.in_line = *last != b'\n';
            self.stdout.write_all(self.pending.as_bytes())?;
            self.pending.clear();
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(filter) = &mut self.filter {
            filter.finish(&mut self.pending);
        }
        let in_line = self.pending.as_bytes().last().map_or(self.in_line, |last| *last != b'\n');
        if in_line {
            self.pending.push('\n');
        }
        self.flush()
    }
}

/// Reasoning on standard error: dim where there is colour, always filtered, and ended by a newline.
struct ReasoningOutput {
    stderr: streams::Output,
    color: bool,
    filter: TerminalFilter,
    pending: String,
    in_line: bool,
}

impl ReasoningOutput {
    fn new(ui: &Ui) -> Self {
        Self {
            stderr: ui.error().clone(),
            color: ui.stderr_color,
            filter: TerminalFilter::default(),
            pending: String::new(),
            in_line: false,
        }
    }

    fn push(&mut self, text: &str) {
        self.filter.push(text.as_bytes(), &mut self.pending);
    }

    /// A closed stderr is no reason to fail.
    fn flush(&mut self) {
        let Some(last) = self.pending.as_bytes().last() else { return };
        self.in_line = *last != b'\n';
        let text = mem::take(&mut self.pending);
        let text = if self.color { format!("\x1b[2m{text}\x1b[0m") } else { text };
        let _ = self.stderr.write_all(text.as_bytes());
        signals::showing(if self.color && self.in_line { Terminal::Styled } else { Terminal::Clean });
    }

    fn end(&mut self) {
        self.filter.finish(&mut self.pending);
        self.flush();
        if mem::take(&mut self.in_line) {
            let _ = self.stderr.write_all(b"\n");
            signals::showing(Terminal::Clean);
        }
    }
}
