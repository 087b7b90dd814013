//! Searching the hub for models with the hub's own tool, `hf models ls`
//! (<https://huggingface.co/docs/huggingface_hub/guides/cli>).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::download::{QUIET, TOOL, find_tool, said, without_escapes};
use super::is_model_name;
use crate::core::cancel::CancelToken;
use crate::core::files;
use crate::core::helper::{Helper, HelperOutput};
use crate::core::models::python_json;
use crate::core::timestamp::Timestamp;

/// How often the tool is checked for its end and for words of failure.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Maximum size of what the tool prints.
const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// How long a result is used again.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// The endings of quantizations that are preferred for a GGUF model, the best first.
const PREFERRED: [&str; 5] = ["Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0"];

/// How a runtime finds its models on the hub.
#[derive(Debug, Clone, Copy)]
pub struct HubModels {
    /// The arguments that select models for the runtime.
    pub filter: &'static [&'static str],
    /// The text before the repository in the names that the runtime pulls.
    pub prefix: &'static str,
    /// Whether a model is one quantization of a repository of GGUF files.
    pub is_gguf: bool,
}

/// The order of a list, the tool's word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchOrder {
    Downloads,
    New,
    Trending,
}

impl SearchOrder {
    fn word(self) -> &'static str {
        match self {
            Self::Downloads => "downloads",
            Self::New => "created_at",
            Self::Trending => "trending_score",
        }
    }
}

/// Why a search has no result.
#[derive(Debug, thiserror::Error)]
pub enum HubSearchError {
    #[error("cannot search: the program {tool} is not installed")]
    ToolMissing { tool: &'static str },
    #[error("cannot run {tool}")]
    ToolBroken { tool: PathBuf, source: io::Error },
    /// The hub refuses further requests for some time.
    #[error("the hub refuses more requests for now (HTTP 429)")]
    RateLimited {
        /// When it takes the next one, as far as it says so.
        seconds: Option<u64>,
    },
    /// The hub cannot be reached.
    #[error("cannot reach the hub: {said}")]
    Unreachable { said: String },
    #[error("the search failed: {said}")]
    Failed { said: String },
    #[error("interrupted")]
    Cancelled,
}

/// A repository in a list. Unknown values are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub name: String,
    pub parameters: Option<u64>,
    /// Bits of a weight of a quantized model in MLX's format.
    pub bits: Option<u64>,
    /// In tokens.
    pub context_length: Option<u64>,
    pub downloads: Option<u64>,
    pub updated: Option<Timestamp>,
}

/// The files of one model in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFiles {
    /// The quantization, for a repository of GGUF files.
    pub quantization: Option<String>,
    /// What a download takes, in bytes.
    pub bytes: u64,
    /// The weights, in bytes.
    pub weight_bytes: u64,
}

/// A search with its tool. Results are kept for a day.
#[derive(Debug)]
pub struct HubSearch<'a> {
    tool: PathBuf,
    /// The directory of the kept results.
    kept: PathBuf,
    /// The hub, for the names of kept results.
    hub: OsString,
    cancel: &'a CancelToken,
}

impl<'a> HubSearch<'a> {
    /// Finds the tool: beside one of `programs`, with which it was installed, or on `search`, a `PATH`.
    pub fn prepare(
        programs: impl Iterator<Item = PathBuf>,
        search: Option<&OsStr>,
        kept: PathBuf,
        hub: OsString,
        cancel: &'a CancelToken,
    ) -> Result<Self, HubSearchError> {
        let mut beside = programs.filter_map(|program| find_tool(Some(&program), None));
        let tool = beside.next().or_else(|| find_tool(None, search));
        Ok(Self { tool: tool.ok_or(HubSearchError::ToolMissing { tool: TOOL })?, kept, hub, cancel })
    }

