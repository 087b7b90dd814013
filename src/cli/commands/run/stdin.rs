//! Standard input as part of the prompt.

use std::fs::File;
use std::io::{self, IsTerminal as _, Seek as _};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use super::files::{self, Attachment};
use super::input_wait::InputWait;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::streams::Input;
use crate::cli::terminal::ui::Ui;

const NAME: &str = "standard input";

/// Reads standard input to its end; `timeout` is the idle timeout of a pipe, and `instead` how to go on without it.
pub(in crate::cli::commands) fn read(
    ui: &Ui,
    timeout: Option<Duration>,
    instead: &str,
) -> Result<Attachment, Failure> {
    let notice = || ui.note(&format!("waiting for standard input to end; {instead}"));
    match ui.input() {
        Input::Standard => {
            let read = files::read_all(duplicate()?, &InputWait { name: NAME, timeout, notice: &notice });
            read.map_err(|failure| match failure.exit {
                Exit::TimedOut => failure.hint("do not read standard input with --no-stdin"),
                // Backspace then takes one byte of a character, and leaves the others.
                _ if failure.hint.is_some() && io::stdin().is_terminal() => failure.hint(
                    "a corrected character may be left in half: make the terminal erase whole ones: stty iutf8",
                ),
                _ => failure,
            })
        }
        input @ Input::Memory(_) => files::attachment(NAME, input.rest()),
    }
}

/// Returns whether standard input is appended to a prompt: a pipe, or a file that no other program has started to read.
/// A terminal, socket or device is inherited from the caller.
pub(in crate::cli::commands) fn is_appended(ui: &Ui) -> bool {
    if let Input::Memory(_) = ui.input() {
        return ui.input().has_more();
    }
    let Ok(mut file) = duplicate() else { return false };
    let Ok(kind) = file.metadata().map(|metadata| metadata.file_type()) else { return false };
    if kind.is_file() && file.stream_position().is_ok_and(|position| position > 0) {
        ui.note("standard input is not appended: another program is reading the file, such as a `while read` loop");
        return false;
    }
    kind.is_file() || kind.is_fifo()
}

fn duplicate() -> Result<File, Failure> {
    let descriptor = io::stdin().as_fd().try_clone_to_owned();
    let descriptor =
        descriptor.map_err(|error| Failure::of(Exit::Failed, &error).about("cannot use standard input"))?;
    Ok(File::from(descriptor))
}
