//! The clap tree, built from the table of runtimes; parsing and dispatch.

use std::ffi::OsString;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Subcommand};

use crate::app::Serve;
use crate::app::gateway::GATEWAY;
use crate::cli::commands;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::instances::{self, NamedService};
use crate::cli::terminal::signals;
use crate::cli::terminal::streams::Streams;
use crate::cli::terminal::ui::{ColorChoice, Ui};
use crate::core::cancel::CancelToken;
use crate::core::names::COMMANDS;
use crate::core::paths::Paths;
use crate::core::process::ProcessDriver;
use crate::core::runtimes::Table;
use crate::env::Environment;

// The commands of one service. (A doc comment would become the description of every service.)
#[derive(Debug, Subcommand)]
enum ServiceCommand {
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
enum GlobalCommand {
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
struct Deferred<A>(A);

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
    let mut command = Command::new("fusion")
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
        .args(global_arguments());
    for runtime in table {
        command = command.subcommand(
            Command::new(runtime.name())
                .visible_alias(runtime.alias())
                .about(format!("Start, stop, watch and prompt {}", runtime.display_name()))
                .defer(service_commands),
        );
    }
    let of = |has_runtime| if has_runtime { service_commands } else { program_commands };
    command = command.subcommands(instances.iter().map(|instance| instance.command(of)));
    let gateway = Command::new(GATEWAY).about("Start, stop and watch the gateway in the background");
    command = command.subcommand(gateway.defer(program_commands));
    let mut command = GlobalCommand::augment_subcommands(command);
    commands::config::hand_down(table, &mut command);
    command
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

/// Adds the commands of the service that `command` is named after.
fn service_commands(command: Command) -> Command {
    let name = command.get_name().to_owned();
    let command = ServiceCommand::augment_subcommands(command);
    EXAMPLES.iter().fold(command, |command, (subcommand, lines)| {
        let lines: Vec<String> = lines.iter().map(|line| line.replace("SERVICE", &name)).collect();
        let examples = format!("Examples:\n  {}\n", lines.join("\n  "));
        command.mut_subcommand(subcommand, |command| command.before_long_help(examples))
    })
}

/// The commands that only a model server has.
const OF_MODELS: [&str; 11] =
    ["run", "chat", "models", "pull", "rm", "show", "load", "unload", "search", "install", "uninstall"];

/// Like [`service_commands`], for a service that is no model server.
fn program_commands(command: Command) -> Command {
    OF_MODELS.iter().fold(service_commands(command), |command, name| {
        command.mut_subcommand(name, |command| command.hide(true))
    })
}

fn global_arguments() -> [Arg; 3] {
    let global = |name: &'static str| Arg::new(name).long(name).global(true).help_heading("Global options");
    [
        global("quiet").short('q').action(ArgAction::SetTrue).help("Print only results and errors"),
        global("verbose").short('v').action(ArgAction::SetTrue).help("Print details on stderr"),
        global("color")
            .value_name("WHEN")
            .value_parser(clap::value_parser!(ColorChoice))
            .default_value("auto")
            .hide_possible_values(true)
            .help("When to use colour: auto (on terminals), always, never"),
    ]
}

/// What a command line runs in: the real process, or the parts that a test supplies.
pub struct World {
    /// The runtimes that fusion knows.
    pub table: Table,
    pub environment: Environment,
    pub streams: Streams,
    pub driver: Arc<dyn ProcessDriver>,
    /// Cancelled by signals while one would leave work half done.
    pub cancel: CancelToken,
    /// Runs the gateway, which is another front end.
    pub serve: Serve,
}

/// Parses and runs one command line (`arguments` include the program's name), and prints its failure.
pub fn main(world: World, arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let World { table, environment, streams, driver, cancel, serve } = world;
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(shell) = &environment.completing_shell {
        return complete(table, &environment, &streams, &shell.to_string_lossy(), &arguments);
    }
    let color = ColorChoice::find(&arguments);
    let (instances, read_config) = instances::asked_for(table, &environment, &arguments);
    let (matches, text) = match parse(table, &instances, arguments) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error, color, &environment, &streams),
    };
    let ui = Ui::new(&environment, streams, &matches);
    if let Some(text) = text {
        return ui.result(&text).map_or_else(|failure| ui.failure(&failure), |()| Exit::Done);
    }
    if environment.stderr_is_terminal {
        signals::clean_terminal_on_death();
    }
    let paths = Paths::discover(&environment);
    let run = |paths| {
        let context =
            Context::new(environment, table, paths, ui.clone(), driver, cancel.clone(), read_config);
        dispatch(&context, serve, &matches)
    };
    match paths.map_err(Failure::from).and_then(run) {
        Ok(exit) => exit,
        Err(failure) => {
            let exit = ui.failure(&failure);
            if exit == Exit::Interrupted
                && let Some(signal) = signals::cause(&cancel)
            {
                signals::raise_again(signal);
            }
            exit
        }
    }
}

