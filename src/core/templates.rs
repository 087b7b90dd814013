//! Templates: blueprints that define how a service is started, probed and explained.
//!
//! Every runtime is a built-in one; a program template is one of the file, or built-in by its settings.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::command_line::{self, Placeholder};
use crate::core::config::TemplateSettings;
use crate::core::runtimes::{Launch, Model, ModelPlaces, Probe, Runtime};

/// How many ports the built-in template of a runtime offers, from the default port of the runtime.
const PORTS_OF_RUNTIME: u16 = 100;

/// A blueprint from which services are made.
#[derive(Clone)]
pub enum Template {
    /// A built-in template: a runtime, which also speaks the OpenAI API and has models.
    Runtime(&'static dyn Runtime),
    /// Any program.
    Program(Arc<ProgramTemplate>),
}

/// How one service of a program is started and probed.
#[derive(Clone)]
pub struct ProgramTemplate {
    pub settings: Arc<TemplateSettings>,
    /// The runtime whose API the program speaks, and whose start the template replaces.
    runtime: Option<&'static dyn Runtime>,
    /// `health_endpoint` of the settings, in which only the address stands for something else.
    health_endpoint: Option<String>,
}

/// How a server is asked for its state.
pub enum StatusCheck {
    /// A request of its runtime, which recognises it.
    Runtime(Probe),
    /// A request whose status 2xx means ready.
    Endpoint { address: Address, path: String, timeout: Duration },
    /// A connection to its port, which any program may accept.
    Port,
}

impl Template {
    /// Returns the template of the service called `name`, which is started with `model`.
    pub fn program(
        settings: Arc<TemplateSettings>,
        runtime: Option<&'static dyn Runtime>,
        name: &str,
        model: Option<&str>,
    ) -> Self {
        let value = |placeholder: Placeholder| {
            Some(match placeholder {
                Placeholder::Name => name.to_owned(),
                Placeholder::Model => model.unwrap_or_default().to_owned(),
                other => other.text().to_owned(),
            })
        };
        let expanded = |text: &String| command_line::expand(text, &value).unwrap_or_else(|_| text.clone());
        let health_endpoint = settings.health_endpoint.as_ref().map(expanded);
        Self::Program(Arc::new(ProgramTemplate { settings, runtime, health_endpoint }))
    }

    /// Returns the runtime whose API the services of this template speak, if there is one.
    pub fn runtime(&self) -> Option<&'static dyn Runtime> {
        match self {
            Self::Runtime(runtime) => Some(*runtime),
            Self::Program(program) => program.runtime,
        }
    }

    /// Returns its name in the configuration and in JSON.
    pub fn name(&self) -> &str {
        match self {
            Self::Runtime(runtime) => runtime.name(),
            Self::Program(program) => &program.settings.name,
        }
    }

    /// Returns its name in sentences.
    pub fn display_name(&self) -> &str {
        match self {
            Self::Runtime(runtime) => runtime.display_name(),
            Self::Program(program) => {
                let own = program.settings.display_name.as_deref();
                own.or(program.runtime.map(Runtime::display_name)).unwrap_or(&program.settings.name)
            }
        }
    }

    /// Returns what it is, in one line.
    pub fn description(&self) -> Option<&str> {
        match self {
            Self::Runtime(_) => None,
            Self::Program(program) => program.settings.description.as_deref(),
        }
    }

    pub fn category(&self) -> Option<&str> {
        match self {
            Self::Runtime(_) => None,
            Self::Program(program) => program.settings.category.as_deref(),
        }
    }

    /// Returns the port of a service whose configuration says none, if that port is free.
    pub fn default_port(&self) -> Option<u16> {
        match self {
            Self::Runtime(runtime) => Some(runtime.defaults().port),
            Self::Program(program) => program.settings.default_port,
        }
    }

    /// Returns the other ports that such a service may have.
    pub fn port_range(&self) -> Option<RangeInclusive<u16>> {
        match self {
            Self::Runtime(runtime) => {
                let first = runtime.defaults().port;
                Some(first..=first.saturating_add(PORTS_OF_RUNTIME - 1))
            }
            Self::Program(program) => program.settings.port_range.clone(),
        }
    }

