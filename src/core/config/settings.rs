//! What the configuration says, as plain data, and what holds where it says nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::runtimes::{Runtime, Table};

/// What the whole file says, defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// By the service's name. Shared, because a service owns its settings.
    pub(super) services: BTreeMap<Arc<str>, Arc<ServiceSettings>>,
    /// `[prompts.NAME]`.
    pub prompts: BTreeMap<String, SavedPrompt>,
    /// `[aliases]`: other names of models.
    pub aliases: BTreeMap<String, Alias>,
}

/// `[NAME_server]` and `[NAME_run]` of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSettings {
    pub server: ServerSettings,
    pub run: RunSettings,
}

/// `[NAME_server]`: how the server is started, reached and stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// Where it listens.
    pub address: Address,
    /// The model it is started with, for runtimes whose server serves one model.
    pub model: Option<String>,
    /// A directory of models, for runtimes that serve one.
    pub models_dir: Option<String>,
    /// Replaces the runtime's own program and its arguments up to the address.
    pub command: Option<Vec<String>>,
    /// Appended to the command.
    pub args: Vec<String>,
    /// Set for the process.
    pub env: BTreeMap<String, String>,
    pub startup_timeout: Duration,
    pub stop_timeout: Duration,
    /// Whether `fusion up` without names starts it.
    pub auto_start: bool,
    /// The size in bytes above which its log is rotated.
    pub log_max_size: u64,
    /// How many rotated logs are kept.
    pub log_keep: u64,
}

/// `[NAME_run]`: how the service is prompted.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// Empty: the one that is loaded, or the only one there is.
    pub model: String,
    /// Empty sends none.
    pub system_prompt: String,
    /// 0 to 2.
    pub temperature: f64,
    /// Whether the answer is printed while it is generated.
    pub stream: bool,
    pub max_tokens: Option<u64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// The idle timeout.
    pub timeout: Duration,
    /// Whether `run` starts the server if it is not running.
    pub start_on_demand: bool,
    pub reasoning: Reasoning,
    /// Further fields of the request body; none of [`super::RESERVED_FIELDS`].
    pub extra_body: serde_json::Map<String, serde_json::Value>,
}

/// `[prompts.NAME]`: what is set wins over `[NAME_run]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SavedPrompt {
    /// The system message.
    pub system: Option<String>,
    pub model: Option<String>,
    pub temperature: Option<f64>,
    /// The user message, in which `{input}` stands for the words of the command line and standard input.
    pub template: Option<String>,
}

/// `[aliases]`: what an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// `NAME = "model"`: the same model for every runtime.
    Everywhere(String),
    /// `NAME = { RUNTIME = "model" }`: by the runtime's name. A runtime that is missing does not know the alias.
    ForRuntimes(BTreeMap<String, String>),
}

impl Alias {
    /// Returns the model that the alias stands for when this runtime is asked.
    pub fn model(&self, runtime: &str) -> Option<&str> {
        match self {
            Self::Everywhere(model) => Some(model),
            Self::ForRuntimes(models) => models.get(runtime).map(String::as_str),
        }
    }
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
    pub const ALL: [Self; 2] = [Self::Show, Self::Hide];

    /// Returns the word for it in the file and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Show => "show",
            Self::Hide => "hide",
        }
    }
}

impl ServiceSettings {
    /// Returns what holds for the built-in service of `runtime` when the file says nothing.
    pub fn default_for(runtime: &dyn Runtime) -> Self {
        let defaults = runtime.defaults();
        Self {
            server: ServerSettings {
                address: Address { host: "127.0.0.1".to_owned(), port: defaults.port },
                model: defaults.server_model.map(str::to_owned),
                models_dir: None,
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
                // A large model takes minutes to load, and sends nothing meanwhile.
                timeout: Duration::from_secs(600),
                start_on_demand: true,
                reasoning: Reasoning::Hide,
                extra_body: serde_json::Map::new(),
            },
        }
    }
}

impl Config {
    /// Returns what holds when the file says nothing.
    pub fn default_for(table: Table) -> Self {
        let of = |runtime: &&'static dyn Runtime| {
            (Arc::from(runtime.name()), Arc::new(ServiceSettings::default_for(*runtime)))
        };
        let services = table.iter().map(of).collect();
        Self { services, prompts: BTreeMap::new(), aliases: BTreeMap::new() }
    }

    /// Returns the settings of the service called `name`; `None` when there is no such service.
    pub fn service(&self, name: &str) -> Option<Arc<ServiceSettings>> {
        self.services.get(name).cloned()
    }
}
