//! The command line: the whole clap tree, built from the table of runtimes; parsing and dispatch.

pub mod ask;
pub mod commands;
pub mod error;
pub mod models;
pub mod progress;
pub mod reporter;
pub mod run;
pub mod services;
pub mod terminal_filter;
pub mod ui;
pub mod units;

use std::ffi::OsString;
use std::io::Write as _;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Subcommand};

use crate::cli::error::{Exit, Failure};
use crate::cli::ui::{ColorChoice, Ui};
use crate::core::config::{Config, ConfigError};
use crate::core::paths::Paths;
use crate::core::process::signals;
use crate::core::process::unix::UnixDriver;
use crate::core::runtimes::{self, Runtime, Table};
use crate::env::Environment;

/// What every command gets.
pub struct Context {
    /// The process environment.
    pub environment: Environment,
    /// The runtimes there are.
    pub table: Table,
    /// Where things lie.
    pub paths: Paths,
    /// The streams.
    pub ui: Ui,
    /// The processes.
    pub driver: UnixDriver,
}

impl Context {
    /// The configuration, made with its defaults on first use. Where the file cannot be made, the defaults hold.
    pub fn config(&self) -> Result<Config, Failure> {
        match Config::load_sound(&self.paths.config_file(), self.table) {
            (config, None) => Ok(config),
            (config, Some(error @ ConfigError::Create { .. })) => {
                self.warn_of(error, "the defaults hold");
                Ok(config)
            }
            (_, Some(error)) => Err(error.into()),
        }
    }

    /// The configuration as far as it is sound, with a warning when it is broken: for commands that must work
    /// whatever the file says.
    pub fn sound_config(&self) -> Config {
        let (config, error) = Config::load_sound(&self.paths.config_file(), self.table);
        if let Some(error) = error {
            self.warn_of(error, "for the rest the defaults hold");
        }
        config
    }

    /// Warns of a configuration that cannot be used, and says what holds instead.
    pub fn warn_of(&self, error: ConfigError, consequence: &str) {
        let failure = Failure::from(error);
        let facts = [vec![failure.message], failure.causes].concat().join(": ");
        self.ui.warning(&format!("{facts}; {consequence}"));
    }
}

// The commands of one runtime. (A doc comment would become the description of every runtime.)
#[derive(Debug, Subcommand)]
enum RuntimeCommand {
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
    Run(Box<run::Args>),
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

// The commands that belong to no runtime.
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
                .about(format!("Start, stop, watch and prompt {}", runtime.title()))
                .defer(runtime_commands),
        );
    }
    GlobalCommand::augment_subcommands(command)
}

/// The commands of the runtime of which `command` is the name.
fn runtime_commands(command: Command) -> Command {
    let examples = run::examples(command.get_name());
    RuntimeCommand::augment_subcommands(command)
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

/// Parses, dispatches, prints what failed.
pub fn main(table: Table, arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(shell) = &environment.completing_shell {
        return complete(table, &environment, &shell.to_string_lossy(), &arguments);
    }
    let color = ColorChoice::find(&arguments);
    let (matches, answer) = match parse(table, arguments) {
        Ok(parsed) => parsed,
        Err(error) => return error::usage(&error, color, &environment),
    };
    let ui = Ui::new(&environment, &matches);
    if let Some(text) = answer {
        return ui.result(&text).map_or_else(|failure| ui.failure(&failure), |()| Exit::Done);
    }
    let result = Paths::discover(&environment).map_err(Failure::from).and_then(|paths| {
        dispatch(&Context { environment, table, paths, ui: ui.clone(), driver: UnixDriver::new() }, &matches)
    });
    match result {
        Ok(exit) => exit,
        Err(failure) => {
            let exit = ui.failure(&failure);
            if exit == Exit::Interrupted
                && let Some(signal) = signals::pending()
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

/// Tells a shell what may come next. It shows no message, so there is none.
fn complete(table: Table, environment: &Environment, shell: &str, arguments: &[OsString]) -> Exit {
    let candidates = commands::completions::candidates(table, environment, shell, arguments);
    let written = candidates.and_then(|candidates| std::io::stdout().write_all(&candidates).ok());
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
    let runtime =
        matches.subcommand().and_then(|(name, sub)| Some((runtimes::find(context.table, name)?, sub)));
    match runtime {
        Some((runtime, sub)) => runtime_command(context, runtime, sub),
        None => global_command(context, matches),
    }
}

fn runtime_command(
    context: &Context,
    runtime: &'static dyn Runtime,
    matches: &ArgMatches,
) -> Result<Exit, Failure> {
    match RuntimeCommand::from_arg_matches(matches)? {
        RuntimeCommand::Up(args) => commands::up::run(context, runtime, &args),
        RuntimeCommand::Down(args) => commands::down::run(context, runtime, &args),
        RuntimeCommand::Restart(args) => commands::restart::run(context, runtime, &args),
        RuntimeCommand::Ps(args) => commands::ps::run(context, runtime, &args),
        RuntimeCommand::Log(args) => commands::log::run(context, runtime, &args),
        RuntimeCommand::Health(args) => commands::health::run(context, runtime, &args),
        RuntimeCommand::Run(args) => run::run(context, runtime, &args),
        RuntimeCommand::Models(args) => commands::models::run(context, runtime, &args),
        RuntimeCommand::Pull(args) => commands::pull::run(context, runtime, &args),
        RuntimeCommand::Rm(args) => commands::rm::run(context, runtime, &args),
        RuntimeCommand::Show(args) => commands::show::run(context, runtime, &args),
        RuntimeCommand::Load(args) => commands::load::run(context, runtime, &args),
        RuntimeCommand::Unload(args) => commands::unload::run(context, runtime, &args),
        RuntimeCommand::Install(args) => commands::install::run(context, runtime, &args),
        RuntimeCommand::Uninstall(args) => commands::uninstall::run(context, runtime, &args),
        RuntimeCommand::Enable(args) => commands::enable::run(context, runtime, &args),
        RuntimeCommand::Disable(args) => commands::disable::run(context, runtime, &args),
    }
}

fn global_command(context: &Context, matches: &ArgMatches) -> Result<Exit, Failure> {
    match GlobalCommand::from_arg_matches(matches)? {
        GlobalCommand::Ps(args) => commands::ps::run_all(context, &args),
        GlobalCommand::Up(args) => commands::up::run_all(context, &args),
        GlobalCommand::Down(args) => commands::down::run_all(context, &args),
        GlobalCommand::Models(args) => commands::models::run_all(context, &args),
        GlobalCommand::Config(args) => commands::config::run(context, &args),
        GlobalCommand::Doctor(args) => commands::doctor::run(context, &args),
        GlobalCommand::Completions(args) => commands::completions::run(context, &args),
        GlobalCommand::Man(args) => commands::man::run(context, &args),
        GlobalCommand::RotateLog(Deferred(args)) => commands::rotate_log::run(context, &args),
    }
}
