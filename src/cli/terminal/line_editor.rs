//! Reads lines from a terminal, with editing, history, pasted text and lines that go on.

use std::borrow::Cow;
use std::io;

use anstyle::{AnsiColor, Style};
use rustyline::completion::Completer;
use rustyline::config::Config;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Cmd, Editor, Helper, KeyCode, KeyEvent, Modifiers};

use super::keyboard::{self, Keyboard};
use super::signals::{self, Terminal};

/// Begins and ends a text of several lines.
pub const FENCE: &str = "\"\"\"";

/// The prompt of a text that goes on.
const CONTINUATION: &str = "... ";

/// What the user did at the prompt.
#[derive(Debug, PartialEq, Eq)]
pub enum Edited {
    /// Sent this text.
    Text(String),
    /// Pressed Ctrl-C.
    Interrupted,
    /// Pressed Ctrl-D, or closed the terminal.
    End,
    /// Typed or pasted bytes that are not UTF-8. They and what came with them are dropped.
    NotText,
}

/// The colour of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tint {
    Plain,
    Warning,
    Alarm,
}

/// Returns the number of columns of the terminal on standard output.
pub fn columns() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(80, |(width, _)| usize::from(width.0))
}

/// Reads lines from the terminal on standard input, also those that are typed while nothing reads them.
pub struct LineEditor {
    editor: Editor<Assistant, MemHistory>,
    color: bool,
}

impl LineEditor {
    /// Returns an editor that completes `words` at the beginning of a line. On a dumb terminal, it is the terminal that
    /// edits.
    pub fn new(color: bool, is_dumb: bool, words: Vec<String>) -> io::Result<Self> {
        let config = Config::builder().history_ignore_dups(true).map_err(io_error)?;
        // The keyboard has pasted text marked all the time.
        let config = config.bracketed_paste(false).build();
        let mut editor = Editor::with_history(config, MemHistory::new()).map_err(io_error)?;
        editor.set_helper(Some(Assistant { words }));
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
        if !is_dumb {
            signals::restore_while_stopped();
            keyboard::set(Keyboard::Kept)?;
        }
        Ok(Self { editor, color })
    }

    /// Adds a text to the history.
    pub fn remember(&mut self, text: &str) {
        // The history is in memory, which cannot fail.
        let _ = self.editor.add_history_entry(text);
    }

    /// Reads one text, which may have several lines; `initial` can be edited. A backslash at the end continues the
    /// text.
    pub fn read(&mut self, prompt: &str, tint: Tint, initial: &str) -> io::Result<Edited> {
        let mut text = String::new();
        let mut edited = self.read_part(prompt, tint, initial)?;
        while let Edited::Text(part) = &edited
            && let Some(start) = continued(part)
        {
            text = text + start + "\n";
            edited = self.read_part(CONTINUATION, Tint::Plain, "")?;
        }
        Ok(match edited {
            Edited::Text(last) => Edited::Text(text + &last),
            other => other,
        })
    }

    fn read_part(&mut self, prompt: &str, tint: Tint, initial: &str) -> io::Result<Edited> {
        let prompt = (prompt, if self.color { tinted(prompt, tint) } else { prompt.to_owned() });
        signals::showing(Terminal::Edited);
        let read = self.editor.readline_with_initial(&prompt, (initial, ""));
        signals::showing(Terminal::Clean);
        match read {
            Ok(text) => Ok(Edited::Text(text)),
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => Ok(Edited::Interrupted),
            Err(ReadlineError::Eof) => Ok(Edited::End),
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                keyboard::drop_typed();
                Ok(Edited::NotText)
            }
            Err(error) => Err(io_error(error)),
        }
    }
}

impl Drop for LineEditor {
    fn drop(&mut self) {
        keyboard::restore();
    }
}

fn tinted(prompt: &str, tint: Tint) -> String {
    let style = match tint {
        Tint::Plain => Style::new().dimmed(),
        Tint::Warning => AnsiColor::Yellow.on_default(),
        Tint::Alarm => AnsiColor::Red.on_default().bold(),
    };
    format!("{style}{prompt}{style:#}")
}

fn io_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        ReadlineError::Errno(error) => error.into(),
        other => io::Error::other(other),
    }
}

/// Returns whether `text` begins with a fence that does not end.
fn is_open(text: &str) -> bool {
    text.trim_start().strip_prefix(FENCE).is_some_and(|rest| !rest.trim_end().ends_with(FENCE))
}

/// Returns the text before the backslash that continues it.
fn continued(text: &str) -> Option<&str> {
    if text.trim_start().starts_with(FENCE) { None } else { text.strip_suffix('\\') }
}

/// Completes the words at the beginning of a line, and has Enter begin a new line between fences.
struct Assistant {
    words: Vec<String>,
}

impl Helper for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        prompt.into()
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_open(context.input()) {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..cursor).filter(|typed| !typed.is_empty()).unwrap_or("\n");
        Ok((0, self.words.iter().filter(|word| word.starts_with(typed)).cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_and_backslashes_continue_a_text() {
        for (text, open, start) in [
            ("", false, None),
            ("one", false, None),
            ("one \\", false, Some("one ")),
            ("\\", false, Some("")),
            ("\"\"\"", true, None),
            ("\"\"\"one \\", true, None),
            ("\"\"\"one\ntwo\"\"\"", false, None),
            (" \"\"\"one\ntwo\"\"\" ", false, None),
            ("one \"\"\"", false, None),
            ("\"\"\"\"\"", true, None),
            ("\"\"\"\"\"\"", false, None),
        ] {
            assert_eq!((is_open(text), continued(text)), (open, start), "{text:?}");
        }
    }
}
