//! `fusion completions`: the scripts with which shells ask fusion for completions, and the candidates.

mod bash;

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Command;
use clap::builder::StyledStr;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Elvish, EnvCompleter, Fish, Powershell, Zsh};

use crate::app::App;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::instances::{self, NamedService};
use crate::core::agents::AGENTS;
use crate::core::aliases;
use crate::core::cancel::CancelToken;
use crate::core::config::Config;
use crate::core::events::EventBus;
use crate::core::helper::HelperOutput;
use crate::core::models::ModelPlaces;
use crate::core::models::catalogue::Site;
use crate::core::parallel::PendingValue;
use crate::core::paths::Paths;
use crate::core::process::unix::UnixDriver;
use crate::core::runtimes::{self, Runtime, Table};
use crate::core::services::{ManagedService, Status};
use crate::core::sorted_map::SortedMap;
use crate::env::{COMPLETION_VARIABLE, Environment};

/// Print the completion script of a shell
///
/// Completes commands, options, the models on this machine, and the keys, aliases and saved prompts of your
/// configuration. Add the line for your shell to its startup file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = STARTUP_LINES)]
pub struct CompletionsArgs {
    /// Shell to print the script for
    #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    shell: String,
}

const STARTUP_LINES: &str = "\
Line for the startup file of your shell:
  bash        eval \"$(fusion completions bash)\"
  zsh         source <(fusion completions zsh)
  fish        fusion completions fish | source
  elvish      eval (fusion completions elvish | slurp)
  powershell  fusion completions powershell | Out-String | Invoke-Expression";

/// As the file `_fusion` in `fpath`, zsh runs the script in place of the first completion.
const ZSH_FIRST_CALL: &[u8] =
    b"\nif [[ \"${funcstack[1]}\" == _fusion ]]; then _clap_dynamic_completer_fusion \"$@\"; fi\n";

