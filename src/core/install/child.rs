//! Running the programs that install: seen by the user or kept for the error, and ended with fusion.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::InstallError;

/// How long between two looks at a child.
const GLANCE: Duration = Duration::from_millis(20);

/// How much of the end of a child's output an error quotes, in bytes.
const TAIL: u64 = 2048;

/// Where what the installing programs print goes.
#[derive(Debug)]
pub enum Output {
    /// To this descriptor, as it comes: on a terminal they show their own progress.
    Show(OwnedFd),
    /// Nowhere; the end of it is quoted when they fail.
    Keep,
}

/// Runs `command` to its end, in `directory`. Its standard input is `stdin`; what it prints goes to `output`.
pub(super) fn run(
    mut command: Command,
    directory: &Path,
    stdin: Stdio,
    output: &Output,
    interrupted: &dyn Fn() -> bool,
) -> Result<(), InstallError> {
    let program = command.get_program().to_owned();
    let cannot_run = |source| InstallError::Run { program: program.clone().into(), source };
    let kept = match output {
        Output::Show(descriptor) => {
            let copies = (descriptor.try_clone(), descriptor.try_clone());
            command.stdout(copies.0.map_err(cannot_run)?).stderr(copies.1.map_err(cannot_run)?);
            None
        }
        Output::Keep => Some(keep(&mut command).map_err(cannot_run)?),
    };
    let child = command.current_dir(directory).stdin(stdin).spawn().map_err(cannot_run)?;
    let status = wait(child, interrupted).map_err(cannot_run)?.ok_or(InstallError::Interrupted)?;
    if status.success() {
        return Ok(());
    }
    // A Ctrl-C reaches the whole group, so the child may have ended first.
    if interrupted() {
        return Err(InstallError::Interrupted);
    }
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let command = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    Err(InstallError::Failed { command, status, said: kept.map(last_lines).unwrap_or_default() })
}

/// Sends both streams of `command` into a file without a name.
pub(super) fn keep(command: &mut Command) -> std::io::Result<File> {
    let file = tempfile::tempfile()?;
    command.stdout(file.try_clone()?).stderr(file.try_clone()?);
    Ok(file)
}

/// The last lines that [`keep`] kept.
pub(super) fn last_lines(mut file: File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read cannot be quoted; the failure itself is told in any case.
    let _ = file.seek(SeekFrom::End(0)).and_then(|end| {
        file.seek(SeekFrom::Start(end.saturating_sub(TAIL)))?;
        file.read_to_end(&mut bytes)
    });
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// Waits for the end of the child; `None` when interrupted, after having ended it.
fn wait(mut child: Child, interrupted: &dyn Fn() -> bool) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if interrupted() {
            // SIGTERM, so that it can remove its temporary files. It has not been waited for, so the PID is its own.
            if let Ok(pid) = i32::try_from(child.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(GLANCE);
    }
}
