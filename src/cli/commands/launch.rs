//! `fusion launch`: a coding agent on a local model.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::app::launch::views::{AgentView, LaunchView};
use crate::app::launch::{AgentRoute, LaunchError, PreparedAgent, ReadyModel, route};
use crate::app::pick::Picked;
use crate::app::{App, AppError};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::table::TextTable;
use crate::core::agents::{self, AGENTS, Agent, AgentTarget, NOT_OFFERED};
use crate::core::models::quoted;
use crate::core::nearest::nearest;
use crate::core::services::ManagedService;

/// Launch a coding agent on a local model
///
/// Without AGENT, lists the agents. Starts the service of the model if it is not running, checks that the agent can
/// work with it, and becomes the agent: its exit code and signals are its own. The agent gets environment variables,
/// arguments and files of fusion's own directory, for this process only; none of your files is read or written.
///
/// Arguments after `--` are those of the agent.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct LaunchArgs {
    /// Name of the agent
    agent: Option<String>,
    /// Model to use in place of the configured one: a name, an alias, or a directory
    #[arg(short, long, value_name = "MODEL", requires = "agent")]
    model: Option<String>,
    /// Service to use
    #[arg(long, value_name = "SERVICE", requires = "agent")]
    service: Option<String>,
    /// Context length in tokens that the agent is told, at most what is loaded
    #[arg(long, value_name = "N", requires = "agent", value_parser = clap::value_parser!(u64).range(1..))]
    context: Option<u64>,
    /// Give the agent fewer tools and shorter instructions, for small models (the default)
    #[arg(long, requires = "agent", overrides_with = "full")]
    lean: bool,
    /// Give the agent all its tools and instructions
    #[arg(long, requires = "agent")]
    full: bool,
    /// Launch it even if a check fails
    #[arg(long, requires = "agent")]
    force: bool,
    /// Print the command line for a shell instead of running it
    #[arg(long, requires = "agent", conflicts_with = "json")]
    print: bool,
    /// Print JSON: the agents, or what AGENT would be launched with
    #[arg(long)]
    json: bool,
    /// Arguments of the agent
    #[arg(last = true, value_name = "ARGS", requires = "agent")]
    arguments: Vec<OsString>,
}

/// The examples of the help.
pub const EXAMPLES: [&str; 3] = [
    "fusion launch",
    "fusion launch claude -m qwen3:8b",
    "fusion launch codex -m qwen3:8b -- exec \"Explain this project\"",
];

/// Runs the command.
pub fn run(context: &Context, app: &App, args: &LaunchArgs) -> Result<Exit, Failure> {
    match &args.agent {
        Some(name) => AgentLaunch { context, app, args, agent: known(name)? }.run(),
        None => list(context, app, args.json),
    }
}

/// Returns the agent, or why there is none.
fn known(name: &str) -> Result<&'static Agent, Failure> {
    if let Some(agent) = agents::find(name) {
        return Ok(agent);
    }
    if let Some((name, reason)) = NOT_OFFERED.iter().find(|(known, _)| *known == name) {
        return Err(Failure::new(Exit::Usage, format!("fusion does not launch {name}: {reason}")));
    }
    let hint = match nearest(name, &mut AGENTS.iter().map(|agent| agent.name)) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "list the agents: fusion launch".to_owned(),
    };
    Err(Failure::new(Exit::Usage, format!("there is no agent {name}")).hint(hint))
}

fn list(context: &Context, app: &App, json: bool) -> Result<Exit, Failure> {
    let agents = until_signal(context, || app.list_agents(&context.cancel))?;
    let view = |(agent, installed): (_, Option<_>)| AgentView::new(agent, installed.as_ref(), app.services());
    let views: Vec<AgentView> = agents.into_iter().map(view).collect();
    if json {
        context.ui.json(&views)?;
        return Ok(Exit::Done);
    }
    let mut table = TextTable::new(&["AGENT", "VERSION", "WIRE", "SERVICES"]);
    for view in &views {
        let version = match (&view.version, view.installed) {
            (Some(version), _) => version.clone(),
            (None, true) => "unknown".to_owned(),
            (None, false) => "not installed".to_owned(),
        };
        table.row(&[view.name.to_owned(), version, view.wire.to_owned(), view.services.join(", ")]);
    }
    context.ui.result(&table.text(context.ui.screen_width()))?;
    for (name, reason) in NOT_OFFERED {
        context.ui.note(&format!("{name} is not offered: {reason}"));
    }
    Ok(Exit::Done)
}

