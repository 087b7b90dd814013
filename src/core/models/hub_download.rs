//! Downloading a model into the hub's cache with the hub's own tool, `hf download`, watched from outside.
//!
//! The tool (<https://huggingface.co/docs/huggingface_hub/guides/cli>) shows its progress to people and in a form that
//! changes between versions; how the cache grows does not. Files that are complete are kept when a download is cut
//! off, and not downloaded again. Within a file the tool resumes by itself after a broken connection; a file that was
//! cut off together with the tool is begun again (since version 1.18 of `huggingface_hub`), so what is left of it is
//! removed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::core::cancel::CancelToken;
use crate::core::executables::{is_executable, on_path};
use crate::core::helper::{Helper, HelperOutput};
use crate::core::machine;
use crate::core::models::catalogue::{ModelError, PullStep, Site};
use crate::core::models::hub_cache::{CachedModel, HubCache};

/// The tool's name.
const TOOL: &str = "hf";

/// How long between two looks at the growth of the cache.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How much of the end of the tool's output is read.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// A download that can be begun.
pub struct Download<'a> {
    tool: PathBuf,
    env: Vec<(OsString, OsString)>,
    cache: &'a HubCache,
    model: &'a CachedModel,
    cancel: &'a CancelToken,
}

/// What the tool says that it would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    files: u64,
    /// About; the tool rounds.
    bytes: Option<u64>,
}

/// What was learnt by asking for the plan.
#[derive(Debug, Clone, Copy)]
struct Outlook {
    plan: Option<Plan>,
    patterns: Patterns,
}

/// How the tool takes several patterns.
#[derive(Debug, Clone, Copy)]
enum Patterns {
    /// Each after an option of its own.
    OneByOne,
    /// All after one option, until version 1.0; of several options it took the last one only.
    Together,
}

/// How the tool ended, and the last of what it printed.
struct Ended {
    status: ExitStatus,
    output: String,
}

impl<'a> Download<'a> {
    /// A download that has its tool.
    pub fn prepare(
        site: &'a Site<'_>,
        cache: &'a HubCache,
        model: &'a CachedModel,
    ) -> Result<Self, ModelError> {
        let tool = find_tool(site.program, site.search).ok_or(ModelError::ToolMissing { tool: TOOL })?;
        let mut env: Vec<(OsString, OsString)> =
            site.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        env.push(("HF_HUB_CACHE".into(), cache.root().into()));
        // Its own bar, its look for a newer version, and colours would only be in the way.
        for name in ["HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_UPDATE_CHECK", "NO_COLOR"] {
            env.push((name.into(), "1".into()));
        }
        Ok(Self { tool, env, cache, model, cancel: site.cancel })
    }

