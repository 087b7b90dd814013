//! The clap tree, built from the table of runtimes; parsing and dispatch.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Subcommand};

use crate::cli::commands;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::signals;
use crate::cli::terminal::streams::Streams;
use crate::cli::terminal::ui::{ColorChoice, Ui};
use crate::core::cancel::CancelToken;
use crate::core::config::Config;
use crate::core::paths::Paths;
use crate::core::process::ProcessDriver;
use crate::core::runtimes::{self, Table};
use crate::env::Environment;

// The commands of one service. (A doc comment would become the description of every service.)
#[derive(Debug, Subcommand)]
enum ServiceCommand {
    Up(commands::up::Args),
    #[command(visible_alias = "d")]
    Down(commands::down::Args),
    Restart(commands::restart::Args),
    #[command(visible_alias = "p", alias = "status")]
    Ps(commands::ps::Args),
    #[command(visible_alias = "lg", alias = "logs")]
    Log(commands::log::Args),
    #[command(visible_alias = "hl")]
    Health(commands::health::Args),
    Run(Box<commands::run::Args>),
    Models(commands::models::Args),
    Pull(commands::pull::Args),
    Rm(commands::rm::Args),
    Show(commands::show::Args),
    Load(commands::load::Args),
    Unload(commands::unload::Args),
    Install(commands::install::Args),
    Uninstall(commands::uninstall::Args),
    Enable(commands::enable::Args),
    Disable(commands::disable::Args),
}

