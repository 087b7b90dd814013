//! `fusion completions`: the scripts by which shells ask fusion what may come next, and the answers.

use std::ffi::OsString;
use std::sync::Arc;

use clap::Command;
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{EnvCompleter, Shells};

use crate::cli::error::{Exit, Failure};
use crate::cli::{self, Context};
use crate::core::config::Config;
use crate::core::paths::Paths;
use crate::core::runtimes::{Runtime, Table};
use crate::env::{COMPLETION_VARIABLE, Environment};

/// Print the completion script of a shell
///
/// The script asks fusion itself what may come next, so it knows the models, aliases and prompts of your
/// configuration as well as the commands. Have your shell read it when it starts.
#[derive(Debug, clap::Args)]
#[command(after_long_help = WHERE)]
pub struct Args {
    /// The shell
    shell: Shell,
}

const WHERE: &str = "\
Where your shell starts:
  bash        source <(fusion completions bash)
  zsh         source <(fusion completions zsh)
  fish        fusion completions fish | source
  elvish      eval (fusion completions elvish | slurp)
  powershell  fusion completions powershell | Out-String | Invoke-Expression";

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    completer(&args.shell.to_string())
        .ok_or_else(|| Failure::new(Exit::Failed, format!("no completions for {}", args.shell)))?
        .write_registration(COMPLETION_VARIABLE, "fusion", "fusion", "fusion", &mut script)
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    context.ui.result(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

fn completer(shell: &str) -> Option<&'static dyn EnvCompleter> {
    Shells::builtins().0.iter().copied().find(|completer| completer.is(shell))
}

/// What `shell` offers after `arguments`: the program's name, `--`, and the words of the command line so far.
///
/// `None` when there is nothing to say: a shell that is not known, or a command line of another shape.
pub fn candidates(
    table: Table,
    environment: &Environment,
    shell: &str,
    arguments: &[OsString],
) -> Option<Vec<u8>> {
    let separator = arguments.iter().position(|argument| argument == "--")?;
    let words = arguments[separator + 1..].to_vec();
    let mut command = with_values(cli::command(table), table, environment);
    let mut output = Vec::new();
    completer(shell)?
        .write_complete(&mut command, words, environment.current_dir.as_deref(), &mut output)
        .ok()?;
    Some(output)
}

/// The tree, with the values that only the configuration knows. A completion never writes anything, so a
/// configuration that is not there yet, or does not parse, adds nothing.
fn with_values(mut command: Command, table: Table, environment: &Environment) -> Command {
    command.build();
    command = with_hidden_aliases(command);
    let config = existing_config(table, environment);
    let keys =
        config.as_ref().map_or_else(|| Config::default_for(table).keys(table), |config| config.keys(table));
    command = with_keys(command, &keys.into());
    let Some(config) = config else { return command };
    for runtime in table {
        let models: Arc<[String]> = models(&config, *runtime).into();
        let prompts: Arc<[String]> = config.prompts.keys().cloned().collect();
        command = command.mut_subcommand(runtime.name(), |command| {
            command.mut_subcommands(|command| {
                command.mut_args(|argument| match argument.get_long() {
                    Some("model") => argument.add(one_of(&models)),
                    Some("prompt") => argument.add(one_of(&prompts)),
                    _ => argument,
                })
            })
        });
    }
    command
}

/// The tree, with the keys of the configuration.
fn with_keys(command: Command, keys: &Arc<[String]>) -> Command {
    command.mut_subcommand("config", |command| {
        command.mut_subcommands(|command| {
            command.mut_args(|argument| match argument.get_id().as_str() {
                "key" => argument.add(one_of(keys)),
                _ => argument,
            })
        })
    })
}

/// The engine offers one name for each command, and of several visible ones not the one that help leads with.
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

/// The names by which the configuration calls models of `runtime`.
fn models(config: &Config, runtime: &dyn Runtime) -> Vec<String> {
    let own = config.runtime(runtime);
    let prompts = config.prompts.values().filter_map(|prompt| prompt.model.clone());
    let mut names: Vec<String> = config.aliases.keys().cloned().chain(prompts).collect();
    names.push(own.run.model.clone());
    names.extend(own.server.model.clone());
    names.sort();
    names.dedup();
    names
}

fn one_of(values: &Arc<[String]>) -> ArgValueCompleter {
    let values = Arc::clone(values);
    ArgValueCompleter::new(move |current: &std::ffi::OsStr| {
        let current = current.to_string_lossy();
        let matching = values.iter().filter(|value| value.starts_with(&*current));
        matching.map(CompletionCandidate::new).collect()
    })
}
