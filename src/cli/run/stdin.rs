//! Standard input as a part of the prompt: when it is read, and what is said while it is silent.

use std::fs::File;
use std::io::{self, Stdin};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use super::files::{self, Attachment};
use crate::cli::error::{Exit, Failure};
use crate::cli::ui::Ui;

/// Reads standard input to its end, whatever it is.
pub(super) fn read(ui: &Ui) -> Result<Attachment, Failure> {
    let file = duplicate(&io::stdin())?;
    files::read_all(file, "standard input", || {
        ui.note("waiting for standard input to end; --no-stdin leaves it alone");
    })
}

/// Whether standard input is a pipe or a file, so that it was meant for this program. A terminal, a socket or a
/// device is whatever the caller happens to have.
pub(super) fn is_meant() -> bool {
    let kind = duplicate(&io::stdin()).and_then(|file| {
        file.metadata()
            .map_err(|error| Failure::of(Exit::Failed, &error).about("cannot look at standard input"))
    });
    kind.is_ok_and(|metadata| metadata.file_type().is_fifo() || metadata.is_file())
}

fn duplicate(stdin: &Stdin) -> Result<File, Failure> {
    let descriptor = stdin.as_fd().try_clone_to_owned();
    let descriptor =
        descriptor.map_err(|error| Failure::of(Exit::Failed, &error).about("cannot use standard input"))?;
    Ok(File::from(descriptor))
}