    /// Downloads what is missing of the files that match one of `patterns`.
    pub fn run(&self, patterns: &[&str], observer: &mut dyn FnMut(PullStep<'_>)) -> Result<(), ModelError> {
        observer(PullStep::Stage("asking for the list of files"));
        let outlook = self.ask(patterns)?;
        if outlook.plan.is_some_and(|plan| plan.files == 0) {
            return Ok(());
        }
        let bytes = outlook.plan.and_then(|plan| plan.bytes);
        self.check_space(bytes)?;
        let result = self.fetch(&self.arguments(patterns, outlook.patterns), patterns, bytes, observer);
        // Whatever happened; a leftover that cannot be removed now is removed by the next download.
        let _ = self.cache.remove_leftovers(self.model);
        result
    }

    /// Asks the tool what it would do, which it can say since version 1.0.
    fn ask(&self, patterns: &[&str]) -> Result<Outlook, ModelError> {
        let mut arguments = self.arguments(patterns, Patterns::OneByOne);
        arguments.push("--dry-run");
        let ended = self.command(&arguments, &mut || {})?;
        if ended.status.success() {
            return Ok(Outlook { plan: read_plan(&ended.output), patterns: Patterns::OneByOne });
        }
        let too_old = ended.output.contains("--dry-run") && ended.output.to_lowercase().contains("usage:");
        if too_old {
            Ok(Outlook { plan: None, patterns: Patterns::Together })
        } else {
            Err(failure(&self.model.name, &ended.output))
        }
    }

    fn arguments<'p>(&'p self, patterns: &[&'p str], style: Patterns) -> Vec<&'p str> {
        let mut arguments = vec!["download", &self.model.name];
        match style {
            Patterns::OneByOne => {
                arguments.extend(patterns.iter().flat_map(|pattern| ["--include", pattern]));
            }
            Patterns::Together => {
                arguments.push("--include");
                arguments.extend(patterns);
            }
        }
        arguments
    }

    fn fetch(
        &self,
        arguments: &[&str],
        patterns: &[&str],
        expected: Option<u64>,
        observer: &mut dyn FnMut(PullStep<'_>),
    ) -> Result<(), ModelError> {
        let before = self.model.disk_use().bytes;
        let missing = || exact_size(self.model, patterns);
        let mut total = None;
        let ended = self.command(arguments, &mut || {
            let done = self.model.disk_use().bytes.saturating_sub(before);
            total = total.or_else(|| closest(expected, missing().map(|bytes| bytes.saturating_add(done))));
            observer(PullStep::Bytes { done: total.map_or(done, |total| done.min(total)), total });
        })?;
        if ended.status.success() { Ok(()) } else { Err(failure(&self.model.name, &ended.output)) }
    }

    /// Fails when it will not fit; where the cache does not exist yet, the directory in which it will be made counts.
    fn check_space(&self, bytes: Option<u64>) -> Result<(), ModelError> {
        let Some(bytes) = bytes else { return Ok(()) };
        // The tool's figure is rounded to two digits or more.
        let needed = bytes.saturating_add(bytes / 20);
        let path = machine::nearest_existing(self.cache.root());
        match machine::free_space(path) {
            Ok(free) if free < needed => {
                let (name, path) = (self.model.name.clone(), path.to_owned());
                Err(ModelError::NoSpace { name, needed, free, path })
            }
            // What cannot be found out is no reason not to try.
            _ => Ok(()),
        }
    }

    /// Runs the tool to its end; calls `glance` again and again meanwhile.
    fn command(&self, arguments: &[&str], glance: &mut dyn FnMut()) -> Result<Ended, ModelError> {
        let broken = |source: io::Error| ModelError::ToolBroken { tool: self.tool.clone(), source };
        let mut command = Command::new(&self.tool);
        command.args(arguments).envs(self.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        let mut helper = Helper::start(&mut command, HelperOutput::Keep).map_err(broken)?;
        let mut goes_on = || {
            glance();
            !self.cancel.is_cancelled()
        };
        let status =
            helper.wait(POLL_INTERVAL, &mut goes_on).map_err(broken)?.ok_or(ModelError::Cancelled)?;
        Ok(Ended { status, output: without_escapes(&helper.printed(OUTPUT_LIMIT)) })
    }
}

/// The tool: beside the runtime's program, with which it was installed, else on `PATH`.
fn find_tool(program: Option<&Path>, search: Option<&OsStr>) -> Option<PathBuf> {
    // The program may be a link into the environment in which it lies, or a Python that is a link out of it.
    let places =
        program.into_iter().flat_map(|program| [Some(program.to_owned()), program.canonicalize().ok()]);
    let mut beside = places.flatten().map(|program| program.with_file_name(TOOL));
    beside.find(|tool| is_executable(tool)).or_else(|| on_path(TOOL, search))
}

/// Whether a file name matches a pattern with at most one `*`.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((front, back)) => {
            name.len() >= front.len() + back.len() && name.starts_with(front) && name.ends_with(back)
        }
        None => pattern == name,
    }
}

/// The bytes that are missing by the list which the tool keeps in the cache.
fn exact_size(model: &CachedModel, patterns: &[&str]) -> Option<u64> {
    let snapshot = model.snapshot();
    let is_wanted = |file: &str| patterns.iter().any(|pattern| matches(pattern, file));
    let is_here = |file: &str| snapshot.as_ref().is_some_and(|snapshot| snapshot.join(file).is_file());
    let files = model.expected_files()?;
    let missing = files.iter().filter(|(file, _)| is_wanted(file) && !is_here(file));
    Some(missing.map(|(_, size)| *size).fold(0, u64::saturating_add))
}

/// The exact figure, unless it is far from what the tool announced: then it is that of an earlier version.
fn closest(announced: Option<u64>, exact: Option<u64>) -> Option<u64> {
    match (announced, exact) {
        (Some(announced), Some(exact)) if exact.abs_diff(announced) > announced / 10 => Some(announced),
        (announced, exact) => exact.or(announced),
    }
}

/// Reads `[dry-run] Will download 6 files (out of 7) totalling 1.3M.`
fn read_plan(output: &str) -> Option<Plan> {
    let line = output.lines().find_map(|line| line.trim().strip_prefix("[dry-run] Will download "))?;
    let files = line.split(' ').next()?.parse().ok()?;
    let bytes = line.split_once("totalling ").and_then(|(_, size)| read_size(size.trim_end_matches('.')));
    Some(Plan { files, bytes })
}

/// Reads a size such as `1.3M`: the tool counts in thousands.
fn read_size(text: &str) -> Option<u64> {
    let (number, factor) = match text.char_indices().next_back()? {
        (at, 'K') => (&text[..at], 1e3),
        (at, 'M') => (&text[..at], 1e6),
        (at, 'G') => (&text[..at], 1e9),
        (at, 'T') => (&text[..at], 1e12),
        _ => (text, 1.0),
    };
    let bytes = number.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)? * factor;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Neither negative nor beyond 64 bits.
    Some(bytes.min(1e18) as u64)
}