/// Returns the parsed arguments, and the version or help if that is all they ask for. The clap tree is dropped here: it
/// is the largest thing in memory, and nothing else needs it.
fn parse(
    table: Table,
    instances: &[NamedService],
    arguments: Vec<OsString>,
) -> Result<(ArgMatches, Option<String>), clap::Error> {
    let mut command = command(table, instances);
    if may_ask_for_help(&arguments) {
        // The descriptions of commands are in the parts that are built late.
        command.build();
    }
    let matches = command.try_get_matches_from_mut(arguments)?;
    let text = version_or_help(&mut command, &matches);
    Ok((matches, text))
}

/// Returns whether the help of a command may be asked for.
fn may_ask_for_help(arguments: &[OsString]) -> bool {
    let is_short = |text: &str| text.starts_with('-') && !text.starts_with("--") && text.contains('h');
    let mut words = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    words.any(|word| matches!(word, "help" | "--help") || is_short(word))
}

/// Prints clap's error for a wrong command line, or the help. clap's own printing obeys variables that fusion does not,
/// such as `CLICOLOR_FORCE`.
fn usage(error: &clap::Error, color: ColorChoice, environment: &Environment, streams: &Streams) -> Exit {
    let text = |is_terminal| match error.render() {
        text if color.colors(is_terminal, environment) => text.ansi().to_string(),
        text => text.to_string(),
    };
    if error.use_stderr() {
        // A closed stderr is not another failure.
        let _ = streams.error.write_all(text(environment.stderr_is_terminal).as_bytes());
        return Exit::Usage;
    }
    match streams.output.write_all(text(environment.stdout_is_terminal).as_bytes()) {
        // The reader has closed its end of the pipe.
        Err(failure) if failure.kind() != io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Done,
    }
}