// The commands that belong to no single service.
#[derive(Debug, Subcommand)]
enum GlobalCommand {
    #[command(visible_alias = "p", alias = "status")]
    Ps(commands::ps::AllArgs),
    Up(commands::up::AllArgs),
    #[command(visible_alias = "d")]
    Down(commands::down::AllArgs),
    Models(commands::models::AllArgs),
    #[command(visible_alias = "cf")]
    Config(commands::config::Args),
    Doctor(commands::doctor::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
    #[command(hide = true)]
    RotateLog(Deferred<commands::rotate_log::Args>),
}

/// Arguments whose part of the tree is built when their command is given, not at every start. What the help of others
/// says of the command stands at its variant.
#[derive(Debug)]
struct Deferred<A>(A);

impl<A: clap::Args> clap::Args for Deferred<A> {
    fn augment_args(command: Command) -> Command {
        command.defer(A::augment_args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(A::augment_args_for_update)
    }
}

impl<A: FromArgMatches> FromArgMatches for Deferred<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        A::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

fn examples(table: Table) -> String {
    let name = |index: usize| table.get(index).map_or("RUNTIME", |runtime| runtime.name());
    let (first, second) = (name(0), name(1));
    format!(
        "Examples:\n  \
         fusion {first} up                    # started, and really answering\n  \
         fusion {second} run \"Why is the sky blue?\"\n  \
         git diff | fusion {first} run \"Write a commit message\" | git commit -F -\n"
    )
}

/// The whole command line.
pub fn command(table: Table) -> Command {
    let mut command = Command::new("fusion")
        .about("Start, stop, watch and prompt the language model servers on your own machine")
        .before_help(examples(table))
        .after_long_help(
            "Exit codes:\n  \
             0 done   1 failed   2 wrong command line or configuration   3 not running   4 not installed\n  \
             5 address taken   6 did not come up   7 model not there   8 request failed or broke off\n  \
             9 cut at the token limit (--strict)   124 timed out   130 interrupted",
        )
        .disable_version_flag(true)
        // The last one counts, so that what an alias gives can be overridden.
        .args_override_self(true)
        .arg(
            Arg::new("version")
                .short('V')
                .long("version")
                .action(ArgAction::SetTrue)
                .help("Print the version; with --verbose, the commit and target too"),
        )
        .args(global_arguments());
    for runtime in table {
        command = command.subcommand(
            Command::new(runtime.name())
                .visible_alias(runtime.alias())
                .about(format!("Start, stop, watch and prompt {}", runtime.display_name()))
                .defer(runtime_commands),
        );
    }
    GlobalCommand::augment_subcommands(command)
}

/// The commands of the runtime of which `command` is the name.
fn runtime_commands(command: Command) -> Command {
    let examples = commands::run::examples(command.get_name());
    ServiceCommand::augment_subcommands(command)
        .mut_subcommand("run", |command| command.before_long_help(examples))
}

fn global_arguments() -> [Arg; 3] {
    let global = |name: &'static str| Arg::new(name).long(name).global(true).help_heading("Global options");
    [
        global("quiet").short('q').action(ArgAction::SetTrue).help("Say only the result and what went wrong"),
        global("verbose").short('v').action(ArgAction::SetTrue).help("Say more on stderr"),
        global("color")
            .value_name("WHEN")
            .value_parser(clap::value_parser!(ColorChoice))
            .default_value("auto")
            .hide_possible_values(true)
            .help("Colour: auto (on terminals), always, never"),
    ]
}

/// What a command line runs in: the real world, or what a test hands over.
pub struct World {
    /// The runtimes there are.
    pub table: Table,
    /// The process environment.
    pub environment: Environment,
    /// Where it reads and writes.
    pub streams: Streams,
    /// The operating system.
    pub driver: Arc<dyn ProcessDriver>,
    /// Cancelled by the signals that end fusion.
    pub cancel: CancelToken,
}

/// Runs one command line (`arguments` include the program's own name): parses, dispatches, prints what failed.
pub fn main(world: World, arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let World { table, environment, streams, driver, cancel } = world;
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(shell) = &environment.completing_shell {
        return complete(table, &environment, &streams, &shell.to_string_lossy(), &arguments);
    }
    let color = ColorChoice::find(&arguments);
    let (matches, answer) = match parse(table, arguments) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error, color, &environment, &streams),
    };
    let ui = Ui::new(&environment, streams, &matches);
    if let Some(text) = answer {
        return ui.result(&text).map_or_else(|failure| ui.failure(&failure), |()| Exit::Done);
    }
    if environment.stderr_is_terminal {
        signals::clean_terminal_on_death();
    }
    let paths = Paths::discover(&environment);
    let run = |paths| {
        let context = Context::new(environment, table, paths, ui.clone(), driver, cancel.clone());
        dispatch(&context, &matches)
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

/// What the arguments say, and the text that answers them where parsing is all there is to do. The clap tree ends
/// here: it is the largest thing in memory, and nothing that follows needs it.
fn parse(table: Table, arguments: Vec<OsString>) -> Result<(ArgMatches, Option<String>), clap::Error> {
    let mut command = command(table);
    let matches = command.try_get_matches_from_mut(arguments)?;
    let answer = answered_by_parsing(&mut command, &matches);
    Ok((matches, answer))
}

/// Prints what clap says of a wrong command line, or the help that was asked for. Not left to clap, which obeys
/// variables that fusion does not know, such as `CLICOLOR_FORCE`.
fn usage(error: &clap::Error, color: ColorChoice, environment: &Environment, streams: &Streams) -> Exit {
    let text = |is_terminal| match error.render() {
        text if color.colors(is_terminal, environment) => text.ansi().to_string(),
        text => text.to_string(),
    };
    if error.use_stderr() {
        // A closed stderr is no other failure.
        let _ = streams.error.write_all(text(environment.stderr_is_terminal).as_bytes());
        return Exit::Usage;
    }
    match streams.output.write_all(text(environment.stdout_is_terminal).as_bytes()) {
        // A reader that has closed its end wants no more help.
        Err(failure) if failure.kind() != io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Done,
    }
}

/// Tells a shell what may come next. It shows no message, so there is none.
fn complete(
    table: Table,
    environment: &Environment,
    streams: &Streams,
    shell: &str,
    arguments: &[OsString],
) -> Exit {
    let candidates = commands::completions::candidates(table, environment, shell, arguments);
    let written = candidates.and_then(|candidates| streams.output.write_all(&candidates).ok());
    if written.is_some() { Exit::Done } else { Exit::Failed }
}

/// The version, or the short help of a command that needs a subcommand and got none.
fn answered_by_parsing(command: &mut Command, matches: &ArgMatches) -> Option<String> {
    if matches.get_flag("version") {
        return Some(version(matches.get_flag("verbose")));
    }
    match matches.subcommand() {
        None => Some(command.render_help().to_string()),
        Some((name, sub)) if sub.subcommand_name().is_none() => {
            let sub_command = command.find_subcommand_mut(name).filter(|found| found.has_subcommands())?;
            Some(sub_command.render_help().to_string())
        }
        Some(_) => None,
    }
}

fn version(verbose: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if verbose {
        format!("fusion {version}\ncommit: {}\ntarget: {}\n", env!("FUSION_COMMIT"), env!("FUSION_TARGET"))
    } else {
        format!("fusion {version}\n")
    }
}

fn dispatch(context: &Context, matches: &ArgMatches) -> Result<Exit, Failure> {
    match matches.subcommand() {
        Some((name, sub)) if runtimes::find(context.table, name).is_some() => {
            service_command(context, name, sub)
        }
        _ => global_command(context, matches),
    }
}

fn service_command(context: &Context, name: &str, matches: &ArgMatches) -> Result<Exit, Failure> {
    use ServiceCommand as C;
    let command = ServiceCommand::from_arg_matches(matches)?;
    let app = match command {
        // What stops or tells must work whatever the file says.
        C::Down(_) => context.lenient_app(),
        // The configuration says nothing about these but where a program is.
        C::Log(_) | C::Install(_) | C::Uninstall(_) | C::Enable(_) | C::Disable(_) => {
            context.app_with(Config::load_sound(&context.paths.config_file(), context.table).0)
        }
        _ => context.app()?,
    };
    let no_service = || Failure::new(Exit::Usage, format!("there is no service {name}"));
    let service = app.service(name).ok_or_else(no_service)?;
    match command {
        C::Up(args) => commands::up::run(context, &app, service, &args),
        C::Down(args) => commands::down::run(context, &app, service, &args),
        C::Restart(args) => commands::restart::run(context, &app, service, &args),
        C::Ps(args) => commands::ps::run(context, &app, service, &args),
        C::Log(args) => commands::log::run(context, &app, service, &args),
        C::Health(args) => commands::health::run(context, &app, service, &args),
        C::Run(args) => commands::run::run(context, &app, service, &args),
        C::Models(args) => commands::models::run(context, &app, service, &args),
        C::Pull(args) => commands::pull::run(context, &app, service, &args),
        C::Rm(args) => commands::rm::run(context, &app, service, &args),
        C::Show(args) => commands::show::run(context, &app, service, &args),
        C::Load(args) => commands::load::run(context, &app, service, &args),
        C::Unload(args) => commands::unload::run(context, &app, service, &args),
        C::Install(args) => commands::install::run(context, &app, service, &args),
        C::Uninstall(args) => commands::uninstall::run(context, &app, service, &args),
        C::Enable(args) => commands::enable::run(context, service, &args),
        C::Disable(args) => commands::disable::run(context, service, &args),
    }
}

fn global_command(context: &Context, matches: &ArgMatches) -> Result<Exit, Failure> {
    use GlobalCommand as C;
    match GlobalCommand::from_arg_matches(matches)? {
        C::Ps(args) => commands::ps::run_all(context, &context.app()?, &args),
        C::Up(args) => commands::up::run_all(context, &context.app()?, &args),
        C::Down(args) => commands::down::run_all(context, &context.lenient_app(), &args),
        C::Models(args) => commands::models::run_all(context, &context.app()?, &args),
        C::Config(args) => commands::config::run(context, &args),
        C::Doctor(args) => commands::doctor::run(context, &args),
        C::Completions(args) => commands::completions::run(context, &args),
        C::Man(args) => commands::man::run(context, &args),
        C::RotateLog(Deferred(args)) => commands::rotate_log::run(context, &args),
    }
}
