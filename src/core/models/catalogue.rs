//! What a runtime can do with models: list, show, pull, remove, load, unload.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::core::address::Address;
use crate::core::api::ApiError;
use crate::core::api::error::ServerError;
use crate::core::cancel::CancelToken;
use crate::core::models::ModelPlaces;
use crate::core::models::defect::Defect;
use crate::core::models::hub::HubCacheError;
use crate::core::models::token_cache::TokenCache;
use crate::core::sorted_map::SortedMap;
use crate::core::timestamp::Timestamp;

type ToolFinder<'a> = dyn Fn(&str) -> Option<PathBuf> + 'a;

/// What a catalogue must be told to do its work.
pub struct Site<'a> {
    /// Where the service listens, or would; `None` while it has no port yet.
    pub address: Option<Address>,
    pub places: ModelPlaces,
    /// Finds a tool that comes with the program of a server, or on `PATH`.
    pub find_tool: Box<ToolFinder<'a>>,
    /// Reads the beginning of the log of the server at `address`, if fusion started it; else returns nothing.
    pub log: Box<dyn Fn() -> String + 'a>,
    /// The variables that the configuration sets for the server.
    pub env: &'a SortedMap<String, String>,
    /// The timeout for loading a model.
    pub load_timeout: Duration,
    pub cancel: &'a CancelToken,
}

impl Site<'_> {
    /// Returns where to send requests.
    pub fn address(&self) -> Result<&Address, ModelError> {
        self.address.as_ref().ok_or(ModelError::NotRunning)
    }
}

/// The models of one runtime. Every operation may wait for a disk, a server, or the network.
///
/// Names are those that [`crate::core::aliases::resolve`] returns.
pub trait Catalogue: Sync {
    /// Returns whether only the running server knows the models.
    fn needs_server(&self) -> bool;

