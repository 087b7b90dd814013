//! Launches coding agents: finds the program, checks its version, readies the model, finds a way for its wire, and
//! asks the model for a tool call.

mod cache;
pub mod views;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use self::cache::Cache;
use super::ability::{Ability, AbilityError, AbilityTest};
use super::app::App;
use super::error::AppError;
use super::models::{LIST_TIMEOUT, LoadOptions, Named};
use super::notices::context_at;
use super::pick::Picked;
use super::prompt::Permissions;
use crate::core::address::Address;
use crate::core::agents::{AGENTS, Agent, AgentSetup, AgentTarget, AgentVersion, AgentWire};
use crate::core::cancel::CancelToken;
use crate::core::executables::on_path;
use crate::core::files::{self, FileError, LockError};
use crate::core::helper;
use crate::core::parallel;
use crate::core::runtimes::Runtime;
use crate::core::services::{ManagedService, Status, UpKind, UpOptions};
use crate::env::Environment;

/// How long a program may take to print its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long another launch may write the files of an agent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an agent was not launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("{} is not installed: no {} on PATH", agent.display_name, agent.program)]
    NotInstalled { agent: &'static Agent },
    #[error("{} {found} is too old: fusion needs {minimum} or newer", agent.display_name)]
    TooOld { agent: &'static Agent, found: AgentVersion, minimum: AgentVersion },
    /// The loaded context is too small for the agent's own instructions.
    #[error("{service} has loaded {model} with a context of {context} tokens, and {} needs at least {}", agent.display_name, agent.min_context)]
    WindowTooSmall {
        agent: &'static Agent,
        service: Arc<str>,
        model: String,
        context: u64,
        /// How the server loads more, in words.
        cure: Option<String>,
    },
    /// The user wants to tell the agent more than there is.
    #[error("{service} has loaded {model} with a context of {context} tokens, which is less than {asked}")]
    ContextTooLarge { service: Arc<str>, model: String, context: u64, asked: u64 },
    #[error("{model} calls no tools, and {} can do nothing without them{}", agent.display_name, said_with(said))]
    NoToolCall { agent: &'static Agent, model: String, said: String },
    /// All features of the agent need what the gateway cannot translate.
    #[error("{} reaches {service} only through the gateway, which cannot translate {untranslated}", agent.display_name)]
    FullThroughGateway { agent: &'static Agent, service: Arc<str>, untranslated: &'static str },
    /// The test for tool calls failed.
    #[error(transparent)]
    Ability(#[from] AbilityError),
    #[error(transparent)]
    File(#[from] FileError),
    /// Another launch has been writing the files of an agent for too long.
    #[error(transparent)]
    Lock(#[from] LockError),
}

fn said_with(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!("; it said: {said}") }
}

/// An agent on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledAgent {
    pub program: PathBuf,
    /// `None` if it does not print one.
    pub version: Option<AgentVersion>,
}

/// A service that has the model of an agent in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyModel {
    pub address: Address,
    /// By the server's name for it.
    pub model: String,
    pub status: Status,
    /// The context length in tokens, if it is known.
    pub context: Option<u64>,
}

/// How an agent reaches a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentRoute {
    Direct,
    /// Through the gateway, which translates.
    Gateway,
}

/// Returns how an agent with this wire reaches a server of `runtime` with this version.
pub fn route(wire: AgentWire, runtime: Option<&dyn Runtime>, version: Option<&str>) -> AgentRoute {
    let has_it = || runtime.and_then(|runtime| runtime.has_other_wires(version)) == Some(true);
    if wire == AgentWire::Chat || has_it() { AgentRoute::Direct } else { AgentRoute::Gateway }
}

/// An agent with all that it needs to run.
#[derive(Debug)]
pub struct PreparedAgent {
    pub program: PathBuf,
    /// Before and after the user's.
    pub arguments: [Vec<String>; 2],
    pub env: Vec<(&'static str, String)>,
    /// Held while the agent runs: no idle stop ends the service.
    pub in_use: Option<files::Lock>,
}

impl App {
    /// Finds the program of an agent, and its version.
    pub fn find_agent(
        &self,
        agent: &'static Agent,
        cancel: &CancelToken,
    ) -> Result<InstalledAgent, LaunchError> {
        let program = on_path(agent.program, self.environment.path.as_deref());
        let program = program.ok_or(LaunchError::NotInstalled { agent })?;
        let cache = self.agent_cache();
        if let Some(version) = cache.version(&program) {
            return Ok(InstalledAgent { program, version: AgentVersion::find(&version) });
        }
        let printed = self.printed_version(&program, cancel);
        let version = printed.as_deref().and_then(AgentVersion::find);
        if let Some(version) = version {
            cache.add_version(&program, &version.to_string());
        }
        Ok(InstalledAgent { program, version })
    }

    /// Returns every agent with its program, if it is installed.
    pub fn list_agents(&self, cancel: &CancelToken) -> Vec<(&'static Agent, Option<InstalledAgent>)> {
        parallel::each(&AGENTS.each_ref(), |_| false, |agent| (*agent, self.find_agent(agent, cancel).ok()))
    }

    fn printed_version(&self, program: &Path, cancel: &CancelToken) -> Option<String> {
        let mut command = Command::new(program);
        command.arg("--version").env_clear().envs(self.environment.variables.iter().cloned());
        helper::output_of(command, VERSION_TIMEOUT, cancel)
    }

    /// Starts the service if that is needed and permitted, and has it load the model. Never downloads one.
    pub fn ready_model(
        &self,
        (service, known): Picked<'_>,
        asked: &str,
        cancel: &CancelToken,
    ) -> Result<ReadyModel, AppError> {
        let model = self.model(service, asked).name;
        self.check_model_name(service, asked, &model)?;
        let manager = self.manager(cancel);
        let mut status = if let Some(status) = known {
            status
        } else {
            if manager.find_endpoint(service)?.is_none() {
                let permissions = Permissions { start_on_demand: true, install: false, force: false };
                self.start_for_prompt(service, &self.model(service, asked), permissions, cancel)?;
            }
            manager.require_endpoint(service)?;
            manager.status(service)?
        };
        if !has_loaded(service, &status, &model)
            && let Ok(models) = self.models(service, cancel)
        {
            models.load(&Named { asked, name: model.clone() }, true, &LoadOptions::default())?;
            status = manager.status(service)?;
        }
        let address = match &status.address {
            Some(address) => address.clone(),
            None => manager.require_endpoint(service)?.address,
        };
        // Of several loaded models, each has its own.
        let context = status
            .context
            .or_else(|| context_at(LIST_TIMEOUT, service, &address, &model))
            .or_else(|| self.own_context(service, &model, cancel));
        Ok(ReadyModel { address, model, status, context })
    }

    /// Returns the context length of the model itself, for a server that sets none.
    fn own_context(&self, service: &ManagedService, model: &str, cancel: &CancelToken) -> Option<u64> {
        let models = self.models(service, cancel).ok().filter(|models| !models.needs_server())?;
        models.show(&Named::resolved(model), false).ok()?.details.context_length
    }

    /// Fails if the model does not call a tool when it is asked for that. A success is remembered for the content of
    /// the model and the version of the server. `asking` is called before the model is asked.
    pub fn probe_tools(
        &self,
        agent: &'static Agent,
        service: &ManagedService,
        ready: &ReadyModel,
        cancel: &CancelToken,
        asking: &mut dyn FnMut(),
    ) -> Result<(), LaunchError> {
        let cache = self.agent_cache();
        let key = self.probe_key(service, ready, cancel);
        if key.as_ref().is_some_and(|key| cache.calls_tools(key)) {
            return Ok(());
        }
        asking();
        match self.test_ability(service, &ready.address, &ready.model, Ability::Tools, cancel)? {
            AbilityTest::Passed => {
                if let Some(key) = key {
                    cache.add_calls_tools(&key);
                }
                Ok(())
            }
            AbilityTest::Failed { said } => {
                Err(LaunchError::NoToolCall { agent, model: ready.model.clone(), said })
            }
        }
    }

    /// Returns what identifies the content of the model and the server; `None` if either is unknown.
    fn probe_key(
        &self,
        service: &ManagedService,
        ready: &ReadyModel,
        cancel: &CancelToken,
    ) -> Option<String> {
        let (runtime, status) = (service.runtime()?, &ready.status);
        let version = status.version.as_ref()?;
        let model = self.models(service, cancel).ok()?.identity(status.address.as_ref(), &ready.model)?;
        Some(format!("{} {version} {model}", runtime.name()))
    }

    /// Returns the address of the gateway, and whether it was started for that.
    pub fn gateway_for_agents(&self, cancel: &CancelToken) -> Result<(Address, bool), AppError> {
        let gateway = self.gateway();
        if let Some(endpoint) = self.manager(cancel).find_endpoint(gateway)? {
            return Ok((endpoint.address, false));
        }
        let up = self.start(gateway, &UpOptions::default(), false, cancel)?;
        Ok((up.endpoint.address, up.kind == UpKind::Started))
    }

    /// Writes the files of the agent, and returns it with all that it needs.
    pub fn prepare_agent(
        &self,
        agent: &Agent,
        installed: &InstalledAgent,
        target: &AgentTarget<'_>,
        service: &ManagedService,
        cancel: &CancelToken,
    ) -> Result<PreparedAgent, LaunchError> {
        let AgentSetup { before, after, mut env, files } = (agent.setup)(target);
        self.write_agent_files(target.directory, &files)?;
        env.extend(no_proxy(&self.environment));
        let in_use = service.use_it(cancel);
        Ok(PreparedAgent { program: installed.program.clone(), arguments: [before, after], env, in_use })
    }

    /// Writes those of the files that are not there yet.
    fn write_agent_files(
        &self,
        directory: &Path,
        files: &[(&'static str, String)],
    ) -> Result<(), LaunchError> {
        let is_there = |(name, content): &&(&str, String)| {
            std::fs::read(directory.join(name)).is_ok_and(|present| present == content.as_bytes())
        };
        if files.iter().all(|file| is_there(&file)) {
            return Ok(());
        }
        files::make_directory(directory)?;
        // Two launches at once have the same files.
        let lock = self.paths.agents().join("files.lock");
        let _lock = files::Lock::acquire(&lock, WRITE_TIMEOUT, &|| false)?;
        for (name, content) in files.iter().filter(|file| !is_there(file)) {
            files::replace(&directory.join(name), content.as_bytes())?;
        }
        Ok(())
    }

    /// Returns the directory of an agent's files for a model of a service.
    pub fn agent_directory(&self, agent: &Agent, service: &ManagedService, model: &str) -> PathBuf {
        let plain = |character: char| if character.is_alphanumeric() { character } else { '-' };
        let model: String = model.chars().map(plain).collect();
        let start = model.char_indices().rev().nth(79).map_or(0, |(index, _)| index);
        self.paths.agents().join(agent.name).join(format!("{}-{}", service.name, &model[start..]))
    }

    fn agent_cache(&self) -> Cache {
        Cache::new(self.paths.agents())
    }
}

/// Returns whether the model is in memory, as far as the server tells.
fn has_loaded(service: &ManagedService, status: &Status, model: &str) -> bool {
    let is_it = |loaded: &String| {
        service.runtime().map_or(loaded == model, |runtime| runtime.is_same_model(loaded, model))
    };
    status.models.as_ref().is_none_or(|loaded| loaded.iter().any(is_it))
}

/// Returns the variables that keep requests to this machine away from a proxy.
fn no_proxy(environment: &Environment) -> Vec<(&'static str, String)> {
    let is_proxy = |name: &OsString| name.to_string_lossy().to_lowercase().ends_with("_proxy");
    let has_proxy = environment.variables.iter().any(|(name, _)| is_proxy(name));
    let own = "127.0.0.1,localhost";
    let with = |name: &'static str| {
        let present = environment.variable(name).map(|value| value.to_string_lossy());
        let present = present.filter(|value| !value.is_empty());
        (name, present.map_or_else(|| own.to_owned(), |value| format!("{value},{own}")))
    };
    if has_proxy { vec![with("NO_PROXY"), with("no_proxy")] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::runtimes;

    #[test]
    fn wires_are_direct_where_the_server_has_them() {
        let [messages, responses] = [AgentWire::Messages, AgentWire::Responses];
        let of = |name: &str| runtimes::find(runtimes::TABLE, name);
        for (wire, runtime, version, expected) in [
            (AgentWire::Chat, "mlx", None, AgentRoute::Direct),
            (messages, "mlx", Some("0.31.0"), AgentRoute::Gateway),
            (responses, "llama", None, AgentRoute::Direct),
            (messages, "ollama", Some("0.14.0"), AgentRoute::Direct),
            (responses, "ollama", Some("0.13.5"), AgentRoute::Gateway),
            (responses, "ollama", None, AgentRoute::Gateway),
        ] {
            assert_eq!(route(wire, of(runtime), version), expected, "{wire:?} {runtime} {version:?}");
        }
        assert_eq!(route(messages, None, None), AgentRoute::Gateway);
    }

    #[test]
    fn this_machine_is_exempt_from_proxies() {
        let with = |variables: &[(&str, &str)]| Environment {
            variables: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..Environment::default()
        };
        assert_eq!(no_proxy(&with(&[("PATH", "/bin")])), []);
        let both = no_proxy(&with(&[("HTTPS_PROXY", "http://proxy"), ("NO_PROXY", "intra")]));
        assert_eq!(
            both,
            [
                ("NO_PROXY", "intra,127.0.0.1,localhost".to_owned()),
                ("no_proxy", "127.0.0.1,localhost".to_owned())
            ]
        );
    }
}
