//! Templates: blueprints that say how a service is started, probed and explained. Every runtime is a built-in one.

use std::time::Duration;

use crate::core::address::Address;
use crate::core::runtimes::{Launch, Model, Probe, Runtime};

/// A blueprint from which services are made.
#[derive(Clone)]
pub enum Template {
    /// A built-in one: a runtime, which also speaks the OpenAI API and has models.
    Runtime(&'static dyn Runtime),
}

impl Template {
    /// Returns the runtime whose API the services of this template speak, if they speak one.
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

    /// Returns the arguments and environment with which a server that listens on `address` is started.
    pub fn launch(&self, address: &Address, model: Option<&Model>) -> Launch {
        match self {
            Self::Runtime(runtime) => runtime.launch(address, model),
        }
    }

    /// Returns the cheap request by which a running server is recognised.
    pub fn status_probe(&self) -> Probe {
        match self {
            Self::Runtime(runtime) => runtime.status_probe(),
        }
    }

    /// Returns requests that tell more about a server that the status probe has recognised.
    pub fn detail_probes(&self) -> &'static [Probe] {
        match self {
            Self::Runtime(runtime) => runtime.detail_probes(),
        }
    }

    /// Returns whether a server is ready only when it has generated a token.
    pub fn ready_needs_generation(&self) -> bool {
        match self {
            Self::Runtime(runtime) => runtime.ready_needs_generation(),
        }
    }

    /// Returns how long after SIGTERM a server gets SIGINT, if it may not end by the first.
    pub fn interrupt_after(&self) -> Option<Duration> {
        match self {
            Self::Runtime(runtime) => runtime.interrupt_after(),
        }
    }

    /// Returns why the process died, read from the end of its log; `None` when the log has no known words.
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
