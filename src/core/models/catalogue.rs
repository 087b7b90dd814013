//! What a runtime can do with models: list, show, download, remove, load, unload.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::core::address::Address;
use crate::core::api::ApiError;
use crate::core::api::error::ServerError;
use crate::core::cancel::CancelToken;
use crate::core::models::ModelPlaces;
use crate::core::models::directory::Defect;
use crate::core::models::hub_cache::HubCacheError;
use crate::core::timestamp::Timestamp;

/// Where a catalogue works: the facts that it cannot find out for itself.
pub struct Site<'a> {
    /// Where the runtime's server answers, or would.
    pub address: &'a Address,
    /// Where model files may lie.
    pub places: &'a ModelPlaces,
    /// The program with which the server is started, where one is found; other tools lie beside it.
    pub program: Option<&'a Path>,
    /// The value of `PATH`.
    pub search: Option<&'a OsStr>,
    /// The variables that the configuration sets for the server.
    pub env: &'a BTreeMap<String, String>,
    /// How long loading a model may take.
    pub load_timeout: Duration,
    /// Asks the work to stop early.
    pub cancel: &'a CancelToken,
}

/// The models of one runtime. Every operation may wait for a disk, a server, or the network.
///
/// Names are those that [`crate::core::aliases::resolve`] gives.
pub trait Catalogue: Sync {
    /// Whether only the running server knows the models.
    fn needs_server(&self) -> bool;

