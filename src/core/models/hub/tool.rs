//! The hub's own tool, `hf`: finding it, running it, and what its output means.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::core::cancel::CancelToken;
use crate::core::executables::{is_executable, on_path};
use crate::core::helper::{Helper, HelperOutput};
use crate::core::models::catalogue::ModelError;

pub const TOOL: &str = "hf";

/// How much of the end of the tool's messages is read.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// Longer results are refused.
const MAX_RESULT_BYTES: usize = 32 * 1024 * 1024;

/// The tool, and the environment in which it runs.
pub struct HubTool<'a> {
    program: PathBuf,
    env: Vec<(OsString, OsString)>,
    cancel: &'a CancelToken,
}

/// How the tool ended, and what it said.
pub struct ToolRun {
    /// `None` if it was stopped.
    pub status: Option<ExitStatus>,
    /// Its standard output.
    pub printed: String,
    /// The end of its standard error.
    pub messages: String,
}

impl ToolRun {
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Returns everything that it said.
    pub fn all(&self) -> String {
        format!("{}\n{}", self.printed, self.messages)
    }
}

impl<'a> HubTool<'a> {
    /// Returns the tool with these variables on top of the caller's environment.
    pub fn new(program: PathBuf, mut env: Vec<(OsString, OsString)>, cancel: &'a CancelToken) -> Self {
        // Its progress bar, its check for a newer version, and colours would disturb its output.
        let quiet = ["HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_UPDATE_CHECK", "NO_COLOR"];
        env.extend(quiet.map(|name| (name.into(), "1".into())));
        Self { program, env, cancel }
    }

    /// Runs the tool to its end. Calls `goes_on` every `interval`; once that returns false, stops the tool.
    pub fn run(
        &self,
        arguments: &[&str],
        interval: Duration,
        goes_on: &mut dyn FnMut(&Helper) -> bool,
    ) -> Result<ToolRun, ModelError> {
        let broken = |source: io::Error| ModelError::ToolBroken { tool: self.program.clone(), source };
        let mut command = Command::new(&self.program);
        command.args(arguments).envs(self.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        let mut helper = Helper::start(&mut command, HelperOutput::KeepApart).map_err(broken)?;
        let status = loop {
            if let Some(status) = helper.try_wait().map_err(broken)? {
                break Some(status);
            }
            if !goes_on(&helper) || self.cancel.is_cancelled() {
                helper.stop();
                break None;
            }
            std::thread::sleep(interval);
        };
        self.cancel.check().map_err(|_| ModelError::Cancelled)?;
        Ok(ToolRun {
            status,
            printed: without_escapes(&helper.printed(MAX_RESULT_BYTES)),
            messages: without_escapes(&helper.output(MAX_MESSAGE_BYTES)),
        })
    }
}

/// Finds a tool beside one of the programs, with which it was installed, or on `PATH`.
pub fn find_tool<'p>(
    name: &str,
    programs: impl Iterator<Item = &'p Path>,
    search: Option<&OsStr>,
) -> Option<PathBuf> {
    // A program can be a link into its environment, or a Python that is a link out of it.
    let places = programs.flat_map(|program| [Some(program.to_owned()), program.canonicalize().ok()]);
    let mut beside = places.flatten().map(|program| program.with_file_name(name));
    beside.find(|tool| is_executable(tool)).or_else(|| on_path(name, search))
}

/// Removes escape sequences, which some versions print to files too.
fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(|end: char| end.is_ascii_alphabetic()).map_or("", |(_, rest)| rest));
    }
    plain
}

