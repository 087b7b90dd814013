//! The streams: stdout is the result and nothing else, stderr is the rest; colour, and text made safe for terminals.

use std::io::{self, Write};

use clap::ArgMatches;

use crate::cli::error::{Exit, Failure};
use crate::env::Environment;

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On terminals.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// How to talk to the user.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // Independent switches.
pub struct Ui {
    /// `--quiet`: only what went wrong.
    pub quiet: bool,
    /// `--verbose`.
    pub verbose: bool,
    /// Whether stdout is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether stderr is a terminal.
    pub stderr_is_terminal: bool,
    /// Whether stdout gets colour.
    pub stdout_color: bool,
    /// Whether stderr gets colour.
    pub stderr_color: bool,
}

impl Ui {
    /// From the global options and the terminals.
    pub fn new(environment: &Environment, matches: &ArgMatches) -> Self {
        let choice = matches.get_one::<ColorChoice>("color").copied().unwrap_or(ColorChoice::Auto);
        let color = |is_terminal: bool| match choice {
            ColorChoice::Auto => is_terminal && !environment.no_color,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Self {
            quiet: matches.get_flag("quiet"),
            verbose: matches.get_flag("verbose"),
            stdout_is_terminal: environment.stdout_is_terminal,
            stderr_is_terminal: environment.stderr_is_terminal,
            stdout_color: color(environment.stdout_is_terminal),
            stderr_color: color(environment.stderr_is_terminal),
        }
    }

    /// Writes the result.
    pub fn result(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Says something on stderr, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.line("", text);
        }
    }

    /// Warns on stderr.
    pub fn warning(&self, text: &str) {
        self.line("warning: ", text);
    }

    /// Prints a failure and gives its exit code.
    pub fn failure(&self, failure: &Failure) -> Exit {
        self.line("error: ", &failure.message);
        for cause in &failure.causes {
            self.line("  caused by: ", cause);
        }
        if let Some(hint) = &failure.hint {
            self.line("hint: ", hint);
        }
        failure.exit
    }

    /// A closed stderr is no reason to fail.
    #[allow(clippy::unused_self)]
    fn line(&self, prefix: &str, text: &str) {
        let _ = writeln!(io::stderr(), "{prefix}{}", printable(text));
    }
}

/// The text without what a terminal would obey: control characters other than newline and tab are dropped.
pub fn printable(text: &str) -> String {
    text.chars().filter(|character| matches!(character, '\n' | '\t') || !character.is_control()).collect()
}
