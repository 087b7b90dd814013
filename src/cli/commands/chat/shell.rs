//! `!COMMAND`: runs a command, whose output goes with the next message.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::talk::Talk;
use crate::cli::commands::run::files::{self, Attachment, MAX_FILE_BYTES};
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::{keyboard, signals};
use crate::cli::units;
use crate::core::cancel::CancelToken;
use crate::core::pid::Pid;
use crate::core::process::{Instance, ProcessDriver, ProcessId, StopSignal};

/// How often an interrupt is noticed, in milliseconds.
const POLL_INTERVAL_MS: u8 = 50;

/// How long a killed program may take to die.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

impl Talk<'_> {
    /// Runs the command, and attaches what it prints.
    pub(super) fn shell(&mut self, command: &str) {
        let ui = &self.context.ui;
        let ran = {
            // Ctrl-C belongs to the command while it runs; SIGTERM ends both.
            let _interrupts = signals::remember_interrupts();
            let _lent = keyboard::lend();
            run(command, &*self.context.driver, &self.context.cancel)
        };
        match ran {
            Ok(Some((output, status))) => match self.attach_output(command, output) {
                Ok(size) => {
                    let failed = if status.success() { String::new() } else { format!(" ({status})") };
                    ui.note(&format!("`{command}`{failed}: its output, {size}, goes with the next message"));
                }
                Err(failure) => {
                    ui.failure(&failure);
                }
            },
            Ok(None) => ui.note("stopped; nothing is added to the next message"),
            Err(error) => {
                ui.failure(&Failure::of(Exit::Failed, &error).about(format!("cannot run `{command}`")));
            }
        }
    }

    /// Attaches the output of the command, and returns its size in words.
    fn attach_output(&mut self, command: &str, output: Vec<u8>) -> Result<String, Failure> {
        let size = units::bytes(output.len() as u64);
        self.attached.push(match files::attachment(&format!("the output of `{command}`"), output)? {
            Attachment::Text(text) => Attachment::Text(files::quote(&format!("$ {command}"), &text)),
            image @ Attachment::Image(_) => image,
        });
        Ok(size)
    }
}

/// Runs the command with the shell. Returns what it prints on both streams, in order; `None` after an interrupt.
fn run(
    command: &str,
    driver: &dyn ProcessDriver,
    cancel: &CancelToken,
) -> io::Result<Option<(Vec<u8>, ExitStatus)>> {
    let (mut reader, writer) = io::pipe()?;
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdout(writer.try_clone()?).stderr(writer);
    let mut child = shell.spawn()?;
    // It has the other ends of the pipe, which would never close.
    drop(shell);
    let read = read_all(&mut reader, cancel);
    if !matches!(read, Ok(Some(_))) {
        kill(driver, &child);
    }
    let status = child.wait()?;
    // The command can end by the interrupt before it is noticed here.
    Ok(read?.filter(|_| !cancel.is_cancelled()).map(|output| (output, status)))
}

/// Kills the shell and what it started: an interrupt does not reach a program that the shell is just starting, and such
/// a program would take what is typed at the next prompt.
fn kill(driver: &dyn ProcessDriver, shell: &Child) {
    let Ok(pid) = Pid::try_from(i64::from(shell.id())) else { return };
    // It may have ended by itself.
    let Ok(Some(leader)) = driver.identify(pid) else { return };
    let family = Instance { id: "", leader: Some(&leader) };
    // A killed one would leave those that it was just starting without a parent by which they are found.
    let mut held: Vec<ProcessId> = Vec::new();
    loop {
        let mut found = driver.members(family).unwrap_or_default();
        found.retain(|process| !held.contains(process));
        if found.is_empty() {
            break;
        }
        for process in &found {
            let _ = driver.signal(process, StopSignal::Hold);
        }
        held.extend(found);
    }
    for process in &held {
        let _ = driver.signal(process, StopSignal::Kill);
    }
    // Until they are dead, they may read.
    for process in &held {
        let _ = driver.wait_for_exit(process, KILL_TIMEOUT);
    }
}

/// Reads to the end, or a byte more than a message may have; returns `None` after an interrupt.
fn read_all(reader: &mut PipeReader, cancel: &CancelToken) -> io::Result<Option<Vec<u8>>> {
    let mut output = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    while output.len() as u64 <= MAX_FILE_BYTES {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let mut polled = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        if matches!(
            nix::poll::poll(&mut polled, PollTimeout::from(POLL_INTERVAL_MS)),
            Ok(0) | Err(nix::errno::Errno::EINTR)
        ) {
            continue;
        }
        match reader.read(&mut chunk)? {
            0 => break,
            length => output.extend_from_slice(&chunk[..length]),
        }
    }
    Ok(Some(output))
}
