//! Downloading a model into the hub's cache with the hub's own tool, `hf download`, watched from outside.
//!
//! The form of the tool's progress (<https://huggingface.co/docs/huggingface_hub/guides/cli>) changes between versions;
//! the growth of the cache does not. Complete files stay when a download is interrupted. The tool resumes a file after
//! a broken connection, but starts it again after its own death (since version 1.18 of `huggingface_hub`); then the
//! remains of that file are removed.

use std::time::Duration;

use super::tool::{HubTool, TOOL, failure};
use super::{CachedModel, HubCache};
use crate::core::machine;
use crate::core::models::catalogue::{ModelError, PullStep, Site};
use crate::core::numbers;

/// How often the growth of the cache is measured.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A download that has its tool.
pub struct Download<'a> {
    tool: HubTool<'a>,
    cache: &'a HubCache,
    model: &'a CachedModel,
}

/// What the tool would download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DownloadPlan {
    files: u64,
    /// Rounded by the tool.
    bytes: Option<u64>,
}

/// What the tool would download, and how to tell it.
#[derive(Debug, Clone, Copy)]
pub struct Outlook {
    plan: Option<DownloadPlan>,
    patterns: Patterns,
}

impl Outlook {
    /// Returns whether there may be files to download.
    pub fn has_files(&self) -> bool {
        self.plan.is_none_or(|plan| plan.files > 0)
    }
}

/// How the tool accepts several patterns.
#[derive(Debug, Clone, Copy)]
enum Patterns {
    /// Each after its own `--include`.
    OneByOne,
    /// All after one `--include`, before version 1.0, which uses only the last of several.
    Together,
}

impl<'a> Download<'a> {
    /// Finds the tool.
    pub fn prepare(
        site: &'a Site<'_>,
        cache: &'a HubCache,
        model: &'a CachedModel,
    ) -> Result<Self, ModelError> {
        let missing = || ModelError::ToolMissing { tool: TOOL, name: model.name.clone(), comes_with: None };
        let program = (site.find_tool)(TOOL).ok_or_else(missing)?;
        let variables = site.env.iter().map(|(name, value)| (name.into(), value.into()));
        let mut variables: Vec<_> = variables.collect();
        variables.push(("HF_HUB_CACHE".into(), cache.root().into()));
        let tool = HubTool::new(program, variables, site.cancel);
        Ok(Self { tool, cache, model })
    }