    /// Lists at most `limit` repositories that match `words`.
    pub fn list(
        &self,
        models: &HubModels,
        words: &str,
        order: SearchOrder,
        limit: usize,
    ) -> Result<Vec<Repository>, HubSearchError> {
        // One argument, because the words may begin with a hyphen.
        let words = format!("--search={words}");
        let limit = limit.to_string();
        let expand = "downloads,lastModified,gguf,safetensors,config";
        let mut arguments = vec!["models", "ls", &words];
        arguments.extend(models.filter);
        arguments.extend(["--sort", order.word(), "--limit", &limit, "--expand", expand, "--format", "json"]);
        let listed = self.ask(&arguments)?;
        Ok(elements(&listed).filter_map(repository).collect())
    }

    /// Returns the files of the model of a repository that a pull without further words downloads.
    pub fn files(
        &self,
        models: &HubModels,
        repository: &str,
    ) -> Result<Option<RepositoryFiles>, HubSearchError> {
        let listed = self.ask(&["models", "ls", repository, "-R", "--format", "json"])?;
        let files: Vec<(&str, u64)> = elements(&listed)
            .filter_map(|file| Some((file["path"].as_str()?, file["size"].as_u64()?)))
            .collect();
        Ok(if models.is_gguf { of_gguf(&files) } else { of_safetensors(&files) })
    }

    /// Returns what the tool prints, or what it printed within the last day.
    fn ask(&self, arguments: &[&str]) -> Result<Value, HubSearchError> {
        let file = self.kept.join(format!("{:016x}.json", hash(&self.hub, arguments)));
        if let Some(result) = kept_result(&file) {
            return Ok(result);
        }
        let output = self.run(arguments)?;
        let result = result_in(&output)
            .ok_or_else(|| HubSearchError::Failed { said: "the tool printed no list".to_owned() })?;
        self.keep(&file, &result);
        Ok(result)
    }

    /// A result that cannot be kept costs time only.
    fn keep(&self, file: &Path, result: &Value) {
        let write = || {
            files::make_directory(&self.kept).ok()?;
            for old in fs::read_dir(&self.kept).ok()?.flatten() {
                if age(&old.path()).is_none_or(|age| age > MAX_AGE) {
                    fs::remove_file(old.path()).ok()?;
                }
            }
            files::replace(file, result.to_string().as_bytes()).ok()
        };
        let _ = write();
    }

    /// Runs the tool to its end. Stops it as soon as it would wait: it tries again for minutes.
    fn run(&self, arguments: &[&str]) -> Result<String, HubSearchError> {
        let broken = |source: io::Error| HubSearchError::ToolBroken { tool: self.tool.clone(), source };
        let mut command = Command::new(&self.tool);
        command.args(arguments).envs(QUIET.map(|name| (name, "1"))).stdin(Stdio::null());
        let mut helper = Helper::start(&mut command, HelperOutput::Keep).map_err(broken)?;
        loop {
            let ended = helper.try_wait().map_err(broken)?;
            let output = without_escapes(&helper.output(MAX_OUTPUT_BYTES));
            match ended {
                Some(status) if status.success() => return Ok(output),
                Some(_) => return Err(failure(&output)),
                None if self.cancel.is_cancelled() => return Err(HubSearchError::Cancelled),
                None if output.contains("Rate limited.") || output.contains("Retrying in") => {
                    return Err(failure(&output));
                }
                None => thread::sleep(POLL_INTERVAL),
            }
        }
    }
}

/// Returns what the output of a failed run means.
fn failure(output: &str) -> HubSearchError {
    let lower = output.to_lowercase();
    let is_limited =
        lower.contains("429") || lower.contains("too many requests") || lower.contains("rate limit");
    let said = said(output);
    if is_limited {
        HubSearchError::RateLimited { seconds: seconds_in(&lower) }
    } else if super::download::is_network_error(&lower) || lower.contains("offline mode is enabled") {
        HubSearchError::Unreachable { said }
    } else {
        HubSearchError::Failed { said }
    }
}

/// Returns the number in `Waiting 56.0s before retry` or `retry after 56 seconds`.
fn seconds_in(lower: &str) -> Option<u64> {
    let after = ["waiting ", "retry after "].iter().find_map(|words| lower.split_once(words))?.1;
    let end = after.find(|character: char| !character.is_ascii_digit())?;
    after[..end].parse().ok()
}

