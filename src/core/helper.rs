//! Helper programs (installers, downloaders): each runs in a session of its own, what it prints is kept or shown, and
//! it is ended together with everything that it started.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::core::process::unix::isolate;

/// How long a helper and what it started get to end by themselves, and how long their death is waited for then.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How long between two looks at a helper that is to end.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Where what a helper prints goes.
#[derive(Debug, Clone, Copy)]
pub enum HelperOutput {
    /// To standard error, as it comes: on a terminal it shows its own progress.
    Show,
    /// Into a file without a name.
    Keep,
}

/// A helper that was started. It is ended when it is dropped.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    kept: Option<File>,
}

impl Helper {
    /// Starts `command`, whose standard input is the caller's choice. It has no terminal to ask on: one that tries
    /// fails at once, in its own words, where in the background of the caller's terminal it would wait for ever.
    pub fn start(command: &mut Command, output: HelperOutput) -> io::Result<Self> {
        let (streams, kept) = match output {
            HelperOutput::Show => {
                let error = io::stderr();
                ([error.as_fd().try_clone_to_owned()?, error.as_fd().try_clone_to_owned()?], None)
            }
            HelperOutput::Keep => {
                let file = tempfile::tempfile()?;
                ([file.try_clone()?.into(), file.try_clone()?.into()], Some(file))
            }
        };
        let [stdout, stderr] = streams;
        command.stdout(stdout).stderr(stderr);
        isolate(command);
        let child = command.spawn()?;
        Ok(Self { child, kept })
    }

    /// How it has ended; `None` while it runs.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end, asking `goes_on` every `pause`; `None` when that said no, and then it has been ended.
    pub fn wait(
        &mut self,
        pause: Duration,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if !goes_on() {
                self.stop();
                return Ok(None);
            }
            std::thread::sleep(pause);
        }
    }

    /// Ends it and everything that it started, unless it has ended by itself. SIGTERM first, so that temporary files
    /// can be removed.
    pub fn stop(&mut self) {
        self.stop_within(STOP_LIMIT);
    }

    fn stop_within(&mut self, limit: Duration) {
        // Once it has been waited for, its number may be another's.
        if !matches!(self.ended(), Ok(None)) {
            return;
        }
        let Ok(group) = i32::try_from(self.child.id()).map(Pid::from_raw) else { return };
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // What has ended meanwhile needs no signal.
            let _ = killpg(group, signal);
            // One that was stopped would not see it.
            let _ = killpg(group, Signal::SIGCONT);
            let begin = Instant::now();
            while begin.elapsed() < limit {
                // The number is taken as long as anybody is left in the group, also without its leader.
                if !matches!(self.ended(), Ok(None)) && killpg(group, None) == Err(Errno::ESRCH) {
                    return;
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }

    /// At most the last `most` bytes of what it has printed; nothing if that was shown.
    pub fn printed(&self, most: usize) -> String {
        // What cannot be read cannot be quoted; that the helper failed is told in any case.
        let bytes = self.kept.as_ref().and_then(|file| end_of(file, most).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of what it has printed, for a message.
    pub fn last_lines(&self) -> String {
        let text = self.printed(2048);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The helper may still write at the file's own offset, which stays as it is.
fn end_of(file: &File, most: usize) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let length = usize::try_from(size).map_or(most, |size| size.min(most));
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

    /// What it prints, once it has printed it.
    fn wait_for(helper: &Helper, text: &str) {
        while !helper.printed(1000).contains(text) {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    #[test]
    fn a_helper_that_ends_by_itself_leaves_its_last_lines() {
        let mut helper = shell("seq 7; echo; echo wrong >&2; exit 3");
        let status = helper.wait(POLL_INTERVAL, &mut || true).unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(helper.last_lines(), "4\n5\n6\n7\nwrong");
    }

    #[test]
    fn what_a_helper_started_ends_with_it() {
        let mut helper = shell("sleep 600 & echo begun; wait");
        wait_for(&helper, "begun");
        let group = Pid::from_raw(i32::try_from(helper.child.id()).unwrap());
        assert_eq!(helper.wait(POLL_INTERVAL, &mut || false).unwrap(), None);
        assert_eq!(killpg(group, None), Err(Errno::ESRCH));
    }

    /// Where it would be in the background of the caller's terminal, a question there would stop it for ever.
    #[test]
    fn a_helper_has_no_terminal_to_ask_on() {
        let helper = shell("echo begun; exec sleep 600");
        wait_for(&helper, "begun");
        let pid = Pid::from_raw(i32::try_from(helper.child.id()).unwrap());
        assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));
    }

    #[test]
    fn a_helper_that_is_stopped_is_ended_all_the_same() {
        let mut helper = shell("trap 'echo ended; exit' TERM; echo begun; kill -STOP $$; sleep 600");
        wait_for(&helper, "begun");
        helper.stop();
        assert!(helper.printed(1000).contains("ended"));
    }

    #[test]
    fn a_helper_that_ignores_sigterm_is_killed_with_what_it_started() {
        let mut helper = shell("trap '' TERM; sleep 600 & echo begun; wait; wait");
        wait_for(&helper, "begun");
        let group = Pid::from_raw(i32::try_from(helper.child.id()).unwrap());
        // Too short for SIGTERM, and long enough for SIGKILL if it is asked again.
        helper.stop_within(Duration::from_millis(50));
        while helper.ended().unwrap().is_none() || killpg(group, None).is_ok() {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    #[test]
    fn a_helper_that_is_not_waited_for_does_not_stay() {
        let helper = shell("echo begun; exec sleep 600");
        wait_for(&helper, "begun");
        let group = Pid::from_raw(i32::try_from(helper.child.id()).unwrap());
        drop(helper);
        assert_eq!(killpg(group, None), Err(Errno::ESRCH));
    }
}
