//! `fusion completions`: the scripts with which shells ask fusion for completions, and the candidates.

mod bash;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::Command;
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Elvish, EnvCompleter, Fish, Powershell, Zsh};

use crate::cli::context::Context;
use crate::cli::dispatch;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::instances;
use crate::core::aliases;
use crate::core::cancel::CancelToken;
use crate::core::config::Config;
use crate::core::models::ModelPlaces;
use crate::core::models::catalogue::Site;
use crate::core::paths::Paths;
use crate::core::runtimes::{Runtime, Table};
use crate::env::{COMPLETION_VARIABLE, Environment};

/// Print the completion script of a shell
///
/// Completes commands, options, the models on this machine, and the keys, aliases and saved prompts of your
/// configuration. Add the line for your shell to its startup file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = STARTUP_LINES)]
pub struct CompletionsArgs {
    /// Shell to print the script for
    shell: Shell,
}

const STARTUP_LINES: &str = "\
Line for the startup file of your shell:
  bash        eval \"$(fusion completions bash)\"
  zsh         source <(fusion completions zsh)
  fish        fusion completions fish | source
  elvish      eval (fusion completions elvish | slurp)
  powershell  fusion completions powershell | Out-String | Invoke-Expression";

/// Runs the command.
pub fn run(context: &Context, args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    completer(&args.shell.to_string())
        .ok_or_else(|| Failure::new(Exit::Failed, format!("no completions for {}", args.shell)))?
        .write_registration(COMPLETION_VARIABLE, "fusion", "fusion", "fusion", &mut script)
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    context.ui.result(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

fn completer(shell: &str) -> Option<&'static dyn EnvCompleter> {
    const ALL: [&dyn EnvCompleter; 5] = [&bash::Bash, &Elvish, &Fish, &Powershell, &Zsh];
    ALL.into_iter().find(|completer| completer.is(shell))
}

/// Returns what `shell` offers after `arguments`: the program's name, `--`, and the command line so far as the script of
/// the shell passes it.
///
/// Returns `None` for an unknown shell and for malformed arguments.
pub fn candidates(
    table: Table,
    environment: &Environment,
    shell: &str,
    arguments: &[OsString],
) -> Option<Vec<u8>> {
    let separator = arguments.iter().position(|argument| argument == "--")?;
    let words = arguments[separator + 1..].to_vec();
    let mut command = with_values(table, environment);
    let mut output = Vec::new();
    completer(shell)?
        .write_complete(&mut command, words, environment.current_dir.as_deref(), &mut output)
        .ok()?;
    Some(output)
}

/// Returns the tree with values from the configuration and the machine, which are looked up on demand. A completion never
/// writes anything, so the defaults apply if there is no valid configuration.
fn with_values(table: Table, environment: &Environment) -> Command {
    let config = existing_config(table, environment).unwrap_or_else(|| Config::default_for(table));
    let mut command = dispatch::command(table, &instances::of_config(table, &config));
    command.build();
    command = with_hidden_aliases(command);
    let known = Arc::new(ValueSources { table, config, environment: environment.clone() });
    for runtime in table {
        command = command.mut_subcommand(runtime.name(), |command| {
            command.mut_subcommands(|command| {
                command.mut_args(|argument| match (argument.get_id().as_str(), argument.get_long()) {
                    ("model", _) => argument.add(one_of(&known, |known| known.models(*runtime))),
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

/// The sources of values.
struct ValueSources {
    table: Table,
    config: Config,
    environment: Environment,
}

impl ValueSources {
    /// Returns aliases, the models that the configuration names, and those on this machine.
    fn models(&self, runtime: &'static dyn Runtime) -> Vec<String> {
        let prompts = self.config.prompts.values().filter_map(|prompt| prompt.model.clone());
        let own = self.config.service(runtime.name());
        let configured =
            own.into_iter().flat_map(|own| [Some(own.run.model.clone()), own.server.model.clone()]).flatten();
        let short = aliases::all(self.table, &self.config);
        short.into_iter().chain(prompts).chain(configured).chain(self.installed_models(runtime)).collect()
    }

    /// Returns the models on this machine, or none if their server takes too long: the shell is blocked meanwhile.
    fn installed_models(&self, runtime: &'static dyn Runtime) -> Vec<String> {
        const LIST_TIMEOUT: Duration = Duration::from_millis(300);
        let Some(catalogue) = runtime.catalogue() else { return Vec::new() };
        let Some(settings) = self.config.service(runtime.name()) else { return Vec::new() };
        let Ok(paths) = Paths::discover(&self.environment) else { return Vec::new() };
        let places = ModelPlaces::discover(&self.environment, &paths, &settings.server.env);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let address = settings.server.address();
            let site = Site {
                address: address.as_ref(),
                places: &places,
                program: None,
                search: None,
                env: &settings.server.env,
                load_timeout: LIST_TIMEOUT,
                cancel: &CancelToken::new(),
            };
            let names =
                catalogue.list(&site).map(|models| models.into_iter().map(|model| model.name).collect());
            // Fails after the timeout, when the receiver is gone.
            let _ = sender.send(names.unwrap_or_default());
        });
        receiver.recv_timeout(LIST_TIMEOUT).unwrap_or_default()
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

fn existing_config(table: Table, environment: &Environment) -> Option<Config> {
    let file = Paths::discover(environment).ok()?.config_file();
    file.exists().then(|| Config::load(&file, table).ok())?
}

fn one_of(
    known: &Arc<ValueSources>,
    values: impl Fn(&ValueSources) -> Vec<String> + Send + Sync + 'static,
) -> ArgValueCompleter {
    let known = Arc::clone(known);
    ArgValueCompleter::new(move |current: &OsStr| {
        let current = current.to_string_lossy();
        let mut matching = BTreeSet::new();
        // The shells expect one candidate per line.
        let fits = |value: &String| value.starts_with(&*current) && !value.contains(char::is_control);
        matching.extend(values(&known).into_iter().filter(fits));
        matching.into_iter().map(CompletionCandidate::new).collect()
    })
}