/// Runs the command.
pub fn run(context: &Context, args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    completer(&args.shell)
        .ok_or_else(|| Failure::new(Exit::Failed, format!("no completions for {}", args.shell)))?
        .write_registration(COMPLETION_VARIABLE, "fusion", "fusion", "fusion", &mut script)
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    if Zsh.is(&args.shell) {
        script.extend_from_slice(ZSH_FIRST_CALL);
    }
    context.ui.result(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

fn completer(shell: &str) -> Option<&'static dyn EnvCompleter> {
    const ALL: [&dyn EnvCompleter; 5] = [&bash::Bash, &Elvish, &Fish, &Powershell, &Zsh];
    ALL.into_iter().find(|completer| completer.is(shell))
}

/// Makes the command line of fusion, with the names of instances.
pub type Tree = fn(Table, &[NamedService]) -> Command;

/// Returns what `shell` offers after `arguments`: the program's name, `--`, and the command line so far as the script
/// of the shell passes it.
///
/// Returns `None` for an unknown shell and for malformed arguments.
pub fn candidates(
    tree: Tree,
    table: Table,
    environment: &Environment,
    shell: &str,
    arguments: &[OsString],
) -> Option<Vec<u8>> {
    let separator = arguments.iter().position(|argument| argument == "--")?;
    let words = arguments[separator + 1..].to_vec();
    // bash does not tell which word it is.
    let may_be_first = words.len() <= 2 || bash::only_lists(&words);
    let mut command = with_values(tree, table, environment, may_be_first);
    let mut output = Vec::new();
    completer(shell)?
        .write_complete(&mut command, words, environment.current_dir.as_deref(), &mut output)
        .ok()?;
    Some(output)
}

/// Returns the tree with values from the configuration and the machine, which are looked up on demand. A completion
/// never writes anything, so the defaults apply if there is no valid configuration.
fn with_values(tree: Tree, table: Table, environment: &Environment, may_be_first: bool) -> Command {
    let config = instances::existing_config(table, environment).unwrap_or_else(|| Config::default_for(table));
    let mut command = tree(table, &instances::of_config(table, &config));
    command.build();
    command = with_hidden_aliases(command);
    let known = Arc::new(ValueSources { table, config, environment: environment.clone() });
    if may_be_first {
        for (name, state) in known.services() {
            command = command.mut_subcommand(name, |command| with_state(command, state.as_deref()));
        }
    }
    let services = |command: Command| {
        command.mut_args(|argument| match argument.get_id().as_str() {
            "names" | "name" => argument.add(described(&known, ValueSources::services)),
            "tag" => argument.add(one_of(&known, ValueSources::tags)),
            "template" => argument.add(one_of(&known, ValueSources::templates)),
            _ => argument,
        })
    };
    for name in ["up", "down", "restart", "ps", "log", "top", "metrics", "enable", "disable"] {
        command = command.mut_subcommand(name, services);
    }
    command = command.mut_subcommand("remove", |command| {
        command.mut_arg("name", |argument| argument.add(described(&known, ValueSources::instances)))
    });
    command = command.mut_subcommand("create", |command| {
        command.mut_arg("template", |argument| argument.add(one_of(&known, ValueSources::templates)))
    });
    command = command.mut_subcommand("templates", |command| {
        command.mut_arg("name", |argument| argument.add(one_of(&known, ValueSources::templates)))
    });
    for name in ["run", "chat", "launch"] {
        command = command.mut_subcommand(name, |command| {
            command.mut_args(|argument| match (argument.get_id().as_str(), argument.get_long()) {
                ("model", _) => argument.add(one_of(&known, ValueSources::all_models)),
                ("agent", _) => argument.add(one_of(&known, |_| ValueSources::agents())),
                (_, Some("service")) => argument.add(described(&known, ValueSources::model_services)),
                (_, Some("prompt")) => argument.add(one_of(&known, ValueSources::prompts)),
                _ => argument,
            })
        });
    }
    for (name, runtime) in known.model_servers() {
        command = command.mut_subcommand(name, |command| {
            command.mut_subcommands(|command| {
                command.mut_args(|argument| match (argument.get_id().as_str(), argument.get_long()) {
                    ("model", _) => argument.add(one_of(&known, |known| known.models(runtime))),
                    (_, Some("prompt")) => argument.add(one_of(&known, ValueSources::prompts)),
                    _ => argument,
                })
            })
        });
    }
    command.mut_subcommand("config", |command| {
        command.mut_subcommands(|command| {
            command.mut_args(|argument| match argument.get_id().as_str() {
                "key" => argument.add(one_of(&known, ValueSources::keys)),
                _ => argument,
            })
        })
    })
}

/// How long the models of a server may take.
const LIST_TIMEOUT: Duration = Duration::from_millis(300);

/// The sources of values.
struct ValueSources {
    table: Table,
    config: Config,
    environment: Environment,
}

/// Finds values.
type Values<T> = dyn Fn(&ValueSources) -> Vec<T> + Send + Sync;

/// A value, and what a shell shows beside it.
type Described = (String, Option<String>);

impl ValueSources {
    /// Returns every service and the gateway with its state; without states if a server takes too long: the shell is
    /// blocked meanwhile.
    fn services(&self) -> Vec<Described> {
        const STATE_TIMEOUT: Duration = Duration::from_millis(300);
        let Ok(paths) = Paths::discover(&self.environment) else { return Vec::new() };
        let (table, config, environment) = (self.table, self.config.clone(), self.environment.clone());
        let driver = Arc::new(UnixDriver::new());
        let app = App::new(table, config, paths, environment, driver, EventBus::new(), HelperOutput::Keep);
        let services: Vec<ManagedService> = app.services().iter().chain([app.gateway()]).cloned().collect();
        let names = |services: &[ManagedService]| -> Vec<String> {
            services.iter().map(|service| service.name.to_string()).collect()
        };
        let unknown = names(&services).into_iter().map(|name| (name, None)).collect();
        let states = PendingValue::begin(move || {
            let statuses = app.manager(&CancelToken::new()).status_of_all(&services);
            let state = |status: Result<Status, _>| status.ok().map(|status| status.state.word().to_owned());
            names(&services).into_iter().zip(statuses.into_iter().map(state)).collect()
        });
        states.wait(STATE_TIMEOUT).unwrap_or(unknown)
    }

    /// Returns the services that answer prompts.
    fn model_services(&self) -> Vec<Described> {
        let servers = self.model_servers();
        let mut services = self.services();
        services.retain(|(name, _)| servers.iter().any(|(server, _)| server == name));
        services
    }

    /// Returns the services that `remove` takes.
    fn instances(&self) -> Vec<Described> {
        let mut services = self.services();
        services.retain(|(name, _)| self.config.instances.iter().any(|(known, _)| **known == **name));
        services
    }

    /// Returns the services that have models, with their runtimes.
    fn model_servers(&self) -> Vec<(String, &'static dyn Runtime)> {
        let mut servers = Vec::new();
        for runtime in self.table {
            servers.push((runtime.name().to_owned(), *runtime));
        }
        for (name, settings) in &self.config.instances {
            if let Some(runtime) = runtimes::find(self.table, &settings.instance.template) {
                servers.push((name.to_string(), runtime));
            }
        }
        servers
    }

    fn tags(&self) -> Vec<String> {
        let tags = self.config.instances.iter().flat_map(|(_, settings)| settings.instance.tags.clone());
        tags.collect()
    }

    fn templates(&self) -> Vec<String> {
        let built_in = self.table.iter().map(|runtime| runtime.name().to_owned());
        built_in.chain(self.config.templates.iter().map(|template| template.name.to_string())).collect()
    }

    /// Returns aliases, the models that the configuration names, and those on this machine.
    fn models(&self, runtime: &'static dyn Runtime) -> Vec<String> {
        self.models_of(&[runtime])
    }

    /// Returns the models of every runtime.
    fn all_models(&self) -> Vec<String> {
        self.models_of(self.table)
    }

    fn models_of(&self, runtimes: &[&'static dyn Runtime]) -> Vec<String> {
        let mut models = aliases::all(self.table, &self.config);
        for prompt in self.config.prompts.values() {
            models.extend(prompt.model.clone());
        }
        for own in runtimes.iter().filter_map(|runtime| self.config.service(runtime.name())) {
            models.push(own.run.model.clone());
            models.extend(own.server.model.clone());
        }
        models.extend(self.installed_models(runtimes));
        models
    }

    fn agents() -> Vec<String> {
        AGENTS.iter().map(|agent| agent.name.to_owned()).collect()
    }

    /// Returns the models on this machine, without those whose server takes too long: the shell is blocked meanwhile.
    fn installed_models(&self, runtimes: &[&'static dyn Runtime]) -> Vec<String> {
        let listings: Vec<_> = runtimes.iter().filter_map(|runtime| self.listing(*runtime)).collect();
        let begin = Instant::now();
        let names = |listing: PendingValue<Vec<String>>| {
            listing.wait(LIST_TIMEOUT.saturating_sub(begin.elapsed())).unwrap_or_default()
        };
        listings.into_iter().flat_map(names).collect()
    }

    /// Begins to list the models of a runtime on this machine.
    fn listing(&self, runtime: &'static dyn Runtime) -> Option<PendingValue<Vec<String>>> {
        let catalogue = runtime.catalogue()?;
        let settings = self.config.service(runtime.name())?;
        let paths = Paths::discover(&self.environment).ok()?;
        let places = ModelPlaces::discover(&self.environment, &paths, &settings.server.env);
        Some(PendingValue::begin(move || {
            let site = Site {
                address: settings.server.address(),
                places,
                find_tool: Box::new(|_| None),
                log: Box::new(String::new),
                env: &settings.server.env,
                load_timeout: LIST_TIMEOUT,
                cancel: &CancelToken::new(),
            };
            let models = catalogue.list(&site).unwrap_or_default();
            models.into_iter().map(|model| model.name).collect()
        }))
    }

    fn prompts(&self) -> Vec<String> {
        self.config.prompts.keys().cloned().collect()
    }

    /// Returns the dotted keys that a configuration like this one can have.
    fn keys(&self) -> Vec<String> {
        self.config.keys(self.table)
    }
}

/// Hides every alias: of several visible names, the engine offers another one than the help shows first.
fn with_hidden_aliases(command: Command) -> Command {
    command.mut_subcommands(|command| {
        let aliases: Vec<String> = command.get_all_aliases().map(str::to_owned).collect();
        with_hidden_aliases(command.alias(None).aliases(aliases))
    })
}

/// Returns the command with the state of its service before its description.
fn with_state(command: Command, state: Option<&str>) -> Command {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    match state {
        Some(state) => command.about(format!("{state}: {about}")),
        None => command,
    }
}

fn one_of(
    known: &Arc<ValueSources>,
    values: impl Fn(&ValueSources) -> Vec<String> + Send + Sync + 'static,
) -> ArgValueCompleter {
    // Boxed, so the code for one kind of function is enough.
    let values: Box<Values<String>> = Box::new(values);
    described(known, move |known| values(known).into_iter().map(|value| (value, None)).collect())
}

fn described(
    known: &Arc<ValueSources>,
    values: impl Fn(&ValueSources) -> Vec<Described> + Send + Sync + 'static,
) -> ArgValueCompleter {
    completing(Arc::clone(known), Box::new(values))
}

fn completing(known: Arc<ValueSources>, values: Box<Values<Described>>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let current = current.to_string_lossy();
        let mut matching = SortedMap::new();
        // The shells expect one candidate per line.
        let fits = |(value, _): &Described| value.starts_with(&*current) && !value.contains(char::is_control);
        matching.extend(values(&known).into_iter().filter(fits));
        let candidate =
            |(value, help): Described| CompletionCandidate::new(value).help(help.map(StyledStr::from));
        matching.into_iter().map(candidate).collect()
    })
}
