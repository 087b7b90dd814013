//! The clap tree, built from the table of runtimes, and what it makes of a command line.

use std::ffi::OsString;
use std::ops::Deref;

use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches, Subcommand};

use crate::app::gateway::GATEWAY;
use crate::cli::commands;
use crate::cli::instances::{self, NamedService};
use crate::cli::terminal::ui::ColorChoice;
use crate::core::runtimes::Table;

// The commands of one service. (A doc comment would become the description of every service.)
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    Up(Deferred<commands::up::UpArgs>),
    #[command(visible_alias = "d")]
    Down(Deferred<commands::down::DownArgs>),
    Restart(Deferred<commands::restart::RestartArgs>),
    #[command(visible_alias = "p", alias = "status")]
    Ps(Deferred<commands::ps::PsArgs>),
    #[command(visible_alias = "lg", alias = "logs")]
    Log(Deferred<commands::log::LogArgs>),
    #[command(visible_alias = "hl")]
    Health(Deferred<commands::health::HealthArgs>),
    Run(Deferred<Box<commands::run::RunArgs>>),
    Chat(Deferred<commands::chat::ChatArgs>),
    Models(Deferred<commands::models::ModelsArgs>),
    Pull(Deferred<commands::pull::PullArgs>),
    Rm(Deferred<commands::rm::RmArgs>),
    Show(Deferred<commands::show::ShowArgs>),
    Load(Deferred<commands::load::LoadArgs>),
    Unload(Deferred<commands::unload::UnloadArgs>),
    Search(Deferred<commands::search::SearchArgs>),
    Install(Deferred<commands::install::InstallArgs>),
    Uninstall(Deferred<commands::uninstall::UninstallArgs>),
    Enable(Deferred<commands::enable::EnableArgs>),
    Disable(Deferred<commands::disable::DisableArgs>),
}

// The commands for all services and for fusion itself.
#[derive(Debug, Subcommand)]
pub enum GlobalCommand {
    #[command(visible_alias = "p", alias = "status")]
    Ps(Deferred<commands::ps::AllPsArgs>),
    Up(Deferred<commands::up::AllUpArgs>),
    #[command(visible_alias = "d")]
    Down(Deferred<commands::down::AllDownArgs>),
    Chat(Deferred<commands::chat::ChatArgs>),
    Restart(Deferred<commands::restart::AllRestartArgs>),
    #[command(visible_alias = "lg", alias = "logs")]
    Log(Deferred<commands::log::AllLogArgs>),
    Run(Deferred<Box<commands::run::RunArgs>>),
    Metrics(Deferred<commands::metrics::MetricsArgs>),
    Templates(Deferred<commands::templates::TemplatesArgs>),
    Create(Deferred<commands::create::CreateArgs>),
    Remove(Deferred<commands::remove::RemoveArgs>),
    Enable(Deferred<commands::enable::EnableNamedArgs>),
    Disable(Deferred<commands::disable::DisableNamedArgs>),
    Top(Deferred<commands::top::TopArgs>),
    Launch(Deferred<commands::launch::LaunchArgs>),
    Models(Deferred<commands::models::AllModelsArgs>),
    #[command(
        before_long_help = "Examples:\n  fusion search qwen3\n  fusion search --fits --context 32k coder\n"
    )]
    Search(Deferred<commands::search::SearchArgs>),
    Serve(Deferred<commands::serve::ServeArgs>),
    #[command(visible_alias = "cf")]
    Config(commands::config::ConfigArgs),
    Doctor(Deferred<commands::doctor::DoctorArgs>),
    Completions(Deferred<commands::completions::CompletionsArgs>),
    Man(Deferred<commands::man::ManArgs>),
    #[command(hide = true)]
    RotateLog(Deferred<commands::rotate_log::RotateLogArgs>),
}

/// Arguments whose part of the tree is built only when their command is given, or when help is asked for: it keeps every
/// other start short.
#[derive(Debug)]
pub struct Deferred<A>(pub A);

