//! The typed, strict configuration: what the file may say, its defaults, and edits that keep comments.

pub mod edit;
mod file;
mod key;
mod parse;
mod problem;
mod schema;
mod template;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::edit::EditError;
pub use self::key::KeyPath;
pub use self::problem::{Fault, Problem, RESERVED_FIELDS};
pub use self::values::LONGEST as LONGEST_SECONDS;
use crate::core::address::Address;
use crate::core::files::FileError;
use crate::core::runtimes::{Runtime, Table};

/// What the whole file says, defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// One entry for each runtime of the table, by name. Shared, so that a service can own its settings.
    services: BTreeMap<Arc<str>, Arc<ServiceSettings>>,
    /// `[prompts.NAME]`.
    pub prompts: BTreeMap<String, Prompt>,
    /// `[aliases]`: short names of models.
    pub aliases: BTreeMap<String, Alias>,
}

/// `[aliases]`: what a short name of a model stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// `NAME = "model"`: the same model for every runtime.
    Everywhere(String),
    /// `NAME = { RUNTIME = "model" }`: by the runtime's name; runtimes that are not here do not know the alias.
    ForRuntimes(BTreeMap<String, String>),
}

impl Alias {
    /// The model that the alias stands for when this runtime is asked.
    pub fn model(&self, runtime: &str) -> Option<&str> {
        match self {
            Self::Everywhere(model) => Some(model),
            Self::ForRuntimes(models) => models.get(runtime).map(String::as_str),
        }
    }
}

/// `[NAME_server]` and `[NAME_run]` of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSettings {
    /// How its server is started and reached.
    pub server: ServerSettings,
    /// How it is prompted.
    pub run: RunSettings,
}

/// `[NAME_server]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// Where it listens.
    pub address: Address,
    /// The model it is started with, for runtimes whose server serves one model.
    pub model: Option<String>,
    /// How to start it, instead of the runtime's own program and arguments up to the address.
    pub command: Option<Vec<String>>,
    /// Arguments appended to the command.
    pub args: Vec<String>,
    /// Environment variables set for the process.
    pub env: BTreeMap<String, String>,
    /// How long `up` waits for it to be ready.
    pub startup_timeout: Duration,
    /// How long `down` waits for it to end before it is killed.
    pub stop_timeout: Duration,
    /// Whether `fusion up` starts it.
    pub auto_start: bool,
    /// The size of its log, in bytes, above which it is rotated.
    pub log_max_size: u64,
    /// How many rotated logs are kept.
    pub log_keep: u64,
}

/// `[NAME_run]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// The model that is asked.
    pub model: String,
    /// The system message; empty sends none.
    pub system_prompt: String,
    /// The sampling temperature, 0 to 2.
    pub temperature: f64,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// The most tokens of an answer.
    pub max_tokens: Option<u64>,
    /// Nucleus sampling, 0 to 1.
    pub top_p: Option<f64>,
    /// The sampling seed.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// How long a server may be silent before it is given up.
    pub timeout: Duration,
    /// Whether `run` starts the server if it is not running.
    pub start_on_demand: bool,
    /// What happens to the model's reasoning.
    pub reasoning: Reasoning,
    /// Further fields of the request body.
    pub extra_body: serde_json::Map<String, serde_json::Value>,
}

/// `[prompts.NAME]`: a prompt worth keeping; what is set wins over `[NAME_run]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// The system message.
    pub system: Option<String>,
    /// The model that is asked.
    pub model: Option<String>,
    /// The sampling temperature.
    pub temperature: Option<f64>,
    /// The user message, in which `{input}` stands for the words of the command line and standard input.
    pub template: Option<String>,
}

/// What happens to the model's reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reasoning {
    /// It goes to standard error.
    Show,
    /// It is dropped.
    Hide,
}

impl Reasoning {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Show, Self::Hide];

    /// The word for it in the file and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Show => "show",
            Self::Hide => "hide",
        }
    }
}

impl ServiceSettings {
    /// What holds for `runtime` when the file says nothing.
    pub fn default_for(runtime: &dyn Runtime) -> Self {
        let defaults = runtime.defaults();
        Self {
            server: ServerSettings {
                address: Address { host: "127.0.0.1".to_owned(), port: defaults.port },
                model: defaults.server_model.map(str::to_owned),
                command: None,
                args: Vec::new(),
                env: BTreeMap::new(),
                startup_timeout: Duration::from_secs(300),
                stop_timeout: Duration::from_secs(15),
                auto_start: false,
                log_max_size: 50_000_000,
                log_keep: 3,
            },
            run: RunSettings {
                model: defaults.run_model.to_owned(),
                system_prompt: "You are a helpful assistant.".to_owned(),
                temperature: defaults.temperature,
                stream: false,
                max_tokens: None,
                top_p: None,
                seed: None,
                stop: Vec::new(),
                // A large model takes minutes to load, and without streaming the first byte comes when the whole answer
                // is there.
                timeout: Duration::from_secs(600),
                start_on_demand: true,
                reasoning: Reasoning::Hide,
                extra_body: serde_json::Map::new(),
            },
        }
    }
}

