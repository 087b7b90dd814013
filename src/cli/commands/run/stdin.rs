//! Standard input as part of the prompt.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use super::files::{self, Attachment};
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::streams::Input;
use crate::cli::terminal::ui::Ui;

const NAME: &str = "standard input";

/// Reads standard input to its end.
pub(super) fn read(ui: &Ui) -> Result<Attachment, Failure> {
    match ui.input() {
        Input::Standard => files::read_all(duplicate()?, NAME, || {
            ui.note("waiting for standard input to end; do not read it with --no-stdin");
        }),
        Input::Memory(bytes) => files::attachment(NAME, bytes.to_vec()),
    }
}

/// Returns whether standard input is a pipe or a file, which is meant for this command. A terminal, socket or device is
/// inherited from the caller.
pub(super) fn is_meant(input: &Input) -> bool {
    match input {
        Input::Standard => {
            let kind = duplicate().ok().and_then(|file| file.metadata().ok());
            kind.is_some_and(|metadata| metadata.file_type().is_fifo() || metadata.is_file())
        }
        Input::Memory(bytes) => !bytes.is_empty(),
    }
}

fn duplicate() -> Result<File, Failure> {
    let descriptor = io::stdin().as_fd().try_clone_to_owned();
    let descriptor =
        descriptor.map_err(|error| Failure::of(Exit::Failed, &error).about("cannot use standard input"))?;
    Ok(File::from(descriptor))
}