    /// The models on this machine, in no order; incomplete ones too.
    fn list(&self, site: &Site<'_>) -> Result<Vec<Entry>, ModelError>;

    /// All that is known of one model.
    fn show(&self, site: &Site<'_>, name: &str) -> Result<Details, ModelError>;

    /// Fails when the model is not here, or not whole; a glance for a runtime whose server checks for itself.
    fn check(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError>;

    /// Downloads the model, or what is missing of it.
    fn pull(
        &self,
        site: &Site<'_>,
        name: &str,
        observer: &mut dyn FnMut(PullStep<'_>),
    ) -> Result<(), ModelError>;

    /// Removes the model from this machine; gives the bytes that became free, where that is known.
    fn remove(&self, site: &Site<'_>, name: &str) -> Result<Option<u64>, ModelError>;

    /// Has the server load the model, and keep it for so long after its last use.
    fn load(&self, site: &Site<'_>, name: &str, keep_alive: Option<&KeepAlive>) -> Result<(), ModelError>;

    /// Has the server let go of the model.
    fn unload(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError>;
}

/// One model in a list. The names and types of its fields in JSON do not change between releases; unknown is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name: what `--model` takes.
    pub name: String,
    /// The bytes it takes on the disk.
    pub size_bytes: Option<u64>,
    /// The kind of its files, such as `gguf` or `safetensors`.
    pub format: Option<String>,
    /// How its numbers are stored, such as `Q4_K_M` or `4-bit`.
    pub quantization: Option<String>,
    /// When it was downloaded or changed last.
    pub modified: Option<Timestamp>,
    /// When it was read last, as far as the file system tells.
    pub last_used: Option<Timestamp>,
    /// Whether it is in memory now.
    pub loaded: Option<bool>,
    /// What keeps it from being used; empty when it is whole.
    pub defects: Vec<String>,
}

/// All that is known of one model. The names and types of its fields in JSON do not change between releases; unknown
/// is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Details {
    /// The facts that a list shows, too.
    #[serde(flatten)]
    pub entry: Entry,
    /// Where its files lie.
    pub path: Option<PathBuf>,
    /// The kind of network, such as `llama`.
    pub architecture: Option<String>,
    /// How many numbers it has learnt.
    pub parameters: Option<u64>,
    /// The longest conversation, in tokens.
    pub context_length: Option<u64>,
    /// Its licence, by name or in its first words.
    pub license: Option<String>,
    /// Whether it says how a conversation is put to it.
    pub chat_template: Option<bool>,
    /// What it is made for, such as `completion`, `vision`, `tools`.
    pub capabilities: Vec<String>,
    /// The memory that it needs.
    pub memory: Option<MemoryEstimate>,
}

/// An estimate of the memory that a model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// In all.
    pub bytes: u64,
    /// Of which the weights.
    pub weight_bytes: u64,
    /// For a conversation of so many tokens.
    pub context_tokens: u64,
}

impl MemoryEstimate {
    /// The conversation that an estimate assumes, unless the model cannot hold so long a one.
    const CONTEXT_TOKENS: u64 = 4096;

    /// From the bytes of the weights, those of a token, and the longest conversation.
    pub fn estimate(weight_bytes: u64, bytes_per_token: u64, context_length: Option<u64>) -> Self {
        let context_tokens = context_length.unwrap_or(u64::MAX).min(Self::CONTEXT_TOKENS);
        let bytes = weight_bytes.saturating_add(bytes_per_token.saturating_mul(context_tokens));
        Self { bytes, weight_bytes, context_tokens }
    }
}

/// What happens during a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullStep<'a> {
    /// Something without a measure, in the words of who does it.
    Stage(&'a str),
    /// Bytes have arrived.
    Bytes {
        /// So many until now.
        done: u64,
        /// Of so many, where that is known. May grow.
        total: Option<u64>,
    },
}

/// How long a model stays in memory after its last use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepAlive {
    /// Until it is unloaded.
    Forever,
    /// So many seconds.
    Seconds(u64),
}

impl KeepAlive {
    /// Reads `300`, `90s`, `30m`, `2h`, `1d`, or `forever` (also `-1`); `None` for anything else.
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

    /// As a JSON number of seconds; negative means for ever.
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
    /// The runtime has one model, for as long as it runs.
    #[error("the server cannot let go of its model while it runs")]
    CannotUnload,
    /// The runtime keeps its model until another is loaded.
    #[error("the server keeps its model until another is loaded, so how long means nothing to it")]
    CannotKeepAlive,
    /// It is not on this machine.
    #[error("the model {name} is not on this machine")]
    NotHere {
        /// Its name.
        name: String,
    },
    /// Its files are not all here, or not what they should be.
    #[error("the model {name} is incomplete: {}", list(defects))]
    Incomplete {
        /// Its name.
        name: String,
        /// What is missing.
        defects: Vec<Defect>,
        /// Whether it is a directory of the user's, which no download repairs.
        is_directory: bool,
    },
    /// All of it that is of use is here, and that is no model for this runtime.
    #[error("{name} is not a model for {title}: {}", list(defects))]
    Unusable {
        /// Its name.
        name: String,
        /// The runtime's name in sentences.
        title: &'static str,
        /// What it lacks.
        defects: Vec<Defect>,
    },
    /// A path leads nowhere.
    #[error("there is no directory {path}")]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// A directory of the user's, with which fusion does nothing of the kind.
    #[error("{path} is a directory of yours; fusion only removes what it downloaded")]
    OwnDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// No model has such a name.
    #[error("{name:?} is not the name of a model")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// Where models are downloaded from, there is none of that name.
    #[error("there is no model {name} to download")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// The model's owner has to allow its download.
    #[error("the model {name} may only be downloaded by whom its owner allows to")]
    Gated {
        /// Its name.
        name: String,
    },
    /// The program that downloads is not there.
    #[error("there is no program {tool}, which downloads models")]
    ToolMissing {
        /// The program.
        tool: &'static str,
    },
    /// A program that fusion runs could not be run.
    #[error("cannot run {tool}")]
    ToolBroken {
        /// The program.
        tool: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It would not fit on the disk.
    #[error("{name} needs {needed} bytes, and {path} has {free} bytes free")]
    NoSpace {
        /// Its name.
        name: String,
        /// The bytes that are to be downloaded.
        needed: u64,
        /// The bytes that are free.
        free: u64,
        /// Where.
        path: PathBuf,
    },
    /// The environment forbids the network.
    #[error("{variable} is set, so nothing is downloaded")]
    Offline {
        /// The variable that says so.
        variable: &'static str,
    },
    /// Where models are downloaded from cannot be reached.
    #[error("cannot reach the place where models are downloaded from: {said}")]
    Network {
        /// What the tool or server said.
        said: String,
    },
    /// The download failed for another reason.
    #[error("the download failed: {said}")]
    Download {
        /// What the tool or server said.
        said: String,
    },
    /// The server refused.
    #[error("the server answered: {0}")]
    Server(ServerError),
    /// The server did not answer.
    #[error(transparent)]
    Api(ApiError),
    /// The cache of models cannot be used.
    #[error(transparent)]
    Cache(#[from] HubCacheError),
    /// The work was cancelled.
    #[error("interrupted")]
    Cancelled,
}

impl From<ApiError> for ModelError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Cancelled => Self::Cancelled,
            error => Self::Api(error),
        }
    }
}

fn list(defects: &[Defect]) -> String {
    defects.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_anything_else_is_refused() {
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
    fn the_memory_of_a_conversation_is_counted_up_to_what_the_model_holds() {
        assert_eq!(MemoryEstimate::estimate(1000, 2, None).bytes, 1000 + 2 * 4096);
        assert_eq!(MemoryEstimate::estimate(1000, 2, Some(100)).bytes, 1200);
        assert_eq!(MemoryEstimate::estimate(u64::MAX, u64::MAX, None).bytes, u64::MAX);
    }
}
