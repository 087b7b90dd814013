//! The configuration as plain data, and its defaults.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::command_line::{self, ShellLine};
use crate::core::models::catalogue::KeepAlive;
use crate::core::runtimes::{Runtime, Table};
use crate::core::sorted_map::SortedMap;

/// The whole configuration, with defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// The built-in services by name. Shared, because a service owns its settings.
    pub(super) services: SortedMap<Arc<str>, Arc<ServiceSettings>>,
    /// `[templates.NAME]`, in the order of the file.
    pub templates: Vec<Arc<TemplateSettings>>,
    /// `[instances.NAME]` by name, in the order of the file.
    pub instances: Vec<(Arc<str>, Arc<ServiceSettings>)>,
    /// `[gateway]`.
    pub gateway: GatewaySettings,
    /// The service of a prompt that names neither a service nor a model.
    pub default_service: Option<String>,
    /// `[models.NAME]`.
    pub models: SortedMap<String, ModelSettings>,
    /// `[prompts.NAME]`.
    pub prompts: SortedMap<String, SavedPrompt>,
    /// `[aliases]`: other names of models.
    pub aliases: SortedMap<String, Alias>,
}

/// `[NAME_server]` and `[NAME_run]` of a built-in service, `[instances.NAME]` and `[instances.NAME.run]` of an
/// instance.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSettings {
    pub server: ServerSettings,
    pub run: RunSettings,
    pub instance: InstanceSettings,
}

/// The keys that only `[instances.NAME]` has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceSettings {
    /// The name of its template; of a built-in service, that of its runtime.
    pub template: String,
    /// May have placeholders.
    pub working_dir: Option<String>,
    pub tags: Vec<String>,
    pub version: Option<String>,
    pub git_branch: Option<String>,
}

/// `[NAME_server]`: how the server is started, reached and stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// The address on which it listens.
    pub host: String,
    /// `None`: fusion chooses one at the start.
    pub port: Option<u16>,
    /// The model it is started with, for runtimes whose server serves one model.
    pub model: Option<String>,
    /// A directory of models, for runtimes that serve one.
    pub models_dir: Option<String>,
    /// Replaces the runtime's own program and its arguments up to the address.
    pub command: Option<Vec<String>>,
    /// Appended to the command.
    pub args: Vec<String>,
    /// Set for the process.
    pub env: SortedMap<String, String>,
    pub startup_timeout: Duration,
    pub stop_timeout: Duration,
    /// Whether `fusion up` without names starts it.
    pub auto_start: bool,
    /// The size in bytes above which its log is rotated.
    pub log_max_size: u64,
    /// How many rotated logs are kept.
    pub log_keep: u64,
    /// When the gateway stops it; `None`: the value of `[gateway]`.
    pub idle_timeout: Option<IdleStop>,
    /// The group of which at most one service runs at a time.
    pub exclusive: Option<String>,
    /// Whether a request to the gateway starts it.
    pub on_demand: bool,
    pub restart: RestartPolicy,
    pub keep_awake: KeepAwake,
}

/// When the gateway stops a service that no request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleStop {
    Never,
    /// This long after the end of the last request.
    After(Duration),
}

/// Whether the gateway restarts a service that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    No,
    OnFailure,
}

/// When the machine is kept from sleeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAwake {
    Never,
    /// While the server works on a request.
    Requests,
}

/// `[NAME_run]`: how the service is prompted.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// Empty: the loaded model, or the only model on this machine.
    pub model: String,
    /// The system message; an empty one is not sent.
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

/// `[prompts.NAME]`, whose values win over `[NAME_run]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SavedPrompt {
    /// The system message.
    pub system: Option<String>,
    pub model: Option<String>,
    pub temperature: Option<f64>,
    /// The user message, in which `{input}` stands for the words of the command line and standard input.
    pub template: Option<String>,
}

/// `[aliases]`: the models of an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// `NAME = "model"`: the same model for every runtime.
    Everywhere(String),
    /// `NAME = { RUNTIME = "model" }`: by the runtime's name. A runtime that is missing does not know the alias.
    ForRuntimes(SortedMap<String, String>),
}

impl Alias {
    /// Returns the model of the alias on this runtime.
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

/// A value of a small set, each with a word in the file and on the command line.
pub trait Keyword: Copy + 'static {
    const ALL: &'static [Self];

    /// Returns the word for it.
    fn name(self) -> &'static str;

    /// Returns the value for which the word stands.
    fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.name() == word)
    }
}

impl Keyword for Reasoning {
    const ALL: &'static [Self] = &[Self::Show, Self::Hide];

    fn name(self) -> &'static str {
        match self {
            Self::Show => "show",
            Self::Hide => "hide",
        }
    }
}

impl Keyword for RestartPolicy {
    const ALL: &'static [Self] = &[Self::No, Self::OnFailure];

    fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure => "on-failure",
        }
    }
}

impl Keyword for KeepAwake {
    const ALL: &'static [Self] = &[Self::Never, Self::Requests];

    fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Requests => "requests",
        }
    }
}

/// `[models.NAME]`: settings of one model, whichever service has it. They win over `[NAME_run]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelSettings {
    pub temperature: Option<f64>,
    pub system_prompt: Option<String>,
    /// How long its server keeps it in memory.
    pub keep_alive: Option<KeepAlive>,
    /// The context length in tokens with which its server loads it.
    pub context: Option<u64>,
}

/// `[gateway]`.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewaySettings {
    pub host: String,
    pub port: u16,
    /// When a service that the gateway started is stopped.
    pub idle_timeout: IdleStop,
    /// The memory that loaded model servers may hold together.
    pub max_memory: MemoryLimit,
    /// Empty: no token is needed.
    pub token: String,
    /// The web pages that may use the API.
    pub cors_origins: Vec<String>,
    /// Further names under which the gateway may be called.
    pub hosts: Vec<String>,
}

