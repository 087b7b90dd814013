//! A managed service, and the arguments and results of the use cases: plain data.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::kept_port;
use crate::core::address::Address;
use crate::core::cancel::CancelToken;
use crate::core::config::{ServerSettings, ServiceSettings};
use crate::core::files::{self, FileError};
use crate::core::models::{ModelPlaces, quoted};
use crate::core::paths::{Paths, ServicePaths};
use crate::core::process::Pid;
use crate::core::runtimes::Runtime;
use crate::core::templates::Template;
use crate::env::Environment;

/// How long the gateway may hold a service that it stops, beyond the time of the stop.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(15);

/// Why there is a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// fusion has it whatever the configuration says.
    BuiltIn,
    /// The configuration has a table of it.
    Instance,
    /// Only its record is left of it.
    Removed,
}

/// One managed server: an address, a process, a log, a state.
#[derive(Debug, Clone)]
pub struct ManagedService {
    /// Its name in the configuration, on the command line and in its record.
    pub name: Arc<str>,
    pub origin: Origin,
    pub template: Template,
    /// Its part of the configuration.
    pub settings: Arc<ServiceSettings>,
    pub files: ServicePaths,
}

impl ManagedService {
    /// Returns the runtime whose API the service speaks, if there is one.
    pub fn runtime(&self) -> Option<&'static dyn Runtime> {
        self.template.runtime()
    }

    /// Returns whether it is there whatever the configuration says.
    pub fn is_built_in(&self) -> bool {
        self.origin == Origin::BuiltIn
    }

    /// Returns whether texts of its configuration may hold placeholders. Those of a built-in runtime are passed on as
    /// they are.
    pub fn has_placeholders(&self) -> bool {
        !self.is_built_in() || matches!(self.template, Template::Program(_))
    }

    /// Returns what to do about an error of the server that says `said`, where its runtime knows.
    pub fn advice(&self, said: &str, model: &str) -> Option<String> {
        let said = said.to_lowercase();
        let known = self.runtime()?.advice().iter().find(|advice| said.contains(advice.about))?;
        Some(known.of(&self.name, &self.server_table(), model))
    }

    /// Returns the command that downloads a model for it.
    pub fn pull_command(&self, model: &str) -> String {
        format!("fusion {} pull {}", self.name, quoted(model))
    }

    /// Returns the table of its server in the configuration, dotted.
    pub fn server_table(&self) -> String {
        match self.origin {
            // The gateway.
            Origin::BuiltIn if self.runtime().is_none() => self.name.to_string(),
            Origin::BuiltIn => format!("{}_server", self.name),
            Origin::Instance | Origin::Removed => format!("instances.{}", self.name),
        }
    }

    /// Returns the table of its prompts in the configuration, dotted.
    pub fn run_table(&self) -> String {
        match self.origin {
            Origin::BuiltIn => format!("{}_run", self.name),
            Origin::Instance | Origin::Removed => format!("instances.{}.run", self.name),
        }
    }

    /// Returns where its models may lie, for names that the user gives. What the configuration says of the server's
    /// environment counts more than the caller's.
    pub fn places(&self, environment: &Environment, paths: &Paths) -> ModelPlaces {
        let server = self.server();
        let mut places = ModelPlaces::discover(environment, paths, &server.env);
        let variable = self.runtime().and_then(Runtime::cache_variable);
        if let Some(cache) = variable.and_then(|name| server.env.get(name)).filter(|cache| !cache.is_empty())
        {
            places.hub_cache = places.of_configuration().path(cache);
        }
        places.models_dir =
            server.models_dir.as_deref().and_then(|directory| places.of_configuration().path(directory));
        places
    }

    /// Returns where it listens, or would: at its configured port, else at the one that was chosen for its last start.
    /// `None` if it has neither.
    pub fn address(&self) -> Option<Address> {
        let server = self.server();
        server.address().or_else(|| {
            let port = kept_port::read(&self.files)?;
            Some(Address { host: server.host.clone(), port })
        })
    }

    /// Keeps the gateway from stopping the service while the result lives. Waits while the gateway stops it. `None`
    /// if the service was never started here, or its directory cannot be written.
    pub fn use_it(&self, cancel: &CancelToken) -> Option<files::Lock> {
        if !self.files.directory.is_dir() {
            return None;
        }
        let timeout = self.server().stop_timeout + CLAIM_TIMEOUT;
        files::Lock::acquire_shared(&self.files.in_use, timeout, &|| cancel.is_cancelled()).ok()
    }

    /// Claims the service for a stop that no command expects; `None` while a command uses it.
    pub fn try_to_claim(&self) -> Result<Option<files::Lock>, FileError> {
        match files::Lock::acquire(&self.files.in_use, Duration::ZERO, &|| false) {
            Ok(lock) => Ok(Some(lock)),
            Err(files::LockError::File(error)) => Err(error),
            Err(files::LockError::Held { .. } | files::LockError::Cancelled { .. }) => Ok(None),
        }
    }

    /// Returns the names of the models that its server would find on the disk if it were started; `None` if only the
    /// server knows.
    pub fn stored_models(&self, environment: &Environment) -> Option<Vec<String>> {
        // The command of another template may set the server's environment.
        let Template::Runtime(runtime) = self.template else { return None };
        let variable = |name: &str| match self.server().env.get(name) {
            Some(configured) => Some(configured.into()),
            None => environment.variable(name).cloned(),
        };
        runtime.stored_models(&variable, environment.home.as_deref())
    }

    /// Returns the settings of its server.
    pub fn server(&self) -> &ServerSettings {
        &self.settings.server
    }
}