/// Returns the list in the output, which may have lines of other kinds around it.
fn result_in(output: &str) -> Option<Value> {
    let start = if output.starts_with('[') { 0 } else { output.find("\n[")? + 1 };
    let end = output.rfind(']')?;
    python_json::parse(output.get(start..=end)?.as_bytes()).ok().filter(Value::is_array)
}

fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn repository(listed: &Value) -> Option<Repository> {
    let name = listed["id"].as_str().filter(|name| is_model_name(name))?;
    let tensors = &listed["safetensors"];
    let config = &listed["config"];
    let bits = ["quantization_config", "quantization"]
        .iter()
        .find_map(|key| config[*key]["bits"].as_u64())
        .or_else(|| bits_in(name));
    // A packed number of 32 bits holds several weights.
    let packed = tensors["parameters"]["U32"].as_u64().zip(bits.filter(|bits| (1..=32).contains(bits)));
    let parameters = packed
        .map(|(numbers, bits)| numbers.saturating_mul(32) / bits)
        .or_else(|| listed["gguf"]["total"].as_u64())
        .or_else(|| tensors["total"].as_u64());
    let updated = ["last_modified", "lastModified"].iter().find_map(|key| listed[*key].as_str());
    Some(Repository {
        name: name.to_owned(),
        parameters: parameters.filter(|parameters| *parameters > 0),
        bits,
        context_length: listed["gguf"]["context_length"].as_u64(),
        downloads: listed["downloads"].as_u64(),
        updated: updated.and_then(|text| text.parse().ok()),
    })
}

/// Returns 4 for `...-4bit`.
fn bits_in(name: &str) -> Option<u64> {
    let (front, _) =
        name.to_lowercase().split_once("bit").map(|(front, rest)| (front.to_owned(), rest.to_owned()))?;
    front.rsplit(['-', '_']).next()?.parse().ok().filter(|bits| (1..=16).contains(bits))
}

fn of_safetensors(files: &[(&str, u64)]) -> Option<RepositoryFiles> {
    let sum = |ends: &[&str]| {
        let wanted = files.iter().filter(|(path, _)| ends.iter().any(|end| path.ends_with(end)));
        wanted.map(|(_, size)| *size).fold(0, u64::saturating_add)
    };
    let weight_bytes = sum(&[".safetensors"]);
    let bytes = sum(&[".safetensors", ".json", ".model", ".txt", ".jinja", ".tiktoken", ".py"]);
    (weight_bytes > 0).then_some(RepositoryFiles { quantization: None, bytes, weight_bytes })
}

/// Chooses the usual quantization, else the smallest.
fn of_gguf(files: &[(&str, u64)]) -> Option<RepositoryFiles> {
    let mut sizes: Vec<(String, u64)> = Vec::new();
    for (path, size) in files {
        let Some(quantization) = quantization(path) else { continue };
        match sizes.iter_mut().find(|(known, _)| *known == quantization) {
            Some((_, bytes)) => *bytes = bytes.saturating_add(*size),
            None => sizes.push((quantization, *size)),
        }
    }
    let preferred = PREFERRED.iter().find_map(|wanted| sizes.iter().find(|(known, _)| known == wanted));
    let (quantization, bytes) = preferred.or_else(|| sizes.iter().min_by_key(|(_, bytes)| *bytes))?.clone();
    Some(RepositoryFiles { quantization: Some(quantization), bytes, weight_bytes: bytes })
}

/// Returns `Q4_K_M` for `dir/model-Q4_K_M-00001-of-00002.gguf`; `None` for what is no model or has no quantization.
fn quantization(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?.to_uppercase();
    let mut name = file.strip_suffix(".GGUF")?;
    if name.contains("MMPROJ") {
        return None;
    }
    if let Some((front, _)) = name.split_once("-OF-") {
        name = front.rsplit_once('-')?.0;
    }
    let last = name.rsplit(['-', '.']).next()?;
    let is_known = last.starts_with("IQ") || ["F16", "BF16", "F32", "MXFP4"].contains(&last);
    let is_numbered =
        last.strip_prefix('Q').is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()));
    (is_known || is_numbered).then(|| last.to_owned())
}