/// A limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// In percent of the memory that models may use on this machine.
    Share(u8),
    Bytes(u64),
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            host: DEFAULT_HOST.to_owned(),
            port: 8767,
            idle_timeout: IdleStop::After(Duration::from_secs(600)),
            max_memory: MemoryLimit::Share(75),
            token: String::new(),
            cors_origins: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

impl GatewaySettings {
    pub fn address(&self) -> Address {
        Address { host: self.host.clone(), port: self.port }
    }
}

/// `[templates.NAME]`: how servers of any program are started, probed and stopped. Its strings may have placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSettings {
    pub name: Arc<str>,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub category: Option<String>,
    /// The command as one line. Either this or `command` is set.
    pub start_command: Option<String>,
    pub command: Option<Vec<String>>,
    /// Run before the signals that stop a server; empty: none.
    pub stop_command: String,
    /// The URL of the health request; `None`: a server is healthy if its port accepts connections.
    pub health_endpoint: Option<String>,
    pub health_timeout: Duration,
    pub host: String,
    pub default_port: Option<u16>,
    pub port_range: Option<RangeInclusive<u16>>,
    pub supports_multiple: bool,
    pub args: Vec<String>,
    pub env: SortedMap<String, String>,
}

impl TemplateSettings {
    /// Returns the command that starts a server, with its placeholders.
    pub fn command_line(&self) -> ShellLine {
        match (&self.start_command, &self.command) {
            // The configuration holds only lines that can be split.
            (Some(line), _) => command_line::split(line).unwrap_or_default(),
            (None, command) => ShellLine { words: command.clone().unwrap_or_default(), env: Vec::new() },
        }
    }

    /// Returns a template with its defaults, which has no command yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            display_name: None,
            description: None,
            category: None,
            start_command: None,
            command: None,
            stop_command: String::new(),
            health_endpoint: None,
            health_timeout: Duration::from_secs(5),
            host: DEFAULT_HOST.to_owned(),
            default_port: None,
            port_range: None,
            supports_multiple: true,
            args: Vec::new(),
            env: SortedMap::new(),
        }
    }
}

/// Where servers listen unless the file says otherwise.
pub(super) const DEFAULT_HOST: &str = "127.0.0.1";

impl ServerSettings {
    /// Returns the configured address; `None` if fusion chooses the port at the start.
    pub fn address(&self) -> Option<Address> {
        Some(Address { host: self.host.clone(), port: self.port? })
    }
}

impl ServiceSettings {
    /// Returns the defaults of the built-in service of `runtime`.
    pub fn default_for(runtime: &dyn Runtime) -> Self {
        let defaults = runtime.defaults();
        let mut settings = Self::of_any();
        settings.server.port = Some(defaults.port);
        settings.server.model = defaults.server_model.map(str::to_owned);
        defaults.run_model.clone_into(&mut settings.run.model);
        settings.run.temperature = defaults.temperature;
        runtime.name().clone_into(&mut settings.instance.template);
        settings
    }

    /// Returns the defaults of an instance of `runtime`.
    pub fn default_for_instance(runtime: &dyn Runtime) -> Self {
        let mut settings = Self::default_for(runtime);
        settings.server.port = None;
        settings
    }

    /// Returns the defaults of an instance of a template of the file. A server of `runtime` is started as the
    /// template says, so it has no model of its own.
    pub fn default_for_template(template: &TemplateSettings, runtime: Option<&dyn Runtime>) -> Self {
        let mut settings = runtime.map_or_else(Self::of_any, Self::default_for_instance);
        settings.server.host.clone_from(&template.host);
        settings.server.model = None;
        settings.instance.template = template.name.to_string();
        settings
    }

    /// Returns the defaults of every service.
    fn of_any() -> Self {
        Self {
            server: ServerSettings {
                host: DEFAULT_HOST.to_owned(),
                port: None,
                model: None,
                models_dir: None,
                command: None,
                args: Vec::new(),
                env: SortedMap::new(),
                startup_timeout: Duration::from_secs(300),
                stop_timeout: Duration::from_secs(15),
                auto_start: false,
                log_max_size: 50_000_000,
                log_keep: 3,
                idle_timeout: None,
                exclusive: None,
                on_demand: true,
                restart: RestartPolicy::No,
                keep_awake: KeepAwake::Never,
            },
            run: RunSettings {
                model: String::new(),
                system_prompt: "You are a helpful assistant.".to_owned(),
                temperature: 0.8,
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
            instance: InstanceSettings::default(),
        }
    }
}

impl Config {
    /// Returns the defaults of the whole configuration.
    pub fn default_for(table: Table) -> Self {
        let of = |runtime: &&'static dyn Runtime| {
            (Arc::from(runtime.name()), Arc::new(ServiceSettings::default_for(*runtime)))
        };
        let services = table.iter().map(of).collect();
        Self {
            services,
            templates: Vec::new(),
            instances: Vec::new(),
            gateway: GatewaySettings::default(),
            default_service: None,
            models: SortedMap::new(),
            prompts: SortedMap::new(),
            aliases: SortedMap::new(),
        }
    }

    /// Returns the settings of the service called `name`; `None` if there is no such service.
    pub fn service(&self, name: &str) -> Option<Arc<ServiceSettings>> {
        let instance = || self.instances.iter().find(|(known, _)| **known == *name);
        self.services.get(name).or_else(|| instance().map(|(_, settings)| settings)).cloned()
    }

    /// Returns the template of the file called `name`.
    pub fn template(&self, name: &str) -> Option<&Arc<TemplateSettings>> {
        self.templates.iter().find(|template| *template.name == *name)
    }
}
