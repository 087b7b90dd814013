//! Helper programs (installers, downloaders).
//!
//! Each runs in a session of its own and is stopped together with everything that it started; its output is kept or
//! shown.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::core::cancel::CancelToken;
use crate::core::process::unix::isolate;

/// How long a stop waits for the end of a helper and all its processes: after SIGTERM, and again after SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a stop checks whether a helper has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Where the output of a helper goes.
#[derive(Debug, Clone)]
pub enum HelperOutput {
    /// To this stream, at once: on a terminal the helper shows its own progress.
    Show(Arc<OwnedFd>),
    /// To an unnamed file.
    Keep,
    /// Standard output and standard error to an unnamed file each.
    KeepApart,
}

/// How often the end of a program is looked for of which only the output is wanted.
const OUTPUT_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Runs a program and returns the end of its output; `None` if it cannot run, has not ended after `timeout`, or if this
/// is cancelled before.
pub fn output_of(mut command: Command, timeout: Duration, cancel: &CancelToken) -> Option<String> {
    let mut helper = Helper::start(command.stdin(Stdio::null()), HelperOutput::Keep).ok()?;
    let begin = Instant::now();
    let mut goes_on = || begin.elapsed() < timeout && !cancel.is_cancelled();
    helper.wait(OUTPUT_POLL_INTERVAL, &mut goes_on).ok()??;
    Some(helper.output(4096))
}

/// A running helper. Dropping it stops it.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    /// Its output, or only its standard error.
    kept: Option<File>,
    /// Its standard output, if that is kept apart.
    printed: Option<File>,
}

impl Helper {
    /// Starts `command`; the caller chooses its standard input. The helper has no terminal. If it asks a question, it
    /// fails at once with its own message; in the background of the caller's terminal it would hang.
    pub fn start(command: &mut Command, output: HelperOutput) -> io::Result<Self> {
        let (streams, kept, printed) = match output {
            HelperOutput::Show(stream) => ([stream.try_clone()?, stream.try_clone()?], None, None),
            HelperOutput::Keep => {
                let file = tempfile::tempfile()?;
                ([file.try_clone()?.into(), file.try_clone()?.into()], Some(file), None)
            }
            HelperOutput::KeepApart => {
                let (printed, file) = (tempfile::tempfile()?, tempfile::tempfile()?);
                ([printed.try_clone()?.into(), file.try_clone()?.into()], Some(file), Some(printed))
            }
        };
        let [stdout, stderr] = streams;
        command.stdout(stdout).stderr(stderr);
        isolate(command);
        let child = command.spawn()?;
        Ok(Self { child, kept, printed })
    }

    /// Returns how it has ended; `None` while it runs.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end. Calls `goes_on` every `interval`; once that returns false, stops it and returns `None`.
    pub fn wait(
        &mut self,
        interval: Duration,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            if !goes_on() {
                self.stop();
                return Ok(None);
            }
            std::thread::sleep(interval);
        }
    }

    /// Stops it and everything that it started, unless it has ended by itself: with SIGTERM, which lets it remove its
    /// temporary files, then with SIGKILL.
    pub fn stop(&mut self) {
        self.stop_within(STOP_TIMEOUT);
    }

    fn stop_within(&mut self, timeout: Duration) {
        // Another process may have its number once it is reaped.
        if !matches!(self.try_wait(), Ok(None)) {
            return;
        }
        let Ok(group) = i32::try_from(self.child.id()).map(Pid::from_raw) else { return };
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // This fails if all have ended meanwhile.
            let _ = killpg(group, signal);
            // A stopped process would not receive SIGTERM.
            let _ = killpg(group, Signal::SIGCONT);
            let begin = Instant::now();
            while begin.elapsed() < timeout {
                // The number stays in use while the group has members, even without its leader.
                if !matches!(self.try_wait(), Ok(None)) && killpg(group, None) == Err(Errno::ESRCH) {
                    return;
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }

    /// Returns at most the last `max_bytes` of its output, without what is kept apart; nothing if that was shown.
    pub fn output(&self, max_bytes: usize) -> String {
        text_of(self.kept.as_ref(), max_bytes)
    }

    /// Returns at most the last `max_bytes` of its standard output, if that is kept apart.
    pub fn printed(&self, max_bytes: usize) -> String {
        text_of(self.printed.as_ref(), max_bytes)
    }

    /// Returns the last five lines of its output, for a message.
    pub fn last_lines(&self) -> String {
        let text = self.output(2048);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// If it cannot be read, the error of the helper is reported without it.
fn text_of(file: Option<&File>, max_bytes: usize) -> String {
    let bytes = file.and_then(|file| end_of(file, max_bytes).ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads without moving the file's offset, at which the helper may still write.
fn end_of(file: &File, max_bytes: usize) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let length = usize::try_from(size).map_or(max_bytes, |size| size.min(max_bytes));
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, size - length as u64)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Helper {
        Helper::start(Command::new("sh").args(["-c", script]), HelperOutput::Keep).unwrap()
    }

    /// Waits until it has printed the text.
    fn wait_for(helper: &Helper, text: &str) {
        while !helper.output(1000).contains(text) {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    #[test]
    fn the_last_lines_of_a_helper_are_kept() {
        let mut helper = shell("seq 7; echo; echo wrong >&2; exit 3");
        let status = helper.wait(POLL_INTERVAL, &mut || true).unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(helper.last_lines(), "4\n5\n6\n7\nwrong");
    }

    #[test]
    fn the_processes_of_a_helper_end_with_it() {
        let mut helper = shell("sleep 600 & echo started; wait");
        wait_for(&helper, "started");
        let group = Pid::from_raw(i32::try_from(helper.child.id()).unwrap());
        assert_eq!(helper.wait(POLL_INTERVAL, &mut || false).unwrap(), None);
        assert_eq!(killpg(group, None), Err(Errno::ESRCH));
    }

    /// In the background of the caller's terminal, a question would hang.
    #[test]
    fn a_helper_has_no_terminal() {
        let helper = shell("echo started; exec sleep 600");
        wait_for(&helper, "started");
        let pid = Pid::from_raw(i32::try_from(helper.child.id()).unwrap());
        assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));
    }

    #[test]
    fn a_suspended_helper_can_be_stopped() {
        let mut helper = shell("trap 'echo ended; exit' TERM; echo started; kill -STOP $$; sleep 600");
        wait_for(&helper, "started");
        helper.stop();
        assert!(helper.output(1000).contains("ended"));
    }

    #[test]
    fn a_helper_that_ignores_sigterm_is_killed() {
        let mut helper = shell("trap '' TERM; sleep 600 & echo started; wait; wait");
        wait_for(&helper, "started");
        let group = Pid::from_raw(i32::try_from(helper.child.id()).unwrap());
        // The helper does not end within this time after SIGTERM, but soon after SIGKILL.
        helper.stop_within(Duration::from_millis(50));
        while helper.try_wait().unwrap().is_none() || killpg(group, None).is_ok() {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    #[test]
    fn a_dropped_helper_is_stopped() {
        let helper = shell("echo started; exec sleep 600");
        wait_for(&helper, "started");
        let group = Pid::from_raw(i32::try_from(helper.child.id()).unwrap());
        drop(helper);
        assert_eq!(killpg(group, None), Err(Errno::ESRCH));
    }
}
