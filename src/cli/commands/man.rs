//! `fusion man`: prints or writes the manual pages, from the same tree as the help.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;

/// Print the manual page, or write one for each command
///
/// Without --out, prints the main page. Show it with `fusion man | man -l -` on Linux, or `fusion man | mandoc -a` on
/// macOS.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write one page per command into this directory, creating it if needed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command: prints or writes the pages of `command`, the command line of fusion.
pub fn run(context: &Context, args: &ManArgs, command: Command) -> Result<Exit, Failure> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    match &args.out {
        None => context.ui.result(&String::from_utf8_lossy(&page(&command)))?,
        Some(directory) => {
            fs::create_dir_all(directory).map_err(|error| cannot_write(directory, &error))?;
            let written = write_pages(&command, directory)?;
            context.ui.note(&format!("{written} pages written to {}", directory.display()));
        }
    }
    Ok(Exit::Done)
}

/// Writes the page of `command` and of every command below it; returns their number.
fn write_pages(command: &Command, directory: &Path) -> Result<usize, Failure> {
    let file = directory.join(Man::new(command.clone()).get_filename());
    fs::write(&file, page(command)).map_err(|error| cannot_write(&file, &error))?;
    let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
    visible.map(|command| write_pages(command, directory)).try_fold(1, |sum, written| Ok(sum + written?))
}

/// Returns the page in roff, with the version of fusion: clap knows it of the main command only.
fn page(command: &Command) -> Vec<u8> {
    let mut page = Vec::new();
    let source = concat!("fusion ", env!("CARGO_PKG_VERSION"));
    let written = Man::new(command.clone()).source(source).manual("fusion manual").render(&mut page);
    written.expect("a Vec takes every byte");
    page
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot write {}", path.display());
    Failure::new(Exit::Failed, message).caused_by(vec![error.to_string()])
}
