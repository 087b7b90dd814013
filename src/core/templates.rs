//! Templates: blueprints that define how a service is started, probed and explained.
//!
//! Every runtime is a built-in one.

use std::time::Duration;

use crate::core::address::Address;
use crate::core::runtimes::{Launch, Model, ModelPlaces, Probe, Runtime};

/// A blueprint from which services are made.
#[derive(Clone)]
pub enum Template {
    /// A built-in template: a runtime, which also speaks the OpenAI API and has models.
    Runtime(&'static dyn Runtime),
}

impl Template {
    /// Returns the runtime whose API the services of this template speak, if there is one.
    pub fn runtime(&self) -> Option<&'static dyn Runtime> {
        match self {
            Self::Runtime(runtime) => Some(*runtime),
        }
    }

    /// Returns its name in the configuration and in JSON.
    pub fn name(&self) -> &str {
        match self {
            Self::Runtime(runtime) => runtime.name(),
        }
    }

    /// Returns its name in sentences.
    pub fn display_name(&self) -> &str {
        match self {
            Self::Runtime(runtime) => runtime.display_name(),
        }
    }

    /// Returns the arguments and environment that start a server on `address`.
    pub fn launch(&self, address: &Address, model: Option<&Model>, places: &ModelPlaces) -> Launch {
        match self {
            Self::Runtime(runtime) => runtime.launch(address, model, places),
        }
    }

    /// Returns the variables of the server that name a file or directory and in which the server does not expand `~`.
    pub fn path_variables(&self) -> &'static [&'static str] {
        match self {
            Self::Runtime(runtime) => runtime.path_variables(),
        }
    }

    /// Returns the cheap request that recognises a running server.
    pub fn status_probe(&self) -> Probe {
        match self {
            Self::Runtime(runtime) => runtime.status_probe(),
        }
    }

    /// Returns requests for further facts about a recognised server.
    pub fn detail_probes(&self) -> &'static [Probe] {
        match self {
            Self::Runtime(runtime) => runtime.detail_probes(),
        }
    }

    /// Returns whether a server counts as ready only after it has generated a token.
    pub fn ready_needs_generation(&self) -> bool {
        match self {
            Self::Runtime(runtime) => runtime.ready_needs_generation(),
        }
    }

    /// Returns how long after SIGTERM a server gets SIGINT, if SIGTERM may not end it.
    pub fn interrupt_after(&self) -> Option<Duration> {
        match self {
            Self::Runtime(runtime) => runtime.interrupt_after(),
        }
    }

    /// Returns why the process died, from the end of its log; `None` if the log does not show it.
    pub fn explain_exit(&self, log_tail: &str) -> Option<String> {
        match self {
            Self::Runtime(runtime) => runtime.explain_exit(log_tail),
        }
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Template").field(&self.name()).finish()
    }
}
