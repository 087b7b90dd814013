//! Questions to the person at the terminal.

use std::io::{self, BufRead as _, Write as _};

use crate::cli::Context;
use crate::cli::ui::printable;

impl Context {
    /// Asks a question to be answered with yes or no; just Enter means `default`, the end of input means no. `None`
    /// without a terminal to ask at.
    pub fn ask(&self, question: &str, default: bool) -> Option<bool> {
        if !(self.environment.stdin_is_terminal && self.environment.stderr_is_terminal) {
            return None;
        }
        let choice = if default { "[Y/n]" } else { "[y/N]" };
        // In one write: standard error is not buffered.
        let asked = io::stderr().write_all(format!("{} {choice} ", printable(question)).as_bytes());
        let mut answer = String::new();
        let read = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
        Some(match answer.trim().to_lowercase().as_str() {
            "" => default && matches!(read, Ok(1..)),
            "y" | "yes" => true,
            _ => false,
        })
    }
}