    /// Downloads the missing files that match one of `patterns`.
    pub fn run(&self, patterns: &[&str], observer: &mut dyn FnMut(PullStep<'_>)) -> Result<(), ModelError> {
        let outlook = self.plan(patterns, 0, observer)?;
        if outlook.has_files() { self.download(patterns, &outlook, observer) } else { Ok(()) }
    }

    /// Returns what is to be downloaded, besides files of `replaced_bytes` that are there now. Fails if the hub does
    /// not allow it or the disk is too small; changes nothing.
    pub fn plan(
        &self,
        patterns: &[&str],
        replaced_bytes: u64,
        observer: &mut dyn FnMut(PullStep<'_>),
    ) -> Result<Outlook, ModelError> {
        observer(PullStep::Stage("requesting the list of files"));
        let mut outlook = self.ask(patterns)?;
        if let Some(bytes) = outlook.plan.as_mut().and_then(|plan| plan.bytes.as_mut()) {
            *bytes = bytes.saturating_add(replaced_bytes);
        }
        self.check_space(outlook.plan.and_then(|plan| plan.bytes))?;
        Ok(outlook)
    }

    /// Downloads the missing files that match one of `patterns`.
    pub fn download(
        &self,
        patterns: &[&str],
        outlook: &Outlook,
        observer: &mut dyn FnMut(PullStep<'_>),
    ) -> Result<(), ModelError> {
        let bytes = outlook.plan.and_then(|plan| plan.bytes);
        let result = self.run_tool(&self.arguments(patterns, outlook.patterns), patterns, bytes, observer);
        // In any case; the next download removes what cannot be removed now.
        let _ = self.cache.remove_leftovers(self.model);
        result
    }

    /// Returns the files of the model that match `pattern`, as the hub lists them; none is downloaded.
    pub fn list(&self, pattern: &str) -> Result<Vec<String>, ModelError> {
        let mut arguments = self.arguments(&[pattern], Patterns::OneByOne);
        arguments.push("--dry-run");
        let ended = self.tool.run(&arguments, POLL_INTERVAL, &mut |_| true)?;
        if ended.succeeded() {
            Ok(read_files(&ended.printed))
        } else {
            Err(failure(&self.model.name, &ended.all()))
        }
    }

    /// Asks the tool what it would download; versions before 1.0 cannot tell.
    fn ask(&self, patterns: &[&str]) -> Result<Outlook, ModelError> {
        let mut arguments = self.arguments(patterns, Patterns::OneByOne);
        arguments.push("--dry-run");
        let ended = self.tool.run(&arguments, POLL_INTERVAL, &mut |_| true)?;
        if ended.succeeded() {
            return Ok(Outlook { plan: read_plan(&ended.printed), patterns: Patterns::OneByOne });
        }
        let too_old = ended.all().contains("--dry-run") && ended.all().to_lowercase().contains("usage:");
        if too_old {
            Ok(Outlook { plan: None, patterns: Patterns::Together })
        } else {
            Err(failure(&self.model.name, &ended.all()))
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

    fn run_tool(
        &self,
        arguments: &[&str],
        patterns: &[&str],
        expected: Option<u64>,
        observer: &mut dyn FnMut(PullStep<'_>),
    ) -> Result<(), ModelError> {
        let before = self.model.disk_use().bytes;
        let missing = || exact_size(self.model, patterns);
        let mut total = None;
        let ended = self.tool.run(arguments, POLL_INTERVAL, &mut |_| {
            let done = self.model.disk_use().bytes.saturating_sub(before);
            total = total.or_else(|| closest(expected, missing().map(|bytes| bytes.saturating_add(done))));
            observer(PullStep::Bytes { done: total.map_or(done, |total| done.min(total)), total });
            true
        })?;
        if ended.succeeded() { Ok(()) } else { Err(failure(&self.model.name, &ended.all())) }
    }

    /// Fails if the download does not fit on the disk of the cache or of its nearest existing parent.
    fn check_space(&self, bytes: Option<u64>) -> Result<(), ModelError> {
        let Some(bytes) = bytes else { return Ok(()) };
        // The tool rounds to two digits or more.
        let needed = bytes.saturating_add(bytes / 20);
        let path = machine::nearest_existing(self.cache.root());
        match machine::free_space(path) {
            Ok(free) if free < needed => {
                let (name, path) = (self.model.name.clone(), path.to_owned());
                Err(ModelError::NoSpace { name, needed, free, path })
            }
            // An unknown free space does not prevent a download.
            _ => Ok(()),
        }
    }
}

/// Returns whether a file name matches a pattern with at most one `*`.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((front, back)) => {
            name.len() >= front.len() + back.len() && name.starts_with(front) && name.ends_with(back)
        }
        None => pattern == name,
    }
}

/// Returns how many bytes are missing according to the list that the tool stores in the cache.
fn exact_size(model: &CachedModel, patterns: &[&str]) -> Option<u64> {
    let snapshot = model.snapshot();
    let is_wanted = |file: &str| patterns.iter().any(|pattern| matches(pattern, file));
    let is_here = |file: &str| snapshot.as_ref().is_some_and(|snapshot| snapshot.join(file).is_file());
    let files = model.expected_files()?;
    let missing = files.iter().filter(|(file, _)| is_wanted(file) && !is_here(file));
    Some(missing.map(|(_, size)| *size).fold(0, u64::saturating_add))
}

/// Returns the exact size unless it is far from the announced one: then it belongs to an earlier version.
fn closest(announced: Option<u64>, exact: Option<u64>) -> Option<u64> {
    match (announced, exact) {
        (Some(announced), Some(exact)) if exact.abs_diff(announced) > announced / 10 => Some(announced),
        (announced, exact) => exact.or(announced),
    }
}

/// Parses `[dry-run] Will download 6 files (out of 7) totalling 1.3M.`
fn read_plan(output: &str) -> Option<DownloadPlan> {
    let line = output.lines().find_map(|line| line.trim().strip_prefix("[dry-run] Will download "))?;
    let files = line.split(' ').next()?.parse().ok()?;
    let bytes = line.split_once("totalling ").and_then(|(_, size)| read_size(size.trim_end_matches('.')));
    Some(DownloadPlan { files, bytes })
}

/// Reads the table below that line: a name and a size in each row, under a line of dashes.
fn read_files(output: &str) -> Vec<String> {
    let rows = output.lines().skip_while(|line| !line.starts_with("---")).skip(1);
    rows.filter_map(|row| Some(row.trim_end().rsplit_once(' ')?.0.trim_end().to_owned())).collect()
}

/// Parses a size such as `1.3M`, in powers of 1,000.
fn read_size(text: &str) -> Option<u64> {
    let (number, factor) = match text.char_indices().next_back()? {
        (at, 'K') => (&text[..at], 1e3),
        (at, 'M') => (&text[..at], 1e6),
        (at, 'G') => (&text[..at], 1e9),
        (at, 'T') => (&text[..at], 1e12),
        _ => (text, 1.0),
    };
    let bytes = numbers::parse_float(number).filter(|number| number.is_finite() && *number >= 0.0)? * factor;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "neither negative nor beyond 64 bits"
    )]
    Some(bytes.min(1e18) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_of_the_tool_is_parsed() {
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
        let table = "[dry-run] Will download 2 files (out of 3) totalling 2.0M.\nFILE        SIZE  \n\
                     ----------- ------\nBF16/x.gguf 352.4K\ny z.gguf    -     \n";
        assert_eq!(read_files(table), ["BF16/x.gguf", "y z.gguf"]);
        assert_eq!(read_files("[dry-run] Will download 0 files (out of 0) totalling 0.0."), [""; 0]);
    }

    #[test]
    fn patterns_match_as_in_the_tool() {
        assert!(matches("*.json", "config.json"));
        assert!(matches("model*.safetensors", "model-00001-of-00002.safetensors"));
        assert!(!matches("model*.safetensors", "consolidated.safetensors"));
        assert!(!matches("a*a", "a"));
        assert!(matches("tokenizer.model", "tokenizer.model"));
        assert!(!matches("tokenizer.model", "tokenizer.model.old"));
    }

    #[test]
    fn an_exact_size_of_another_version_is_ignored() {
        assert_eq!(closest(Some(1000), Some(1049)), Some(1049));
        assert_eq!(closest(Some(1000), Some(5000)), Some(1000));
        assert_eq!(closest(Some(1000), None), Some(1000));
        assert_eq!(closest(None, Some(5000)), Some(5000));
        assert_eq!(closest(None, None), None);
    }
}
