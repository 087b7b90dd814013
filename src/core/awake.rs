//! Keeps the machine from sleeping by itself, with the tool that the system has for it.

use std::ffi::OsStr;
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::core::executables::on_path;
use crate::core::helper::{Helper, HelperOutput};
use crate::core::parallel::PendingValue;

/// A tool that keeps the machine awake while the program in its arguments runs. That is `cat`, which ends when its
/// input does: also when fusion is killed.
struct AwakeTool {
    program: &'static str,
    arguments: &'static [&'static str],
}

#[cfg(target_os = "macos")]
const TOOL: AwakeTool = AwakeTool { program: "caffeinate", arguments: &["-i", "cat"] };

#[cfg(not(target_os = "macos"))]
const TOOL: AwakeTool = AwakeTool {
    program: "systemd-inhibit",
    arguments: &["--what=idle", "--mode=block", "--who=fusion", "--why=A model server answers", "cat"],
};

/// How often the end of the tool is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How long the tool may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The machine does not sleep by itself while this lives.
pub struct SleepInhibitor {
    /// The other end of the tool's input: the tool ends when this is dropped.
    input: PipeWriter,
    outcome: PendingValue<Result<(), AwakeError>>,
}

/// Why the machine may sleep nevertheless.
#[derive(Debug, thiserror::Error)]
pub enum AwakeError {
    #[error("there is no {program} on PATH")]
    NoTool { program: &'static str },
    #[error("cannot run {program}: {source}")]
    Broken { program: &'static str, source: io::Error },
    #[error("{program} failed: {said}")]
    Failed { program: &'static str, said: String },
}

impl SleepInhibitor {
    /// Keeps the machine awake. `search` is the value of `PATH`. Does not wait until the tool runs.
    pub fn begin(search: Option<&OsStr>) -> Result<Self, AwakeError> {
        let program = TOOL.program;
        let path = on_path(program, search).ok_or(AwakeError::NoTool { program })?;
        let (reader, input) = io::pipe().map_err(|source| AwakeError::Broken { program, source })?;
        let outcome = PendingValue::begin(move || {
            run(&path, reader).unwrap_or_else(|source| Err(AwakeError::Broken { program, source }))
        });
        Ok(Self { input, outcome })
    }

    /// Lets the machine sleep again. Fails if it could sleep all the time.
    pub fn end(self) -> Result<(), AwakeError> {
        drop(self.input);
        // Where the system has no thread for it, there is no tool that could tell.
        self.outcome.wait(2 * END_TIMEOUT).unwrap_or(Ok(()))
    }
}

/// Runs the tool until its input ends.
fn run(path: &Path, mut input: PipeReader) -> io::Result<Result<(), AwakeError>> {
    let mut command = Command::new(path);
    command.args(TOOL.arguments).stdin(input.try_clone()?);
    let mut helper = Helper::start(&mut command, HelperOutput::Keep)?;
    drop(command);
    // Returns at the end: nothing is ever written.
    let _ = input.read(&mut [0]);
    let begin = Instant::now();
    let status = helper.wait(POLL_INTERVAL, &mut || begin.elapsed() < END_TIMEOUT)?;
    Ok(match status {
        Some(status) if !status.success() => {
            let said = helper.last_lines().replace('\n', "; ");
            let said = if said.is_empty() { status.to_string() } else { said };
            Err(AwakeError::Failed { program: TOOL.program, said })
        }
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A directory with a tool that runs this script.
    fn directory(script: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let tool = directory.path().join(TOOL.program);
        let write = "printf %s \"$1\" > \"$0\"";
        assert!(
            Command::new("/bin/sh").args(["-c", write]).arg(&tool).arg(script).status().unwrap().success()
        );
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    fn begin(directory: &tempfile::TempDir) -> SleepInhibitor {
        SleepInhibitor::begin(Some(directory.path().as_os_str())).unwrap()
    }

    #[test]
    fn the_tool_runs_until_the_vigil_ends() {
        let directory =
            directory("#!/bin/sh\ncd \"${0%/*}\"\necho \"$*\" > started\n/bin/cat\necho > ended\n");
        let place = |name: &str| directory.path().join(name);
        let inhibitor = begin(&directory);
        while !fs::read_to_string(place("started")).is_ok_and(|text| text.ends_with('\n')) {
            std::thread::sleep(POLL_INTERVAL);
        }
        assert!(!place("ended").exists());
        inhibitor.end().unwrap();
        assert!(place("ended").exists());
        let arguments = fs::read_to_string(place("started")).unwrap();
        assert_eq!(arguments.trim_end(), TOOL.arguments.join(" "));
    }

    #[test]
    fn a_dropped_vigil_ends_its_tool() {
        let directory = directory("#!/bin/sh\ncd \"${0%/*}\"\n/bin/cat\necho > ended\n");
        drop(begin(&directory));
        while !directory.path().join("ended").exists() {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    #[test]
    fn a_tool_that_fails_is_quoted() {
        let directory = directory("#!/bin/sh\necho 'Failed to inhibit: no bus' >&2\nexit 1\n");
        let error = begin(&directory).end().unwrap_err();
        assert_eq!(error.to_string(), format!("{} failed: Failed to inhibit: no bus", TOOL.program));
    }

    #[test]
    fn a_missing_tool_is_named() {
        let error = SleepInhibitor::begin(Some(OsStr::new("/nowhere"))).err().unwrap();
        assert_eq!(error.to_string(), format!("there is no {} on PATH", TOOL.program));
    }
}