/// What was printed, without the escape sequences that some versions print to files, too.
fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(|end: char| end.is_ascii_alphabetic()).map_or("", |(_, rest)| rest));
    }
    plain
}

/// What the tool's last words mean. They are those of `huggingface_hub/errors.py`, of its HTTP library, and of the
/// system.
fn failure(name: &str, output: &str) -> ModelError {
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

/// Words by which a fault of the network is known.
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

/// The line that says most: the last that names a fault of the network, else an error, else the last.
fn said(output: &str) -> String {
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
    fn the_tool_is_found_beside_the_program_through_links_in_either_direction() -> io::Result<()> {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let root = tempfile::tempdir()?;
        let root = root.path().canonicalize()?;
        let place = |name: &str| root.join(name);
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
            assert_eq!(find_tool(Some(&place(program)), None), Some(place("environment/hf")), "{program}");
        }
        assert_eq!(find_tool(Some(&place("system/python")), None), None);
        let search = place("environment").into_os_string();
        assert_eq!(find_tool(None, Some(&search)), Some(place("environment/hf")));
        Ok(())
    }

    #[test]
    fn the_plan_of_the_tool_is_read() {
        let read = |text: &str| read_plan(text).map(|plan| (plan.files, plan.bytes));
        let output = "Fetching\n[dry-run] Will download 6 files (out of 7) totalling 1.3M.\nFILE SIZE\n";
        assert_eq!(read(output), Some((6, Some(1_300_000))));
        assert_eq!(read("[dry-run] Will download 0 files (out of 6) totalling 0.0."), Some((0, Some(0))));
        assert_eq!(
            read("[dry-run] Will download 2 files (out of 6) totalling an unknown size."),
            Some((2, None))
        );
        assert_eq!(
            read("[dry-run] Will download 1 files (out of 1) totalling 12.7G."),
            Some((1, Some(12_700_000_000)))
        );
        assert_eq!(read("something else"), None);
    }

    #[test]
    fn patterns_match_as_the_tool_has_it() {
        assert!(matches("*.json", "config.json"));
        assert!(matches("model*.safetensors", "model-00001-of-00002.safetensors"));
        assert!(!matches("model*.safetensors", "consolidated.safetensors"));
        assert!(!matches("a*a", "a"));
        assert!(matches("tokenizer.model", "tokenizer.model"));
        assert!(!matches("tokenizer.model", "tokenizer.model.old"));
    }

    #[test]
    fn what_the_tool_says_is_understood() {
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

    #[test]
    fn the_exact_size_gives_way_when_it_is_of_another_version() {
        assert_eq!(closest(Some(1000), Some(1049)), Some(1049));
        assert_eq!(closest(Some(1000), Some(5000)), Some(1000));
        assert_eq!(closest(Some(1000), None), Some(1000));
        assert_eq!(closest(None, Some(5000)), Some(5000));
        assert_eq!(closest(None, None), None);
    }
}