/// Does some work that programs may delay; stops them if a signal ends it.
fn until_signal<T>(context: &Context, work: impl FnOnce() -> T) -> Result<T, Failure> {
    let _cancelled = context.cancel_on_signal();
    let done = work();
    if context.cancel.is_cancelled() { Err(Failure::new(Exit::Interrupted, "")) } else { Ok(done) }
}

/// One launch.
struct AgentLaunch<'a> {
    context: &'a Context,
    app: &'a App,
    args: &'a LaunchArgs,
    agent: &'static Agent,
}

impl AgentLaunch<'_> {
    fn run(&self) -> Result<Exit, Failure> {
        let Self { context, app, args, agent } = self;
        let installed = until_signal(context, || app.find_agent(agent, &context.cancel))??;
        let shown =
            installed.version.map_or_else(|| "unknown version".to_owned(), |version| version.to_string());
        context.ui.detail(&format!("{}: {} ({shown})", agent.display_name, installed.program.display()));
        if let (Some(found), Some(minimum)) = (installed.version, agent.minimum)
            && found < minimum
        {
            self.refuse(LaunchError::TooOld { agent, found, minimum })?;
        }
        let picked = self.service()?;
        let service = picked.0;
        let asked = self.model(service)?;
        let ready = {
            let _cancelled = context.cancel_on_signal();
            app.ready_model(picked, &asked, &context.cancel)?
        };
        context.ui.detail(&format!("{} has {} at {}", service.name, ready.model, ready.address));
        let told = self.told_context(service, &ready)?;
        let route = route(agent.wire, service.runtime(), ready.status.version.as_deref());
        if route == AgentRoute::Gateway && args.full && !args.lean {
            let untranslated = "its own kinds of tools";
            return Err(LaunchError::FullThroughGateway {
                agent,
                service: service.name.clone(),
                untranslated,
            }
            .into());
        }
        if agent.needs_tools {
            self.probe(service, &ready)?;
        }
        let (url, key, model) = match route {
            AgentRoute::Direct => (ready.address.url(), "fusion".to_owned(), ready.model.clone()),
            AgentRoute::Gateway => {
                let (url, key) = self.gateway(service)?;
                // Other services may have a model of this name.
                (url, key, format!("{}/{}", service.name, ready.model))
            }
        };
        let directory = app.agent_directory(agent, service, &ready.model);
        let target = AgentTarget {
            url: &url,
            key: &key,
            model: &model,
            context: told,
            lean: !args.full || args.lean,
            directory: &directory,
        };
        let prepared = app.prepare_agent(agent, &installed, &target, service, &context.cancel)?;
        if args.json {
            context.ui.json(&LaunchView::new(agent, service, &target, route, &prepared))?;
            return Ok(Exit::Done);
        }
        if args.print {
            context.ui.result(&shell_line(&prepared, &args.arguments))?;
            return Ok(Exit::Done);
        }
        Err(become_agent(prepared, &args.arguments))
    }

    /// Returns the failure of a check, or tells it and goes on with `--force`.
    fn refuse(&self, error: LaunchError) -> Result<(), Failure> {
        let failure = Failure::from(error);
        if !self.args.force {
            return Err(failure);
        }
        self.context.ui.warning(&failure.facts(": "));
        Ok(())
    }

    fn service(&self) -> Result<Picked<'_>, Failure> {
        let Self { context, app, args, .. } = self;
        let Some(name) = &args.service else {
            return Ok(app.service_for(args.model.as_deref(), None, &context.cancel)?);
        };
        app.service(name).map(|service| (service, None)).ok_or_else(|| {
            let names: Vec<&str> = app.services().iter().map(|service| &*service.name).collect();
            Failure::new(Exit::Usage, format!("there is no service {name}"))
                .hint(format!("services: {}", names.join(", ")))
        })
    }

    /// Returns the model as the user or the configuration names it.
    fn model(&self, service: &ManagedService) -> Result<String, AppError> {
        match &self.args.model {
            Some(model) => Ok(model.clone()),
            None if service.settings.run.model.is_empty() => {
                Ok(self.app.only_model(service, &self.context.cancel)?.name)
            }
            None => Ok(self.app.configured_model(service, &service.settings.run.model).name),
        }
    }

    /// Returns the context length that the agent is told, and checks that it is enough.
    fn told_context(&self, service: &ManagedService, ready: &ReadyModel) -> Result<Option<u64>, Failure> {
        let (agent, runtime) = (self.agent, service.runtime());
        let (name, table) = (service.name.clone(), service.server_table());
        let (service, model) = (|| service.name.clone(), || ready.model.clone());
        if let (Some(asked), Some(context)) = (self.args.context, ready.context)
            && asked > context
        {
            return Err(
                LaunchError::ContextTooLarge { service: service(), model: model(), context, asked }.into()
            );
        }
        let told = self.args.context.or(ready.context);
        if let Some(context) = told.filter(|context| *context < agent.min_context) {
            let cure =
                runtime.and_then(|runtime| runtime.longer_context(&name, &table, agent.min_context - 1));
            self.refuse(LaunchError::WindowTooSmall {
                agent,
                service: service(),
                model: model(),
                context,
                cure,
            })?;
        }
        Ok(told)
    }

    fn probe(&self, service: &ManagedService, ready: &ReadyModel) -> Result<(), Failure> {
        let Self { context, app, agent, .. } = self;
        let mut asking = || context.ui.note(&format!("asking {} for a tool call", ready.model));
        let probe = || app.probe_tools(agent, service, ready, &context.cancel, &mut asking);
        match until_signal(context, probe)? {
            Err(error @ (LaunchError::NoToolCall { .. } | LaunchError::Ability(_))) => self.refuse(error),
            other => Ok(other?),
        }
    }

    /// Returns the URL of the gateway and the key for it. Starts the gateway if it is not running.
    fn gateway(&self, service: &ManagedService) -> Result<(String, String), Failure> {
        let Self { context, app, agent, .. } = self;
        let _cancelled = context.cancel_on_signal();
        let (address, is_started) = app.gateway_for_agents(&context.cancel)?;
        let started = if is_started { "fusion has started the gateway, which" } else { "the gateway" };
        context.ui.note(&format!(
            "{} does not speak the {} API of {}: {started} translates it at {}",
            service.name,
            agent.wire.name(),
            agent.display_name,
            address.url()
        ));
        let token = &app.config.gateway.token;
        Ok((address.url(), if token.is_empty() { "fusion".to_owned() } else { token.clone() }))
    }
}

/// Returns the command line for a shell.
fn shell_line(prepared: &PreparedAgent, arguments: &[OsString]) -> String {
    let [before, after] = &prepared.arguments;
    let user = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    let env = prepared.env.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
    let program = prepared.program.display().to_string();
    let words = [program].into_iter().chain(before.iter().cloned()).chain(user).chain(after.iter().cloned());
    let words: Vec<String> = env.chain(words.map(|word| quoted(&word))).collect();
    format!("{}\n", words.join(" "))
}

/// Becomes the agent; returns only if that fails.
fn become_agent(prepared: PreparedAgent, arguments: &[OsString]) -> Failure {
    let [before, after] = &prepared.arguments;
    // The agent inherits the mark, and has it until it ends.
    if let Some(lock) = prepared.in_use {
        // Without the mark, an idle stop may end the service between two requests.
        let _ = lock.hand_down();
    }
    let mut command = Command::new(&prepared.program);
    command
        .args(before)
        .args(arguments)
        .args(after)
        .envs(prepared.env.iter().map(|(name, value)| (name, value)));
    let error = command.exec();
    Failure::of(Exit::Failed, &error).about(format!("cannot run {}", prepared.program.display()))
}