    /// Returns the arguments and environment that the runtime itself adds to the start of a server on `address`. The
    /// command of a program template names its own arguments.
    pub fn launch(&self, address: &Address, model: Option<&Model>, places: &ModelPlaces) -> Launch {
        match self {
            Self::Runtime(runtime) => runtime.launch(address, model, places),
            Self::Program(program) => {
                let launch = program.runtime.map(|runtime| runtime.launch(address, model, places));
                Launch { args: Vec::new(), env: launch.unwrap_or_default().env }
            }
        }
    }

    /// Returns the variables of the server that name a file or directory and in which the server does not expand `~`.
    pub fn path_variables(&self) -> &'static [&'static str] {
        self.runtime().map_or(&[], Runtime::path_variables)
    }

    /// Returns how the server at `address` is asked for its state: it is ready when every check succeeds. The first one
    /// recognises it.
    pub fn status_checks(&self, address: &Address) -> Vec<StatusCheck> {
        let mut checks: Vec<_> =
            self.runtime().map(|runtime| StatusCheck::Runtime(runtime.status_probe())).into_iter().collect();
        if let Self::Program(program) = self
            && let Some(endpoint) = &program.health_endpoint
        {
            let (address, path) = endpoint_at(endpoint, address);
            checks.push(StatusCheck::Endpoint { address, path, timeout: program.settings.health_timeout });
        }
        if checks.is_empty() {
            checks.push(StatusCheck::Port);
        }
        checks
    }

    /// Returns whether a response shows that the server is of this template, even if fusion did not start it.
    pub fn is_recognisable(&self) -> bool {
        match self {
            Self::Runtime(_) => true,
            Self::Program(program) => program.runtime.is_some() || program.health_endpoint.is_some(),
        }
    }

    /// Returns requests for further facts about a recognised server.
    pub fn detail_probes(&self) -> &'static [Probe] {
        self.runtime().map_or(&[], Runtime::detail_probes)
    }

    /// Returns whether a server counts as ready only after it has generated a token.
    pub fn ready_needs_generation(&self) -> bool {
        match self {
            Self::Runtime(runtime) => runtime.ready_needs_generation(),
            // What it is started with is not known.
            Self::Program(_) => false,
        }
    }

    /// Returns how long after SIGTERM a server gets SIGINT, if SIGTERM may not end it.
    pub fn interrupt_after(&self) -> Option<Duration> {
        self.runtime().and_then(Runtime::interrupt_after)
    }

    /// Returns why the process died, from the end of its log; `None` if the log does not show it.
    pub fn explain_exit(&self, log_tail: &str) -> Option<String> {
        self.runtime()?.explain_exit(log_tail)
    }
}

/// Returns where a health endpoint is requested of the server at `address`, and the path.
fn endpoint_at(endpoint: &str, address: &Address) -> (Address, String) {
    let value = |placeholder: Placeholder| {
        Some(match placeholder {
            Placeholder::Port => address.port.to_string(),
            Placeholder::Host => address.host.clone(),
            other => other.text().to_owned(),
        })
    };
    let text = command_line::expand(endpoint, &value).unwrap_or_else(|_| endpoint.to_owned());
    let Some(rest) = text.strip_prefix("http://") else { return (address.clone(), text) };
    let (place, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(address.port)),
        _ => (place, 80),
    };
    let named = Address { host: host.trim_matches(['[', ']']).to_owned(), port };
    // `localhost` can mean two addresses; the server listens on its own.
    let is_own = named.port == address.port && named.is_loopback() && named.conflicts_with(address);
    (if is_own { address.clone() } else { named }, path)
}

impl std::fmt::Debug for Template {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Template").field(&self.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_endpoints_lead_to_the_server() {
        let at = |endpoint: &str, host: &str| {
            let (address, path) = endpoint_at(endpoint, &Address { host: host.to_owned(), port: 8188 });
            format!("{address}{path}")
        };
        assert_eq!(at("http://localhost:{port}/stats?x=1", "127.0.0.1"), "127.0.0.1:8188/stats?x=1");
        assert_eq!(at("http://{host}:{port}", "127.0.0.1"), "127.0.0.1:8188/");
        assert_eq!(at("/health", "::1"), "[::1]:8188/health");
        assert_eq!(at("http://[::1]:{port}/x", "::1"), "[::1]:8188/x");
        assert_eq!(at("http://localhost:9000/x", "127.0.0.1"), "localhost:9000/x");
        assert_eq!(at("http://example.org/x", "127.0.0.1"), "example.org:80/x");
        assert_eq!(at("http://127.0.0.1:{port}/x", "0.0.0.0"), "0.0.0.0:8188/x");
    }
}
