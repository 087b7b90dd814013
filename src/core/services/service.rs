//! A managed server, and what the use cases take and give: plain data.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::core::address::Address;
use crate::core::config::{ServerSettings, ServiceSettings};
use crate::core::paths::RuntimePaths;
use crate::core::process::Pid;
use crate::core::runtimes::Runtime;
use crate::core::templates::Template;

/// One managed server: an address, a process, a log, a state.
#[derive(Debug, Clone)]
pub struct ManagedService {
    /// Its name in the configuration, on the command line and in every record.
    pub name: Arc<str>,
    /// How it is started, probed and stopped.
    pub template: Template,
    /// What the configuration says of it.
    pub settings: Arc<ServiceSettings>,
    /// Where its files lie.
    pub files: RuntimePaths,
}

impl ManagedService {
    /// Returns the runtime whose API it speaks, if it speaks one.
    pub fn runtime(&self) -> Option<&'static dyn Runtime> {
        self.template.runtime()
    }

    /// Returns how its server is started and reached.
    pub fn server(&self) -> &ServerSettings {
        &self.settings.server
    }
}

/// Who started what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StartedBy {
    /// fusion, in this configuration directory.
    Fusion,
    /// Something else.
    Other,
}

/// Where a service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address: the recorded one, whatever the configuration says now.
    pub address: Address,
    /// Its process, where the system tells.
    pub pid: Option<Pid>,
    /// The model that fusion last had the server load, exactly as requests must name it; `None` for servers that are
    /// started without one, and for those that fusion did not start.
    pub model: Option<String>,
    /// Who started it.
    pub started_by: StartedBy,
}

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// How long it may take to be ready; by default `startup_timeout` of the configuration.
    pub timeout: Option<Duration>,
    /// Return as soon as the process is started.
    pub no_wait: bool,
    /// The model to start with instead of the configured one, for runtimes whose server serves one model: its name as
    /// [`aliases::resolve`](crate::core::aliases::resolve) gives it. Means nothing for a service that runs already.
    pub model: Option<String>,
}

/// What `up` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Where the service answers.
    pub endpoint: Endpoint,
    /// What it took.
    pub kind: UpKind,
}

/// What it took to have a service up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpKind {
    /// It was started, and is ready.
    Started,
    /// It was started, and was not waited for.
    Launched,
    /// It ran already, and is ready.
    AlreadyUp,
    /// fusion did not start it, and it is ready.
    External,
}

/// How to stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct DownOptions {
    /// Kill at once.
    pub force: bool,
    /// How long it may take to end before it is killed; by default `stop_timeout` of the configuration.
    pub timeout: Option<Duration>,
}

/// What `down` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// The process that was stopped; `None` when there was nothing to stop.
    pub pid: Option<Pid>,
    /// Whether something had to be killed.
    pub killed: bool,
    /// How long it took.
    pub took: Duration,
}

/// A generation that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Where.
    pub endpoint: Endpoint,
    /// The model that generated.
    pub model: String,
    /// From the request to the whole response.
    pub latency: Duration,
}
