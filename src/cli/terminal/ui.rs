//! [`Ui`]: results on stdout, everything else on stderr, with colour and safe for terminals.

use std::ffi::OsString;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use clap::ArgMatches;

use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::cells;
pub use crate::cli::terminal::filter::printable;
use crate::cli::terminal::status_line::StatusLine;
use crate::cli::terminal::streams::{Input, Output, Streams};
use crate::core::json_object;
use crate::env::Environment;

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorChoice {
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    pub const WORDS: [&str; 3] = ["auto", "always", "never"];

    fn named(word: Option<&str>) -> Self {
        match word {
            Some("always") => Self::Always,
            Some("never") => Self::Never,
            _ => Self::Auto,
        }
    }

    /// Finds the value of `--color` without parsing, for the errors of the parser.
    pub fn find(arguments: &[OsString]) -> Self {
        let options = arguments.split(|argument| argument == "--").next().unwrap_or_default();
        let given =
            options.iter().enumerate().rev().find_map(|(index, argument)| match argument.to_str()? {
                "--color" => options.get(index + 1)?.to_str(),
                other => other.strip_prefix("--color="),
            });
        Self::named(given)
    }

    /// Returns whether a stream gets colour.
    pub fn colors(self, is_terminal: bool, environment: &Environment) -> bool {
        match self {
            Self::Auto => is_terminal && !environment.no_color,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// The output of a command. A clone writes to the same streams.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Ui {
    pub quiet: bool,
    pub verbose: bool,
    pub stdout_is_terminal: bool,
    pub stderr_is_terminal: bool,
    stdout_is_dumb: bool,
    pub stdout_color: bool,
    pub stderr_color: bool,
    streams: Streams,
    /// `None` without colour, too: such a terminal may not be able to erase a line.
    status: Option<Arc<StatusLine>>,
}

impl Ui {
    /// Returns the output that the global options and the terminals require.
    pub fn new(environment: &Environment, streams: Streams, matches: &ArgMatches) -> Self {
        let choice = ColorChoice::named(matches.get_one::<String>("color").map(String::as_str));
        let quiet = matches.get_flag("quiet");
        let stderr_color = choice.colors(environment.stderr_is_terminal, environment);
        let redraws = environment.stderr_is_terminal && stderr_color && !quiet;
        Self {
            quiet,
            verbose: matches.get_flag("verbose"),
            stdout_is_terminal: environment.stdout_is_terminal,
            stderr_is_terminal: environment.stderr_is_terminal,
            stdout_is_dumb: environment.terminal_is_dumb,
            stdout_color: choice.colors(environment.stdout_is_terminal, environment),
            stderr_color,
            status: redraws.then(|| Arc::new(StatusLine::new(streams.error.clone()))),
            streams,
        }
    }

    pub fn input(&self) -> &Input {
        &self.streams.input
    }

    /// Returns the bare stdout.
    pub fn output(&self) -> &Output {
        &self.streams.output
    }

    /// Returns the bare stderr.
    pub fn error(&self) -> &Output {
        &self.streams.error
    }

    /// Returns whether stderr has a status line.
    pub fn redraws(&self) -> bool {
        self.status.is_some()
    }

    /// Shows `text` on the status line, if there is one.
    pub fn status(&self, text: &str) {
        if let Some(status) = &self.status {
            status.show(&printable(text).replace('\n', " "));
        }
    }

    /// Erases the status line.
    pub fn clear_status(&self) {
        if let Some(status) = &self.status {
            status.clear();
        }
    }

    /// Writes a result to stdout. A closed pipe is a failure without a message.
    pub fn result(&self, text: &str) -> Result<(), Failure> {
        self.write_result(text.as_bytes())
    }

    /// Writes bytes that fusion did not make: unchanged to a pipe, filtered to a terminal.
    pub fn result_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        if self.stdout_is_terminal {
            return self.result(&printable(&String::from_utf8_lossy(bytes)));
        }
        self.write_result(bytes)
    }

    /// Writes bytes to stdout as they are. What other programs made must be filtered for a terminal.
    pub fn write_result(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.clear_status();
        self.streams.output.write_all(bytes).map_err(|error| Failure::output(&error))
    }

    /// Returns the number of columns of the terminal on stdout; `None` if stdout is not a terminal.
    pub fn screen_width(&self) -> Option<usize> {
        self.screen().map(|(columns, _)| columns)
    }

    fn screen(&self) -> Option<(usize, usize)> {
        let size = terminal_size::terminal_size_of(std::io::stdout()).filter(|_| self.stdout_is_terminal)?;
        Some((usize::from(size.0.0), usize::from(size.1.0)))
    }

    /// Draws `text` over the screen of stdout, line by line: clearing the screen first would make it flicker. A
    /// terminal that obeys no escape codes gets the text below the last one.
    pub fn redraw(&self, text: &str) -> Result<(), Failure> {
        if self.stdout_is_dumb {
            return self.result(&format!("{text}\n"));
        }
        // A line that wraps, or one too many, would move the screen.
        let (columns, rows) = self.screen().unwrap_or((usize::MAX, usize::MAX));
        let lines = text.lines().take(rows.saturating_sub(1)).map(|line| cells::cut(line, columns));
        let lines = lines.fold(String::new(), |lines, line| lines + line + "\x1b[K\n");
        let screen = format!("\x1b[H{lines}\x1b[J");
        self.streams.output.write_all(screen.as_bytes()).map_err(|error| Failure::output(&error))
    }

    /// Writes a result as indented JSON.
    pub fn json(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        self.json_text(json_object::indented(value))
    }

    /// Writes a result as JSON on one line.
    pub fn json_line(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        self.json_text(serde_json::to_string(value))
    }

    fn json_text(&self, text: serde_json::Result<String>) -> Result<(), Failure> {
        let text = text.map_err(|error| Failure::of(Exit::Failed, &error))?;
        self.result(&(without_controls(text) + "\n"))
    }

    /// Prints a message on stderr, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.line("", Style::new(), text);
        }
    }

    /// Prints a message on stderr with `--verbose`.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.line("", Style::new().dimmed(), text);
        }
    }

    /// Prints a warning on stderr.
    pub fn warning(&self, text: &str) {
        self.line("warning: ", AnsiColor::Yellow.on_default().bold(), text);
    }

    /// Prints a hint on stderr, unless `--quiet`.
    pub fn hint(&self, text: &str) {
        if !self.quiet {
            self.hint_line(text);
        }
    }

    fn hint_line(&self, text: &str) {
        self.line("hint: ", AnsiColor::Cyan.on_default().bold(), text);
    }

    /// Prints a failure and returns its exit code.
    pub fn failure(&self, failure: &Failure) -> Exit {
        for line in &failure.details {
            self.line("", Style::new(), line);
        }
        if !failure.message.is_empty() {
            self.line("error: ", AnsiColor::Red.on_default().bold(), &failure.message);
        }
        for cause in &failure.causes {
            self.line("  caused by: ", Style::new().dimmed(), cause);
        }
        if let Some(hint) = &failure.hint {
            self.hint_line(hint);
        }
        failure.exit
    }

    /// Writes a message with one write: messages of several processes do not mix.
    fn line(&self, prefix: &str, style: Style, text: &str) {
        self.clear_status();
        let text = printable(text);
        let line = match (self.stderr_color, prefix.is_empty()) {
            (false, _) => format!("{prefix}{text}\n"),
            (true, true) => format!("{style}{text}{style:#}\n"),
            (true, false) => format!("{style}{prefix}{style:#}{text}\n"),
        };
        // A closed stderr is not an error.
        let _ = self.streams.error.write_all(line.as_bytes());
    }
}

/// Escapes the control characters from U+007F to U+009F, which JSON allows and terminals obey.
fn without_controls(json: String) -> String {
    let is_obeyed = |character: char| ('\u{7f}'..='\u{9f}').contains(&character);
    if !json.contains(is_obeyed) {
        return json;
    }
    let escaped = |character: char| {
        if is_obeyed(character) { format!("\\u{:04x}", u32::from(character)) } else { character.to_string() }
    };
    json.chars().map(escaped).collect()
}

/// Returns `text` as a terminal shows it dimmed.
pub fn dimmed(text: &str) -> String {
    format!("\x1b[2m{text}\x1b[0m")
}
