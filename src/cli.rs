//! The command line: the whole clap tree, built from the table of runtimes; parsing and dispatch.

pub mod commands;
pub mod error;
pub mod run;
pub mod ui;

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches as _, Subcommand};

use crate::cli::error::{Exit, Failure};
use crate::cli::ui::{ColorChoice, Ui};
use crate::core::config::Config;
use crate::core::paths::Paths;
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
}

impl Context {
    /// The configuration, made with its defaults on first use.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.paths.config_file(), self.table)?)
    }
}

/// The commands of one runtime.
#[derive(Debug, Subcommand)]
enum RuntimeCommand {
    Up(commands::up::Args),
    Down(commands::down::Args),
    Restart(commands::restart::Args),
    #[command(visible_alias = "p", alias = "status")]
    Ps(commands::ps::Args),
    #[command(visible_alias = "lg", alias = "logs")]
    Log(commands::log::Args),
    #[command(visible_alias = "hl")]
    Health(commands::health::Args),
    Run(run::Args),
}

/// The commands that belong to no runtime.
#[derive(Debug, Subcommand)]
enum GlobalCommand {
    #[command(visible_alias = "p", alias = "status")]
    Ps(commands::ps::AllArgs),
    Up(commands::up::AllArgs),
    #[command(visible_alias = "d")]
    Down(commands::down::AllArgs),
    #[command(visible_alias = "cf")]
    Config(commands::config::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

/// The whole command line.
pub fn command(table: Table) -> Command {
    let mut command = Command::new("fusion")
        .about("Start, stop, watch and prompt the language model servers on your own machine")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .args(global_arguments());
    for runtime in table {
        let about = format!("Start, stop, watch and prompt {}", runtime.title());
        command = command.subcommand(
            Command::new(runtime.name())
                .visible_alias(runtime.alias())
                .about(about)
                .subcommand_required(true)
                .defer(RuntimeCommand::augment_subcommands),
        );
    }
    GlobalCommand::augment_subcommands(command)
}

fn global_arguments() -> [Arg; 3] {
    [
        Arg::new("quiet")
            .short('q')
            .long("quiet")
            .global(true)
            .action(ArgAction::SetTrue)
            .help("Say only what went wrong"),
        Arg::new("verbose")
            .short('v')
            .long("verbose")
            .global(true)
            .action(ArgAction::SetTrue)
            .help("Say more"),
        Arg::new("color")
            .long("color")
            .global(true)
            .value_name("WHEN")
            .value_parser(clap::value_parser!(ColorChoice))
            .default_value("auto")
            .help("Colour on terminals"),
    ]
}

/// Parses, dispatches, prints what failed.
pub fn main(table: Table, arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> Exit {
    let matches = match command(table).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return error::usage(&error),
    };
    let ui = Ui::new(&environment, &matches);
    let result = Paths::discover(&environment)
        .map_err(Failure::from)
        .and_then(|paths| dispatch(&Context { environment, table, paths, ui: ui.clone() }, &matches));
    match result {
        Ok(exit) => exit,
        Err(failure) => ui.failure(&failure),
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
    }
}

fn global_command(context: &Context, matches: &ArgMatches) -> Result<Exit, Failure> {
    match GlobalCommand::from_arg_matches(matches)? {
        GlobalCommand::Ps(args) => commands::ps::run_all(context, &args),
        GlobalCommand::Up(args) => commands::up::run_all(context, &args),
        GlobalCommand::Down(args) => commands::down::run_all(context, &args),
        GlobalCommand::Config(args) => commands::config::run(context, &args),
        GlobalCommand::Completions(args) => commands::completions::run(context, &args),
        GlobalCommand::Man(args) => commands::man::run(context, &args),
    }
}