/// Prints completion candidates for a shell. It prints no errors: the shell would not show them.
fn complete(
    table: Table,
    environment: &Environment,
    streams: &Streams,
    shell: &str,
    arguments: &[OsString],
) -> Exit {
    let candidates = commands::completions::candidates(command, table, environment, shell, arguments);
    let written = candidates.and_then(|candidates| streams.output.write_all(&candidates).ok());
    if written.is_some() { Exit::Done } else { Exit::Failed }
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

fn dispatch(context: &Context, serve: Serve, matches: &ArgMatches) -> Result<Exit, Failure> {
    match matches.subcommand() {
        Some((name, sub)) if name == GATEWAY => service_command(context, name, sub),
        Some((name, _)) if COMMANDS.contains(&name) => global_command(context, serve, matches),
        Some((name, sub)) => service_command(context, name, sub),
        None => global_command(context, serve, matches),
    }
}

fn service_command(context: &Context, name: &str, matches: &ArgMatches) -> Result<Exit, Failure> {
    use ServiceCommand as C;
    let command = ServiceCommand::from_arg_matches(matches)?;
    let app = match command {
        // Stopping must work with an invalid configuration.
        C::Down(_) => context.lenient_app(),
        // These need little of the configuration, so its errors do not matter.
        C::Log(_) | C::Install(_) | C::Uninstall(_) | C::Enable(_) | C::Disable(_) => {
            context.app_with(context.sound_config().0)
        }
        _ => context.app()?,
    };
    let no_service = || Failure::new(Exit::Usage, format!("there is no service {name}"));
    let service = if name == GATEWAY { Some(app.gateway()) } else { app.service(name) };
    let service = service.ok_or_else(no_service)?;
    let subcommand = matches.subcommand_name().unwrap_or_default();
    if service.runtime().is_none() && OF_MODELS.contains(&subcommand) {
        let template = service.template.name();
        return Err(Failure::new(
            Exit::Usage,
            format!("{name} is no model server: its template {template} is not a runtime"),
        )
        .hint(format!("see its commands: fusion {name} --help")));
    }
    match command {
        C::Up(args) => commands::up::run(context, &app, service, &args),
        C::Down(args) => commands::down::run(context, &app, service, &args),
        C::Restart(args) => commands::restart::run(context, &app, service, &args),
        C::Ps(args) => commands::ps::run(context, &app, service, &args),
        C::Log(args) => commands::log::run(context, &app, service, &args),
        C::Health(args) => commands::health::run(context, &app, service, &args),
        C::Run(args) => commands::run::run(context, &app, service, &args),
        C::Chat(args) => commands::chat::run(context, &app, Some(service), &args),
        C::Models(args) => commands::models::run(context, &app, service, &args),
        C::Pull(args) => commands::pull::run(context, &app, service, &args),
        C::Rm(args) => commands::rm::run(context, &app, service, &args),
        C::Show(args) => commands::show::run(context, &app, service, &args),
        C::Load(args) => commands::load::run(context, &app, service, &args),
        C::Unload(args) => commands::unload::run(context, &app, service, &args),
        C::Search(args) => commands::search::run(context, &app, Some(service), &args),
        C::Install(args) => commands::install::run(context, &app, service, &args),
        C::Uninstall(args) => commands::uninstall::run(context, &app, service, &args),
        C::Enable(args) => commands::enable::run(context, service, &args),
        C::Disable(args) => commands::disable::run(context, service, &args),
    }
}

fn global_command(context: &Context, serve: Serve, matches: &ArgMatches) -> Result<Exit, Failure> {
    use GlobalCommand as C;
    match GlobalCommand::from_arg_matches(matches)? {
        C::Ps(args) => commands::ps::run_all(context, &context.app()?, &args),
        C::Up(args) => commands::up::run_all(context, &context.app()?, &args),
        C::Down(args) => commands::down::run_all(context, &context.lenient_app(), &args),
        C::Chat(args) => commands::chat::run(context, &context.app()?, None, &args),
        C::Restart(args) => commands::restart::run_all(context, &context.app()?, &args),
        C::Log(args) => {
            // It needs little of the configuration, so its errors do not matter.
            commands::log::run_all(context, &context.app_with(context.sound_config().0), &args)
        }
        C::Run(args) => commands::run::run_any(context, &context.app()?, &args),
        C::Metrics(args) => commands::metrics::run(context, &context.app()?, &args),
        C::Templates(args) => commands::templates::run(context, &context.app()?, &args),
        C::Create(args) => commands::create::run(context, &args),
        C::Remove(args) => commands::remove::run(context, &context.app()?, &args),
        C::Enable(args) => commands::enable::run_named(context, &context.app()?, &args),
        C::Disable(args) => commands::disable::run_named(context, &context.app()?, &args),
        C::Top(args) => commands::top::run(context, &args),
        C::Launch(args) => commands::launch::run(context, &context.app()?, &args),
        C::Models(args) => commands::models::run_all(context, &context.app()?, &args),
        C::Search(args) => commands::search::run(context, &context.app()?, None, &args),
        C::Serve(args) => commands::serve::run(context, serve, &args),
        C::Config(args) => commands::config::run(context, &args),
        C::Doctor(args) => commands::doctor::run(context, &args),
        C::Completions(args) => commands::completions::run(context, &args),
        C::Man(args) => {
            let config = instances::existing_config(context.table, &context.environment);
            let named = config.map_or_else(Vec::new, |config| instances::of_config(context.table, &config));
            commands::man::run(context, &args, command(context.table, &named))
        }
        C::RotateLog(Deferred(args)) => commands::rotate_log::run(context, &args),
    }
}