/// Returns what the tool's output means, in the words of `huggingface_hub/errors.py`, its HTTP library and the system.
pub fn failure(name: &str, output: &str) -> ModelError {
    let name = name.to_owned();
    let lower = output.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let said = said(output);
    if has(&["offline mode is enabled"]) {
        ModelError::Offline { variable: "HF_HUB_OFFLINE" }
    } else if has(&["gatedrepoerror", "cannot access gated repo", "requires approval"]) {
        ModelError::Gated { name }
    } else if has(&["repositorynotfound", "repository not found", "if the repo does not exist"]) {
        ModelError::Unknown { name }
    } else if has(&["hfvalidationerror"]) {
        ModelError::InvalidName { name }
    } else if has(NETWORK_WORDS) {
        ModelError::Network { said }
    } else {
        ModelError::Download { said }
    }
}

/// Words of a network error.
const NETWORK_WORDS: &[&str] = &[
    "connecterror",
    "connection refused",
    "connection reset",
    "remoteprotocolerror",
    "name resolution",
    "name or service not known",
    "nodename nor servname",
    "network is unreachable",
    "no route to host",
    "proxyerror",
    "timed out",
    "timeout",
    "certificate_verify_failed",
];

/// Returns the most telling line: the last with a network error, else the last with an error, else the last.
pub fn said(output: &str) -> String {
    let lines = || output.lines().map(str::trim).filter(|line| !line.is_empty());
    let has = |line: &str, words: &[&str]| words.iter().any(|word| line.to_lowercase().contains(word));
    let line = lines()
        .rfind(|line| has(line, NETWORK_WORDS))
        .or_else(|| lines().rfind(|line| has(line, &["error"])));
    let line = line.or_else(|| lines().next_back()).unwrap_or("it gave no reason");
    line.trim_start_matches("Error: ").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_is_found_through_links() -> io::Result<()> {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let root = tempfile::tempdir()?;
        let root = root.path().canonicalize()?;
        let place = |name: &str| root.join(name);
        let found =
            |programs: &[&Path], search: Option<&OsStr>| find_tool(TOOL, programs.iter().copied(), search);
        for directory in ["environment", "bin", "system"] {
            std::fs::create_dir(place(directory))?;
        }
        for program in ["environment/hf", "environment/server", "system/python"] {
            std::fs::write(place(program), "")?;
            std::fs::set_permissions(place(program), std::fs::Permissions::from_mode(0o755))?;
        }
        symlink(place("environment/server"), place("bin/server"))?;
        symlink(place("system/python"), place("environment/python"))?;
        for program in ["environment/server", "bin/server", "environment/python"] {
            assert_eq!(found(&[&place(program)], None), Some(place("environment/hf")), "{program}");
        }
        assert_eq!(found(&[&place("system/python")], None), None);
        let others = [&*place("system/python"), &*place("bin/server")];
        assert_eq!(found(&others, None), Some(place("environment/hf")));
        let search = place("environment").into_os_string();
        assert_eq!(found(&[], Some(&search)), Some(place("environment/hf")));
        Ok(())
    }

    #[test]
    fn output_of_the_tool_is_understood() {
        let understood = |output: &str| failure("org/x", output).to_string();
        let traceback = "Traceback:\nhuggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.\n\
                         huggingface_hub.errors.DryRunError: Dry run cannot be performed.\n";
        assert_eq!(understood(traceback), "there is no model org/x to download");
        let refused = "httpx2.ConnectError: [Errno 111] Connection refused\n\nhuggingface_hub.errors.DryRunError: Dry run\n";
        assert!(understood(refused).ends_with("[Errno 111] Connection refused"));
        let offline = "Cannot reach http://x: offline mode is enabled.";
        assert!(matches!(failure("org/x", offline), ModelError::Offline { .. }));
        let gated = "Error: Access denied. Model 'org/x' requires approval.";
        assert!(matches!(failure("org/x", gated), ModelError::Gated { .. }));
        let unknown =
            "Error: Model 'org/x' not found.\nIf the repo does not exist, create it with: hf repos create";
        assert!(matches!(failure("org/x", unknown), ModelError::Unknown { .. }));
        assert_eq!(understood("Error: disk on fire\n"), "the download failed: disk on fire");
        assert_eq!(understood(""), "the download failed: it gave no reason");
    }
}
