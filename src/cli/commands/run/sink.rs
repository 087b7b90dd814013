//! Receives the answer: prints its text on stdout, or keeps it for `--json` and `--schema`; prints its reasoning on
//! stderr, or drops it.

use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use crate::cli::terminal::filter::TerminalFilter;
use crate::cli::terminal::signals::{self, Remembering, Terminal};
use crate::cli::terminal::streams;
use crate::cli::terminal::ui::{Ui, dimmed};
use crate::cli::terminal::waiting::{FRAME_INTERVAL, Waiting};
use crate::core::api::chat::Receiver;
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::cancel::CancelToken;

/// Receives the answer.
pub(in crate::cli::commands) struct Sink {
    waiting: Waiting,
    cancel: CancelToken,
    stdout: streams::Output,
    output: Option<AnswerOutput>,
    reasoning_output: Option<ReasoningOutput>,
    /// Whether both are written while the answer is generated.
    as_generated: bool,
    /// While there is text to print at the end, a signal only cancels.
    keeping: Option<Remembering>,
    /// The whole text, if it is kept.
    pub(in crate::cli::commands) text: Option<String>,
    /// The whole reasoning, if it is kept.
    pub(in crate::cli::commands) reasoning: Option<String>,
    pub(in crate::cli::commands) has_text: bool,
    pub(in crate::cli::commands) has_reasoning: bool,
    pub(in crate::cli::commands) started: Instant,
    /// When the reader of stdout was last checked.
    reader_checked: Instant,
    /// From the request to the first delta of the answer.
    pub(in crate::cli::commands) first_delta: Option<Duration>,
}

/// What is printed and what is kept of an answer.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(in crate::cli::commands) struct SinkOptions {
    pub print_text: bool,
    /// Print while the answer is generated, not at the end.
    pub print_as_generated: bool,
    /// Print the reasoning on stderr.
    pub print_reasoning: bool,
    pub keep_text: bool,
    pub keep_reasoning: bool,
}

impl Sink {
    /// Returns a sink whose clock starts now.
    pub(in crate::cli::commands) fn new(
        ui: &Ui,
        waiting: Waiting,
        cancel: CancelToken,
        options: SinkOptions,
    ) -> Self {
        Self {
            waiting,
            cancel,
            stdout: ui.output().clone(),
            output: options.print_text.then(|| AnswerOutput::new(ui)),
            reasoning_output: options.print_reasoning.then(|| ReasoningOutput::new(ui)),
            as_generated: options.print_as_generated,
            keeping: None,
            text: options.keep_text.then(String::new),
            reasoning: options.keep_reasoning.then(String::new),
            has_text: false,
            has_reasoning: false,
            started: Instant::now(),
            reader_checked: Instant::now(),
            first_delta: None,
        }
    }

    /// Writes the rest, and ends the text with a newline if it has none.
    pub(in crate::cli::commands) fn finish(&mut self) -> io::Result<()> {
        // The reader may be slow: from here on a signal ends fusion at once.
        self.keeping = None;
        self.waiting.end();
        if let Some(reasoning) = &mut self.reasoning_output {
            reasoning.end();
        }
        self.output.as_mut().map_or(Ok(()), AnswerOutput::finish)
    }

    /// Returns the time since the request.
    pub(in crate::cli::commands) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns whether text is printed when it arrives.
    fn shows_text(&self) -> bool {
        self.as_generated && self.output.is_some()
    }
}

/// Returns an idle timeout that shows the wait meanwhile, and ends it when `cancel` is cancelled or nothing reads
/// stdout.
pub(in crate::cli::commands) fn observed(
    ui: &Ui,
    timeout: Duration,
    waiting: &Waiting,
    cancel: &CancelToken,
) -> IdleTimeout {
    let (waiting, cancel, output) = (waiting.clone(), cancel.clone(), ui.output().clone());
    IdleTimeout::new(timeout, FRAME_INTERVAL, move || {
        waiting.tick();
        let is_over = cancel.is_cancelled() || output.reader_is_gone(PollTimeout::ZERO);
        if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

impl Receiver for Sink {
    fn begin(&mut self) {
        self.started = Instant::now();
        self.waiting.restart();
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let is_shown = self.shows_text();
        if !self.has_text {
            self.has_text = true;
            self.first_delta.get_or_insert_with(|| self.started.elapsed());
            if let Some(reasoning) = &mut self.reasoning_output
                && self.as_generated
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
            self.waiting.set_activity("receiving the answer");
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
        self.has_reasoning = true;
        self.first_delta.get_or_insert_with(|| self.started.elapsed());
        if self.reasoning.is_some() || (self.reasoning_output.is_some() && !self.as_generated) {
            self.keeping.get_or_insert_with(signals::remember);
        }
        if let Some(kept) = &mut self.reasoning {
            kept.push_str(text);
        }
        if let Some(output) = &mut self.reasoning_output {
            output.push(text);
        }
        if self.as_generated && self.reasoning_output.is_some() {
            self.waiting.end();
        } else {
            self.waiting.set_activity("reasoning");
        }
        Ok(())
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.waiting.set_activity(format!("processing the prompt: {done} of {total} tokens"));
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.cancel.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // A write reports a closed pipe itself.
        let writes = self.shows_text() && self.has_text;
        if !writes && self.reader_checked.elapsed() >= FRAME_INTERVAL {
            self.reader_checked = Instant::now();
            if self.stdout.reader_is_gone(PollTimeout::ZERO) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        if !self.as_generated {
            return Ok(());
        }
        if let Some(reasoning) = &mut self.reasoning_output {
            reasoning.flush();
        }
        self.output.as_mut().map_or(Ok(()), AnswerOutput::flush)
    }
}

/// Standard output: one write per flush, filtered on a terminal.
struct AnswerOutput {
    stdout: streams::Output,
    filter: Option<TerminalFilter>,
    pending: String,
    /// Whether the last line lacks its newline.
    in_line: bool,
}

impl AnswerOutput {
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

/// Reasoning on standard error: dim with colour, always filtered, and ended by a newline.
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

    /// Writes what is pending; a closed stderr is not an error.
    fn flush(&mut self) {
        let Some(last) = self.pending.as_bytes().last() else { return };
        self.in_line = *last != b'\n';
        let text = mem::take(&mut self.pending);
        let text = if self.color { dimmed(&text) } else { text };
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
