//! The JSON shapes of coding agents.

use std::sync::Arc;

use serde::Serialize;

use super::{AgentRoute, InstalledAgent, PreparedAgent};
use crate::core::agents::{Agent, AgentTarget};
use crate::core::runtimes::Runtime;
use crate::core::services::ManagedService;
use crate::core::sorted_map::SortedMap;

/// A coding agent in a list.
#[derive(Debug, Serialize)]
pub struct AgentView {
    pub name: &'static str,
    pub installed: bool,
    /// Null if it is not installed, or prints none.
    pub version: Option<String>,
    /// `chat`, `messages` or `responses`.
    pub wire: &'static str,
    /// The services that can serve it, directly or through the gateway.
    pub services: Vec<Arc<str>>,
}

impl AgentView {
    pub fn new(agent: &Agent, installed: Option<&InstalledAgent>, services: &[ManagedService]) -> Self {
        let prompted = services.iter().filter(|service| service.runtime().is_some());
        Self {
            name: agent.name,
            installed: installed.is_some(),
            version: installed.and_then(|installed| Some(installed.version?.to_string())),
            wire: agent.wire.name(),
            services: prompted.map(|service| Arc::clone(&service.name)).collect(),
        }
    }
}

/// What an agent would be launched with.
#[derive(Debug, Serialize)]
pub struct LaunchView<'a> {
    pub service: Arc<str>,
    pub runtime: Option<&'static str>,
    pub agent: &'static str,
    pub program: String,
    pub model: &'a str,
    pub url: &'a str,
    /// Whether the gateway translates.
    pub gateway: bool,
    /// The context length in tokens that the agent is told.
    pub context: Option<u64>,
    /// Before those of the user.
    pub arguments_before: &'a [String],
    pub arguments_after: &'a [String],
    pub env: SortedMap<&'static str, &'a str>,
}

impl<'a> LaunchView<'a> {
    pub fn new(
        agent: &Agent,
        service: &ManagedService,
        target: &AgentTarget<'a>,
        route: AgentRoute,
        prepared: &'a PreparedAgent,
    ) -> Self {
        let [before, after] = &prepared.arguments;
        Self {
            service: Arc::clone(&service.name),
            runtime: service.runtime().map(Runtime::name),
            agent: agent.name,
            program: prepared.program.display().to_string(),
            model: target.model,
            url: target.url,
            gateway: route == AgentRoute::Gateway,
            context: target.context,
            arguments_before: before,
            arguments_after: after,
            env: prepared.env.iter().map(|(name, value)| (*name, value.as_str())).collect(),
        }
    }
}
