//! Runs one command line: its arguments are parsed, and its command is called.

use std::ffi::OsString;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches as _};

use crate::app::Serve;
use crate::app::gateway::GATEWAY;
use crate::cli::commands;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::instances;
use crate::cli::terminal::signals;
use crate::cli::terminal::streams::Streams;
use crate::cli::terminal::ui::{ColorChoice, Ui};
use crate::cli::tree::{self, Deferred, GlobalCommand, OF_MODELS, ServiceCommand, is_option_of_models};
use crate::core::cancel::CancelToken;
use crate::core::names::COMMANDS;
use crate::core::paths::Paths;
use crate::core::process::ProcessDriver;
use crate::core::runtimes::Table;
use crate::env::Environment;

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
    let (matches, text) = match tree::parse(table, &instances, &arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            let hidden = instances::hidden(&instances, read_config.as_ref(), &arguments);
            let is_unknown = error.kind() == ErrorKind::InvalidSubcommand;
            let Some((fault, options)) = hidden.filter(|_| is_unknown) else {
                return usage(&error, color, &environment, &streams);
            };
            return match tree::parse(table, &[], options) {
                Ok((matches, _)) => {
                    Ui::new(&environment, streams, &matches).failure(&Failure::of_config(fault, usize::MAX))
                }
                Err(error) => usage(&error, color, &environment, &streams),
            };
        }
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
    let written = streams.output.write_all(text(environment.stdout_is_terminal).as_bytes());
    let Err(error) = written else { return Exit::Done };
    let failure = Failure::output(&error);
    // It has no message if the reader has closed its end of the pipe.
    if !failure.message.is_empty() {
        let text = format!("error: {}\n  caused by: {}\n", failure.message, failure.causes.join(", "));
        let _ = streams.error.write_all(text.as_bytes());
    }
    failure.exit
}

/// Prints completion candidates for a shell. It prints no errors: the shell would not show them.
fn complete(
    table: Table,
    environment: &Environment,
    streams: &Streams,
    shell: &str,
    arguments: &[OsString],
) -> Exit {
    let candidates = commands::completions::candidates(tree::command, table, environment, shell, arguments);
    let written = candidates.and_then(|candidates| streams.output.write_all(&candidates).ok());
    if written.is_some() { Exit::Done } else { Exit::Failed }
}

fn dispatch(context: &Context, serve: Serve, matches: &ArgMatches) -> Result<Exit, Failure> {
    match matches.subcommand() {
        Some((name, sub)) if name == GATEWAY => service_command(context, name, sub),
        Some((name, _)) if COMMANDS.contains(&name) => global_command(context, serve, matches),
        Some((name, sub)) => service_command(context, name, sub),
        None => global_command(context, serve, matches),
    }
}

/// Returns whether a command, or one of the options with which it was called, is about models.
fn is_of_models((command, matches): (&str, &ArgMatches)) -> bool {
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut options = matches.ids().map(clap::Id::as_str);
    OF_MODELS.contains(&command) || options.any(|id| is_option_of_models(command, id) && is_given(id))
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
    if service.runtime().is_none() && matches.subcommand().is_some_and(is_of_models) {
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
            commands::man::run(context, &args, tree::command(context.table, &named))
        }
        C::RotateLog(Deferred(args)) => commands::rotate_log::run(context, &args),
    }
}