impl Config {
    /// What holds when the file says nothing.
    pub fn default_for(table: Table) -> Self {
        let of = |runtime: &&'static dyn Runtime| {
            (Arc::from(runtime.name()), Arc::new(ServiceSettings::default_for(*runtime)))
        };
        let services = table.iter().map(of).collect();
        Self { services, prompts: BTreeMap::new(), aliases: BTreeMap::new() }
    }

    /// Reads the file, which is made with its defaults on first use.
    pub fn load(path: &Path, table: Table) -> Result<Self, ConfigError> {
        let (config, error) = Self::load_sound(path, table);
        error.map_or(Ok(config), Err)
    }

    /// Like [`Config::load`], and when that fails the reason with the sound part of the file, defaults for the rest:
    /// for commands that must work whatever the file says.
    pub fn load_sound(path: &Path, table: Table) -> (Self, Option<ConfigError>) {
        let text = match file::read_or_create(path, table) {
            Ok(text) => text,
            Err(error) => return (Self::default_for(table), Some(error)),
        };
        let (config, problems) = Self::parse(&text, table);
        let error = (!problems.is_empty()).then(|| ConfigError::Invalid { path: path.to_owned(), problems });
        (config, error)
    }

    /// The bytes of the file, of any size, whatever they say. Where it cannot be made, what it would be, and why.
    pub fn source(path: &Path, table: Table) -> Result<(Vec<u8>, Option<ConfigError>), ConfigError> {
        match file::source(path, table, u64::MAX) {
            Err(error @ ConfigError::Create { .. }) => Ok((template::fresh(table).into_bytes(), Some(error))),
            other => other.map(|bytes| (bytes, None)),
        }
    }

    /// What the file says, without defaults, as JSON.
    pub fn file_json(path: &Path, table: Table) -> Result<serde_json::Value, ConfigError> {
        let text = file::read_or_create(path, table)?;
        parse::into_json(&text, table)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// The bytes as text, if they are a valid configuration; `path` is for the error only.
    pub fn validate(path: &Path, bytes: Vec<u8>, table: Table) -> Result<String, ConfigError> {
        let text = file::into_text(path, bytes)?;
        let problems = parse::parse(&text, table).1;
        if problems.is_empty() {
            Ok(text)
        } else {
            Err(ConfigError::Invalid { path: path.to_owned(), problems })
        }
    }

    /// What the text of a file says, and what is wrong with it: keys with problems keep their defaults.
    pub fn parse(text: &str, table: Table) -> (Self, Vec<Problem>) {
        parse::parse(text, table)
    }

    /// The value that holds for a key, as TOML, a string without quotes; `None` when it is not set and has no default.
    pub fn value(&self, table: Table, key: &KeyPath) -> Result<Option<String>, EditError> {
        key.value(table)?;
        Ok(template::value_at(self, table, key).map(|value| match value {
            toml_edit::Value::String(text) => text.into_value(),
            other => other.to_string(),
        }))
    }

    /// Every key with the value that holds, as TOML.
    pub fn effective_toml(&self, table: Table) -> String {
        template::effective_toml(self, table)
    }

    /// Every key with the value that holds, as JSON; null where a key is not set and has no default.
    pub fn effective_json(&self, table: Table) -> serde_json::Value {
        template::effective_json(self, table)
    }

    /// Returns the settings of the service called `name`; `None` when there is no such service.
    pub fn service(&self, name: &str) -> Option<Arc<ServiceSettings>> {
        self.services.get(name).cloned()
    }

    /// Returns the settings of the built-in service of `runtime`.
    ///
    /// # Panics
    ///
    /// Never for a runtime of the table with which the file was read.
    pub fn runtime(&self, runtime: &dyn Runtime) -> &ServiceSettings {
        &self.services[runtime.name()]
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not parse or validate.
    #[error("{} problems in {path}", problems.len())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Never empty, in the order of the file.
        problems: Vec<Problem>,
    },
    /// There is a directory or a device in the file's place.
    #[error("{path} is not a file")]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// The file is too large to be a configuration.
    #[error("{path} has {size} bytes; a configuration has at most {limit}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The file is a symbolic link to nothing.
    #[error("{path} is a link to {target}, which does not exist")]
    Dangling {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no file, and none can be made.
    #[error("cannot make {path}")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: FileError,
    },
    /// Other commands cannot be kept from changing the file.
    #[error("cannot lock {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: FileError,
    },
    /// Another command has been changing the file all the time.
    #[error("another fusion command is changing {path}")]
    Locked {
        /// The file.
        path: PathBuf,
    },
}