impl<A: clap::Args> clap::Args for Deferred<A> {
    fn augment_args(command: Command) -> Command {
        command.defer(A::augment_args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<A: FromArgMatches> FromArgMatches for Deferred<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        A::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<A> Deref for Deferred<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.0
    }
}

fn examples(table: Table) -> String {
    let name = |index: usize| table.get(index).map_or("SERVICE", |runtime| runtime.name());
    let (first, second) = (name(0), name(1));
    format!(
        "Examples:\n  \
         fusion {first} up\n  \
         fusion {second} run \"Why is the sky blue?\"\n  \
         git diff | fusion {first} run \"Write a commit message\" | git commit -F -\n"
    )
}

/// Returns the tree of the whole command line; `instances` are the services that have commands beside the runtimes.
pub fn command(table: Table, instances: &[NamedService]) -> Command {
    let mut command = with_commands(program(table), table, instances);
    commands::config::hand_down(table, &mut command);
    command
}

/// Returns the root of the tree, without a command.
fn program(table: Table) -> Command {
    Command::new("fusion")
        .about("Start, stop, watch and prompt language model servers on your own machine")
        .before_help(examples(table))
        .after_long_help(
            "Exit codes:\n  \
             0 done   1 failed   2 wrong command line or configuration   3 not running   4 not installed\n  \
             5 port in use   6 did not come up   7 model missing   8 request failed or response broke off\n  \
             9 answer cut at the token limit (--strict)   124 timed out   130 interrupted",
        )
        .disable_version_flag(true)
        // The last occurrence of an option wins, so options in a shell alias can be overridden.
        .args_override_self(true)
        .arg(
            Arg::new("version")
                .short('V')
                .long("version")
                .action(ArgAction::SetTrue)
                .help("Print the version; with --verbose also the commit and target"),
        )
        .args(global_arguments())
}

/// Adds every command to `program`.
fn with_commands(mut program: Command, table: Table, instances: &[NamedService]) -> Command {
    for runtime in table {
        program = program.subcommand(
            Command::new(runtime.name())
                .visible_alias(runtime.alias())
                .about(format!("Start, stop, watch and prompt {}", runtime.display_name()))
                .defer(service_commands),
        );
    }
    program = program.subcommands(instances.iter().map(|instance| instance.command(commands_of)));
    let gateway = Command::new(GATEWAY).about("Start, stop and watch the gateway in the background");
    GlobalCommand::augment_subcommands(program.subcommand(gateway.defer(program_commands)))
}

/// Returns the tree with no other command than the one that `words` name, if they name one. clap hands the global
/// arguments to each command of a tree: in a whole one, that is half of what parsing costs.
fn branch(table: Table, instances: &[NamedService], words: &[&str]) -> Option<Command> {
    let Some((word, rest)) = words.split_first() else { return Some(program(table)) };
    let mut all = with_commands(Command::new("fusion"), table, instances);
    let mut command = std::mem::take(all.find_subcommand_mut(word)?);
    if let Some(commands) = commands_of_service(table, instances, command.get_name()) {
        let mut all = commands(Command::new(command.get_name().to_owned()));
        let found = std::mem::take(all.find_subcommand_mut(rest.first()?)?);
        // In place of what would add the others.
        command = command.defer(std::convert::identity).subcommand(found);
    }
    Some(program(table).subcommand(command))
}

/// What adds the commands of a service to its command.
type AddCommands = fn(Command) -> Command;

/// Returns what adds the commands of the service `name`, if there is one.
fn commands_of_service(table: Table, instances: &[NamedService], name: &str) -> Option<AddCommands> {
    let is_runtime = || table.iter().any(|runtime| runtime.name() == name).then_some(true);
    let of_instance =
        || instances.iter().find(|instance| instance.name == name).map(|found| found.has_runtime);
    let is_gateway = || (name == GATEWAY).then_some(false);
    is_runtime().or_else(of_instance).or_else(is_gateway).map(commands_of)
}

/// Returns what adds the commands of a model server, or of another service.
fn commands_of(has_runtime: bool) -> AddCommands {
    if has_runtime { service_commands } else { program_commands }
}

/// The examples at the top of the help of a command; `SERVICE` is replaced by the name of the service.
const EXAMPLES: [(&str, &[&str]); 8] = [
    ("up", &["fusion SERVICE up", "fusion SERVICE up --no-wait", "fusion SERVICE up --install -m MODEL"]),
    ("down", &["fusion SERVICE down", "fusion SERVICE down --timeout 60"]),
    ("ps", &["fusion SERVICE ps", "fusion SERVICE ps --watch", "fusion SERVICE ps --json | jq -r .state"]),
    ("log", &["fusion SERVICE log -n 50", "fusion SERVICE log -f", "less \"$(fusion SERVICE log --path)\""]),
    ("health", &commands::health::EXAMPLES),
    ("run", &commands::run::EXAMPLES),
    ("chat", &commands::chat::EXAMPLES),
    ("search", &commands::search::EXAMPLES),
];

/// Adds the commands of the model server that `command` is named after.
fn service_commands(command: Command) -> Command {
    with_service_commands(command, true)
}

/// Adds the commands of a service, with all examples or without those that name a model.
fn with_service_commands(command: Command, has_models: bool) -> Command {
    let name = command.get_name().to_owned();
    let command = ServiceCommand::augment_subcommands(command);
    EXAMPLES.iter().fold(command, |command, (subcommand, lines)| {
        let lines = lines.iter().filter(|line| has_models || !line.contains("MODEL"));
        let lines: Vec<String> = lines.map(|line| line.replace("SERVICE", &name)).collect();
        let examples = format!("Examples:\n  {}\n", lines.join("\n  "));
        command.mut_subcommand(subcommand, |command| command.before_long_help(examples))
    })
}

/// The commands that only a model server has.
pub const OF_MODELS: [&str; 11] =
    ["run", "chat", "models", "pull", "rm", "show", "load", "unload", "search", "install", "uninstall"];

/// The options of the other commands that are about models.
const OPTIONS_OF_MODELS: [&str; 6] = ["model", "install", "require_gpu", "tools", "schema", "vision"];

/// Returns whether an option of the command is about models.
pub fn is_option_of_models(command: &str, option: &str) -> bool {
    OPTIONS_OF_MODELS.contains(&option) || (command, option) == ("up", "force")
}

/// Like [`service_commands`], for a service that is no model server.
fn program_commands(command: Command) -> Command {
    with_service_commands(command, false).mut_subcommands(|command| match command.get_name() {
        "up" => command.defer(up_of_program),
        "health" => command.defer(health_of_program),
        name => {
            let is_of_models = OF_MODELS.contains(&name);
            command.hide(is_of_models)
        }
    })
}

fn up_of_program(command: Command) -> Command {
    without_options_of_models(commands::up::UpArgs::augment_args(command))
}

fn health_of_program(command: Command) -> Command {
    let command = without_options_of_models(commands::health::HealthArgs::augment_args(command));
    command.about("Check that the server is healthy").long_about(None)
}

fn without_options_of_models(command: Command) -> Command {
    let name = command.get_name().to_owned();
    command.mut_args(|argument| {
        let is_of_models = is_option_of_models(&name, argument.get_id().as_str());
        argument.hide(is_of_models)
    })
}

fn global_arguments() -> [Arg; 3] {
    let global = |name: &'static str| Arg::new(name).long(name).global(true).help_heading("Global options");
    [
        global("quiet").short('q').action(ArgAction::SetTrue).help("Print only results, warnings and errors"),
        global("verbose").short('v').action(ArgAction::SetTrue).help("Print details on stderr"),
        global("color")
            .value_name("WHEN")
            .value_parser(ColorChoice::WORDS)
            .default_value("auto")
            .hide_possible_values(true)
            .help("When to use colour: auto (on terminals), always, never"),
    ]
}

/// Returns the parsed arguments, and the version or help if that is all they ask for. The clap tree is dropped here: it
/// is the largest thing in memory, and nothing else needs it.
pub fn parse(
    table: Table,
    instances: &[NamedService],
    arguments: &[OsString],
) -> Result<(ArgMatches, Option<String>), clap::Error> {
    let asks_for_help = may_ask_for_help(arguments);
    if !asks_for_help && let Some(parsed) = parse_by_branch(table, instances, arguments) {
        return Ok(parsed);
    }
    let mut command = command(table, instances);
    if asks_for_help {
        // The descriptions of commands are in the parts that are built late.
        command.build();
    }
    let matches = command.try_get_matches_from_mut(arguments)?;
    let text = version_or_help(&mut command, &matches);
    Ok((matches, text))
}

/// Like [`parse`], with the tree of one command. `None` where that does not suffice: errors and help tell of others.
fn parse_by_branch(
    table: Table,
    instances: &[NamedService],
    arguments: &[OsString],
) -> Option<(ArgMatches, Option<String>)> {
    let words: Vec<&str> = instances::words(arguments).take(2).collect();
    let mut command = branch(table, instances, &words)?;
    let matches = command.try_get_matches_from_mut(arguments).ok()?;
    let is_enough = matches.get_flag("version") || matches.subcommand().is_some();
    is_enough.then(|| {
        let text = version_or_help(&mut command, &matches);
        (matches, text)
    })
}

/// Returns whether the help of a command may be asked for.
fn may_ask_for_help(arguments: &[OsString]) -> bool {
    let is_short = |text: &str| text.starts_with('-') && !text.starts_with("--") && text.contains('h');
    let mut words = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    words.any(|word| matches!(word, "help" | "--help") || is_short(word))
}

/// Returns the version, or the short help of a command whose subcommand is missing.
fn version_or_help(command: &mut Command, matches: &ArgMatches) -> Option<String> {
    if matches.get_flag("version") {
        return Some(version(matches.get_flag("verbose")));
    }
    match matches.subcommand() {
        None => Some(short_help(command)),
        Some((name, sub)) if sub.subcommand_name().is_none() => {
            // A command that also takes words of its own needs no subcommand.
            let needs_one =
                |found: &&mut Command| found.has_subcommands() && found.get_positionals().next().is_none();
            command.find_subcommand_mut(name).filter(needs_one).map(short_help)
        }
        Some(_) => None,
    }
}

/// Returns the short help of a command, whose subcommands are described in the parts that are built late.
fn short_help(command: &mut Command) -> String {
    command.build();
    command.render_help().to_string()
}

fn version(verbose: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if verbose {
        format!("fusion {version}\ncommit: {}\ntarget: {}\n", env!("FUSION_COMMIT"), env!("FUSION_TARGET"))
    } else {
        format!("fusion {version}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::runtimes::TABLE;

    fn arguments(line: &str) -> Vec<OsString> {
        std::iter::once("fusion").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    /// Returns what was parsed, without the names of the commands that the tree has.
    fn parsed(matches: &ArgMatches) -> String {
        let text = format!("{matches:?}");
        let mut parts = text.split("valid_subcommands: [");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |parsed, part| parsed + part.split_once(']').map_or(part, |(_, rest)| rest))
    }

    #[test]
    fn a_branch_parses_like_the_whole_tree() {
        let named = |name: &str, has_runtime| NamedService {
            name: name.to_owned(),
            template: "any".to_owned(),
            has_runtime,
        };
        let instances = [named("coder", true), named("web", false)];
        for line in [
            "-V",
            "-v --version",
            "ps",
            "p ollama --json",
            "--color never -q status",
            "ollama up -m m --timeout 5",
            "ol -v run --color always -- -V up",
            "coder chat -s ls",
            "web d --force",
            "gateway lg -n 3",
            "config set a.b 1",
            "cf get a.b",
            "chat ls",
        ] {
            let arguments = arguments(line);
            let (matches, text) = parse_by_branch(TABLE, &instances, &arguments).expect(line);
            let mut whole = command(TABLE, &instances);
            let expected = whole.try_get_matches_from_mut(&arguments).expect(line);
            assert_eq!(parsed(&matches), parsed(&expected), "{line}");
            assert_eq!(text, version_or_help(&mut whole, &expected), "{line}");
        }
    }

    #[test]
    fn errors_and_help_come_from_the_whole_tree() {
        for line in
            ["", "-q", "ollama", "ollama ups", "upp", "ps --jsn", "--bogus ps", "-- ps", "ollama --bogus up"]
        {
            assert!(parse_by_branch(TABLE, &[], &arguments(line)).is_none(), "{line}");
        }
    }
}