fn age(file: &Path) -> Option<Duration> {
    let written = file.metadata().ok()?.modified().ok()?;
    SystemTime::now().duration_since(written).ok()
}

fn kept_result(file: &Path) -> Option<Value> {
    if age(file)? > MAX_AGE {
        return None;
    }
    let bytes = files::read(file, MAX_OUTPUT_BYTES as u64).ok()??;
    serde_json::from_slice(&bytes).ok().filter(Value::is_array)
}

/// Returns a hash of a hub and arguments (64 bits of FNV-1a).
fn hash(hub: &OsStr, arguments: &[&str]) -> u64 {
    let texts = std::iter::once(hub.as_encoded_bytes()).chain(arguments.iter().map(|word| word.as_bytes()));
    texts
        .flat_map(|text| text.iter().chain(&[0]))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_found_among_other_lines() {
        let output = "Warning: [x]\n[{\"id\": \"a/b\", \"gguf\": {\"total\": NaN}}]\nHint: none\n";
        assert_eq!(elements(&result_in(output).unwrap()).filter_map(repository).count(), 1);
        assert_eq!(result_in("nothing"), None);
        assert_eq!(result_in("[1"), None);
    }

    #[test]
    fn repositories_are_read_with_what_they_tell() {
        let text = r#"{"id": "mlx-community/Tiny-4bit", "downloads": 12, "last_modified": "2026-01-02T03:04:05+00:00",
            "safetensors": {"parameters": {"U32": 100, "BF16": 7}, "total": 107}}"#;
        let found = repository(&serde_json::from_slice(text.as_bytes()).unwrap()).unwrap();
        assert_eq!((found.bits, found.parameters, found.downloads), (Some(4), Some(800), Some(12)));
        assert_eq!(found.updated.unwrap().to_string(), "2026-01-02T03:04:05Z");
        for hostile in [r#"{"id": "../x"}"#, r#"{"id": "a\u001b[2J/b"}"#, r#"{"id": 5}"#, "7", "null"] {
            assert_eq!(repository(&serde_json::from_slice(hostile.as_bytes()).unwrap()), None, "{hostile}");
        }
    }

    #[test]
    fn the_usual_quantization_is_chosen() {
        let files = [
            ("a-Q8_0.gguf", 9),
            ("q/a-Q4_K_M-00001-of-00002.gguf", 2),
            ("q/a-Q4_K_M-00002-of-00002.gguf", 3),
        ];
        let chosen = of_gguf(&files).unwrap();
        assert_eq!((chosen.quantization.as_deref(), chosen.bytes), (Some("Q4_K_M"), 5));
        let others =
            of_gguf(&[("a.IQ2_M.gguf", 4), ("mmproj-F16.gguf", 1), ("a-F16.gguf", 8), ("a.gguf", 1)])
                .unwrap();
        assert_eq!((others.quantization.as_deref(), others.bytes), (Some("IQ2_M"), 4));
        assert_eq!(of_gguf(&[("README.md", 1)]), None);
        let weights =
            of_safetensors(&[("model.safetensors", 8), ("config.json", 1), ("README.md", 5)]).unwrap();
        assert_eq!((weights.bytes, weights.weight_bytes), (9, 8));
    }

    #[test]
    fn failures_of_the_tool_are_understood() {
        let limited = "HTTP Error 429 thrown while requesting GET\nRate limited. Waiting 56.0s before retry [Retry 1/5].";
        assert!(matches!(failure(limited), HubSearchError::RateLimited { seconds: Some(56) }));
        let refused = "'[Errno 111] Connection refused' thrown while requesting GET http://x\nRetrying in 1s";
        assert!(matches!(failure(refused), HubSearchError::Unreachable { .. }));
        let offline = "Error: Cannot reach http://x: offline mode is enabled.";
        assert!(matches!(failure(offline), HubSearchError::Unreachable { .. }));
        assert_eq!(
            failure("Error: No such command 'models'.").to_string(),
            "the search failed: No such command 'models'."
        );
    }
}