    /// Returns the models on this machine, incomplete ones too, in no order.
    fn list(&self, site: &Site<'_>) -> Result<Vec<Entry>, ModelError>;

    /// Returns what is known about one model.
    fn show(&self, site: &Site<'_>, name: &str) -> Result<Details, ModelError>;

    /// Returns what a prompt to the model must take into account; cheap.
    fn abilities(&self, site: &Site<'_>, name: &str) -> Result<Abilities, ModelError>;

    /// Returns what identifies the content of the model: a digest or a revision; else name, size and time of its files;
    /// `None` if the model is not found; cheap.
    fn identity(&self, site: &Site<'_>, name: &str) -> Option<String>;

    /// Fails if the model is not on this machine or incomplete; cheap for a runtime whose server checks by itself.
    fn check(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError>;

    /// Returns whether `load` may restart a server that was started with another model.
    fn restarts_to_load(&self) -> bool {
        true
    }

    /// Downloads the model, or the missing part of it.
    fn pull(
        &self,
        site: &Site<'_>,
        name: &str,
        observer: &mut dyn FnMut(PullStep<'_>),
    ) -> Result<(), ModelError>;

    /// Removes the model from this machine; returns how many bytes became free, where that is known.
    fn remove(&self, site: &Site<'_>, name: &str) -> Result<Option<u64>, ModelError>;

    /// Loads the model into the server, which keeps it for `keep_alive` after its last use.
    fn load(&self, site: &Site<'_>, name: &str, keep_alive: Option<&KeepAlive>) -> Result<(), ModelError>;

    /// Unloads the model. A server may still need time for that: [`is_loaded`](Self::is_loaded) tells.
    fn unload(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError>;

    /// Returns whether the server lists the model as loaded. Runtimes that unload before they respond need no such
    /// request.
    fn is_loaded(&self, _site: &Site<'_>, _name: &str) -> Result<bool, ModelError> {
        Ok(false)
    }
}

/// One model of a list. The names and types of its fields in JSON do not change between releases; unknown is null.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What `--model` takes.
    pub name: String,
    /// Bytes on the disk.
    pub size_bytes: Option<u64>,
    /// The format of its files, such as `gguf` or `safetensors`.
    pub format: Option<String>,
    /// Such as `Q4_K_M` or `4-bit`.
    pub quantization: Option<String>,
    /// When one of its files was last written.
    pub modified: Option<Timestamp>,
    /// When its weights were last read, if the file system records that.
    pub last_used: Option<Timestamp>,
    /// Whether it is in memory now.
    pub loaded: Option<bool>,
    /// Whether another machine runs it, so it needs neither disk nor memory here.
    pub remote: bool,
    /// Why it cannot be used; empty if it is complete.
    pub defects: Vec<String>,
    /// The files that the user has changed since the download; it can be used.
    pub changed: Vec<String>,
}

/// What is known about one model. The names and types of its fields in JSON do not change between releases; unknown is
/// null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Details {
    #[serde(flatten)]
    pub entry: Entry,
    pub path: Option<PathBuf>,
    /// The network's name, such as `llama`.
    pub architecture: Option<String>,
    pub parameters: Option<u64>,
    /// Tokens.
    pub context_length: Option<u64>,
    /// The context length in tokens with which its server will load it, if that is less.
    pub load_context: Option<u64>,
    /// The name of its license, or the license's first words.
    pub license: Option<String>,
    /// Whether it has a chat template that the server reads.
    pub chat_template: Option<bool>,
    /// Such as `completion`, `vision`, `tools`.
    pub capabilities: Vec<String>,
    pub memory: Option<MemoryEstimate>,
}

/// What a prompt to a model must take into account; `None` where unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// Whether it has a chat template that the server reads.
    pub chat_template: Option<bool>,
    /// Whether it sees images.
    pub vision: Option<bool>,
}

/// An estimate of the memory that a model needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// The sum of weights and context.
    pub bytes: u64,
    pub weight_bytes: u64,
    /// The context that the estimate assumes, in tokens.
    pub context_tokens: u64,
}

impl MemoryEstimate {
    /// The context that an estimate assumes if the model allows it.
    pub const CONTEXT_TOKENS: u64 = 4096;

    /// Adds the cache of up to 4,096 tokens to the weights.
    pub fn estimate(weight_bytes: u64, cache: impl Into<TokenCache>, context_length: Option<u64>) -> Self {
        Self::with_context(weight_bytes, cache, context_length, Self::CONTEXT_TOKENS)
    }

    /// Adds the cache of so many tokens to the weights; of fewer, if the model has not so many.
    pub fn with_context(
        weight_bytes: u64,
        cache: impl Into<TokenCache>,
        context_length: Option<u64>,
        tokens: u64,
    ) -> Self {
        let context_tokens = context_length.unwrap_or(u64::MAX).min(tokens);
        let bytes = weight_bytes.saturating_add(cache.into().bytes(context_tokens));
        Self { bytes, weight_bytes, context_tokens }
    }
}

/// What happens during a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullStep<'a> {
    /// A stage without a measure, in the tool's or server's words.
    Stage(&'a str),
    Bytes {
        done: u64,
        /// Can grow.
        total: Option<u64>,
    },
}

/// How long a model stays in memory after its last use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepAlive {
    /// Until it is unloaded.
    Forever,
    Seconds(u64),
}

impl KeepAlive {
    /// Parses `300`, `90s`, `30m`, `2h`, `1d`, or `forever` (also `-1`); `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if matches!(text, "forever" | "-1") {
            return Some(Self::Forever);
        }
        let (number, unit) = match text.char_indices().last()? {
            (at, 's') => (&text[..at], 1),
            (at, 'm') => (&text[..at], 60),
            (at, 'h') => (&text[..at], 3600),
            (at, 'd') => (&text[..at], 86_400),
            _ => (text, 1),
        };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse::<u32>().ok().filter(|number| digits && *number > 0)?;
        Some(Self::Seconds(u64::from(number) * unit))
    }

    /// Returns a JSON number of seconds; negative means no limit.
    pub fn json(&self) -> Value {
        match self {
            Self::Forever => Value::from(-1),
            Self::Seconds(seconds) => Value::from(*seconds),
        }
    }
}

/// Why something could not be done with a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The runtime keeps one model loaded for as long as it runs.
    #[error("the server cannot unload its model while it runs")]
    CannotUnload,
    #[error("the server keeps its model loaded until another one is loaded, so it has no time limit")]
    CannotKeepAlive,
    /// The server has no address yet: it was never started.
    #[error("the server is not running")]
    NotRunning,
    #[error("the model {name} is not on this machine")]
    NotHere { name: String },
    /// Files are missing or too short.
    #[error("the model {name} is incomplete: {}", list(defects))]
    Incomplete {
        name: String,
        defects: Vec<Defect>,
        /// The user's own file or directory, which no download repairs.
        own: Option<PathBuf>,
    },
    /// Files are there and cannot be read, which no download changes.
    #[error("the model {name} cannot be used: {}", list(defects))]
    Unreadable {
        name: String,
        /// Where its files are.
        path: PathBuf,
        defects: Vec<Defect>,
    },
    /// Everything that the runtime could use was downloaded, and it is not a model for this runtime.
    #[error("{name} is not a model for {title}: {}", list(defects))]
    Unusable {
        name: String,
        /// The runtime's display name.
        title: &'static str,
        defects: Vec<Defect>,
    },
    #[error("there is no directory {path}")]
    NoDirectory { path: PathBuf },
    #[error("{path} is your own directory; fusion removes only what it downloaded")]
    OwnDirectory { path: PathBuf },
    #[error("there is no file {path}")]
    NoFile { path: PathBuf },
    #[error("{path} is your own file; fusion removes only what it downloaded")]
    OwnFile { path: PathBuf },
    /// The server has other models, and may answer with one of them whichever is asked for.
    #[error("the server does not serve {name}; it serves {}", some(served))]
    NotServed { name: String, served: Vec<String> },
    /// The repository has other quantizations; `asked` is the one that was named, if any.
    #[error("{name} has no quantization {}; it has {}", asked.as_deref().unwrap_or("Q4_K_M"), available.join(", "))]
    NoQuantization { name: String, asked: Option<String>, available: Vec<String> },
    #[error("{name} was not loaded in time")]
    LoadTimedOut { name: String },
    #[error("{name} is still in memory: the server did not unload it in time")]
    UnloadTimedOut { name: String },
    #[error("{name:?} is not the name of a model")]
    InvalidName { name: String },
    /// The place to download from does not have the model.
    #[error("there is no model {name} to download")]
    Unknown { name: String },
    #[error("the model {name} requires its owner's permission to download")]
    Gated { name: String },
    /// The program that downloads is not installed.
    #[error("cannot download {name}: the program {tool} is not installed")]
    ToolMissing {
        tool: &'static str,
        name: String,
        /// The service whose installation brings it, if there is one.
        comes_with: Option<Arc<str>>,
    },
    #[error("cannot run {tool}")]
    ToolBroken { tool: PathBuf, source: io::Error },
    /// The download would not fit on the disk.
    #[error("{name} needs {needed} bytes, and {path} has {free} bytes free")]
    NoSpace { name: String, needed: u64, free: u64, path: PathBuf },
    /// A variable of the environment forbids downloads.
    #[error("{variable} is set, so nothing is downloaded")]
    Offline { variable: &'static str },
    #[error("cannot reach the server that models are downloaded from: {said}")]
    Network { said: String },
    #[error("the download failed: {said}")]
    Download { said: String },
    #[error("the server answered: {said}")]
    Server {
        said: ServerError,
        /// The cause that its log names.
        logged: Option<String>,
        /// What to do about it, in words.
        advice: Option<String>,
    },
    #[error(transparent)]
    Api(ApiError),
    #[error(transparent)]
    Cache(#[from] HubCacheError),
    #[error("interrupted")]
    Cancelled,
}

impl ModelError {
    /// Returns whether a download can help.
    pub fn is_pullable(&self) -> bool {
        matches!(self, Self::NotHere { .. } | Self::Incomplete { own: None, .. })
    }
}

impl From<ServerError> for ModelError {
    fn from(said: ServerError) -> Self {
        Self::Server { said, logged: None, advice: None }
    }
}

impl From<ApiError> for ModelError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Cancelled => Self::Cancelled,
            error => Self::Api(error),
        }
    }
}

/// Returns the first names of a list, in words.
pub fn some(names: &[String]) -> String {
    const SHOWN: usize = 8;
    match names.len() {
        0 => "nothing".to_owned(),
        1..=SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}

fn list(defects: &[Defect]) -> String {
    defects.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_times_are_parsed() {
        for (text, seconds) in [("300", 300), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400)] {
            assert_eq!(KeepAlive::parse(text), Some(KeepAlive::Seconds(seconds)));
        }
        assert_eq!(KeepAlive::parse("forever"), Some(KeepAlive::Forever));
        assert_eq!(KeepAlive::parse("-1"), Some(KeepAlive::Forever));
        for text in ["", "0", "m", "-5", "+5", "1.5h", "5 m", "5é", "99999999999999999999"] {
            assert_eq!(KeepAlive::parse(text), None);
        }
    }

    #[test]
    fn memory_counts_up_to_the_context_length() {
        assert_eq!(MemoryEstimate::estimate(1000, 2, None).bytes, 1000 + 2 * 4096);
        assert_eq!(MemoryEstimate::estimate(1000, 2, Some(100)).bytes, 1200);
        assert_eq!(MemoryEstimate::estimate(u64::MAX, u64::MAX, None).bytes, u64::MAX);
    }
}