/// Another service that fusion runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherService {
    pub name: Arc<str>,
    pub pid: Pid,
}

/// What started a running service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StartedBy {
    /// fusion, in this configuration directory.
    Fusion,
    /// Another program.
    Other,
}

/// The place where a service responds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The recorded address, which may differ from the configured one.
    pub address: Address,
    /// The pid of its process, if the system reports it.
    pub pid: Option<Pid>,
    /// The model that fusion last made the server load, exactly as requests must name it. `None` for servers that are
    /// started without a model, and for those that fusion did not start.
    pub model: Option<String>,
    pub started_by: StartedBy,
}

/// Options of a start.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// The startup timeout; by default that of the configuration.
    pub timeout: Option<Duration>,
    /// Whether to return as soon as the process is started.
    pub no_wait: bool,
    /// The model to start with instead of the configured one, for runtimes whose server has one model. The name is
    /// resolved by [`aliases::resolve`](crate::core::aliases::resolve). A service that is already running ignores it.
    pub model: Option<String>,
    /// Whether the gateway starts it for a request, so it may also stop it.
    pub on_demand: bool,
    /// How often it was started again because it had ended by itself.
    pub restarts: u64,
}

/// The result of `up`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    pub endpoint: Endpoint,
    pub kind: UpKind,
}

/// How `up` reached its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpKind {
    /// fusion started it, and it is ready.
    Started,
    /// fusion started it, and did not wait.
    Launched,
    /// It was already running, and is ready.
    AlreadyUp,
    /// fusion did not start it, and it is ready.
    External,
}

/// Options of a stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct DownOptions {
    /// Whether to kill at once.
    pub force: bool,
    /// The time until a service that does not end is killed; by default the `stop_timeout` of the configuration.
    pub timeout: Option<Duration>,
}

/// The result of `down`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// The pid of the stopped service; `None` if it was not running.
    pub pid: Option<Pid>,
    /// Whether a process was killed.
    pub killed: bool,
    pub took: Duration,
}

/// The result of a successful `health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub endpoint: Endpoint,
    /// The model that generated; `None` of a program that is no model server.
    pub model: Option<String>,
    /// Time from the request to the end of the response.
    pub latency: Duration,
}
