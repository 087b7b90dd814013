//! `fusion config`: the file shown, checked and changed.

pub(super) mod edit;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use clap::{ArgMatches, Command, FromArgMatches, Subcommand};

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::config::{Config, KeyPath, Located, edit as change};
use crate::core::models::{ModelPlaces, quoted};
use crate::core::runtimes::{Runtime, Table};
use crate::core::sorted_map::SortedMap;

/// What to do with the configuration.
#[derive(Debug)]
pub struct ConfigArgs {
    command: ConfigCommand,
}

// By hand, because what is derived cannot defer: every start of fusion would build the tree of these subcommands.
impl clap::Args for ConfigArgs {
    fn augment_args(command: Command) -> Command {
        command.about("Show, check and change the configuration").defer(subcommands)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ConfigArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { command: ConfigCommand::from_arg_matches(matches)? })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Gives the examples of `config set`, which name a runtime of `table`, to `config` in the tree `command`. A deferred
/// function can be handed nothing else.
pub fn hand_down(table: Table, command: &mut Command) {
    if let Some(config) = command.find_subcommand_mut("config") {
        *config = std::mem::take(config).after_long_help(set_examples(table));
    }
}

/// Adds the subcommands to `config`, which has the examples of `set`.
fn subcommands(config: Command) -> Command {
    let examples = config.get_after_long_help().cloned().unwrap_or_default();
    let mut config = ConfigCommand::augment_subcommands(config.after_long_help(None));
    if let Some(set) = config.find_subcommand_mut("set") {
        *set = std::mem::take(set).after_long_help(examples);
    }
    config
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Show(ConfigShowArgs),
    /// Print the path of the file
    Path,
    Edit(edit::ConfigEditArgs),
    Get(ConfigGetArgs),
    Set(ConfigSetArgs),
    Unset(ConfigUnsetArgs),
    /// Check the file and report every problem
    Check,
    Reset(ConfigResetArgs),
}

/// Print the file as it is
///
/// `gateway.token` is masked. Nothing else is left out: check it for secrets (in `env`) before you share it.
#[derive(Debug, clap::Args)]
struct ConfigShowArgs {
    /// Print every key with its current value, defaults included
    #[arg(long)]
    effective: bool,
    /// Print JSON; keys that are not set are null
    #[arg(long)]
    json: bool,
}

/// Print the current value of a key
///
/// Strings are printed without quotes, other values as in the file. A key that is not set and has no default is an
/// error (exit code 1).
#[derive(Debug, clap::Args)]
struct ConfigGetArgs {
    /// A dotted key, such as `prompts.review.temperature`
    key: String,
}

/// Set a key
///
/// Keeps comments and order. Refuses a value that is not valid.
///
/// A relative directory for a `model` is stored as an absolute path, if it exists in the current directory.
#[derive(Debug, clap::Args)]
struct ConfigSetArgs {
    /// A dotted key, such as `prompts.review.temperature`
    key: String,
    /// A string as it is, any other value as in the file
    #[arg(allow_hyphen_values = true)]
    value: String,
}

/// Returns examples that can be pasted.
fn set_examples(table: Table) -> String {
    let name = table.first().map_or("RUNTIME", |runtime| runtime.name());
    format!(
        "Examples:\n  \
         fusion config set {name}_server.port 11500\n  \
         fusion config set {name}_server.args '[\"--option\", \"value\"]'\n  \
         fusion config set {name}_server.env.NAME value\n  \
         fusion config set {name}_run.system_prompt \"Answer in one sentence.\"\n  \
         fusion config set aliases.small llama3.2:1b"
    )
}

/// Remove a key from the file, which restores its default
#[derive(Debug, clap::Args)]
struct ConfigUnsetArgs {
    /// A dotted key, or a whole saved prompt, such as `prompts.review`
    key: String,
}

/// Replace the file with a fresh one and keep a copy of the old one
#[derive(Debug, clap::Args)]
struct ConfigResetArgs {
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &ConfigArgs) -> Result<Exit, Failure> {
    match &args.command {
        ConfigCommand::Show(args) => show(context, args),
        ConfigCommand::Path => path(context),
        ConfigCommand::Edit(args) => edit::run(context, args),
        ConfigCommand::Get(args) => get(context, args),
        ConfigCommand::Set(args) => set(context, args),
        ConfigCommand::Unset(args) => unset(context, args),
        ConfigCommand::Check => check(context),
        ConfigCommand::Reset(args) => reset(context, args),
    }?;
    Ok(Exit::Done)
}

fn show(context: &Context, args: &ConfigShowArgs) -> Result<(), Failure> {
    let (ui, table) = (&context.ui, context.table);
    match (args.effective, args.json) {
        (true, false) => ui.result(&context.config()?.effective_toml(table)),
        (true, true) => ui.json(&context.config()?.effective_json(table)),
        (false, true) => ui.json(&Config::file_json(&context.paths.config_file(), table)?),
        (false, false) => {
            let (text, error) = Config::source(&context.paths.config_file(), table)?;
            if let Some(error) = error {
                context.warn_about(error, "this is what it would be");
            }
            match std::str::from_utf8(&text) {
                Ok(text) => ui.result_bytes(Config::masked(text).as_bytes()),
                Err(_) => ui.result_bytes(&text),
            }
        }
    }
}

fn path(context: &Context) -> Result<(), Failure> {
    let mut line = context.paths.config_file().into_os_string();
    line.push("\n");
    context.ui.result_bytes(line.as_bytes())
}

fn get(context: &Context, args: &ConfigGetArgs) -> Result<(), Failure> {
    let key: KeyPath = args.key.parse()?;
    let app = context.app()?;
    let Some(value) = app.config.value(context.table, &key)? else {
        let instance = key.instance_of_port().and_then(|name| app.service(name));
        let port = instance.and_then(|instance| app.manager(&context.cancel).usable_port(instance, None));
        let example = port.map(|port| port.to_string()).or_else(|| key.example(context.table));
        let example = example.map_or("VALUE".to_owned(), |value| quoted(&value));
        return Err(Failure::new(Exit::Failed, format!("`{key}` is not set, and has no default"))
            .hint(format!("set it: fusion config set {} {example}", quoted(&args.key))));
    };
    context.ui.result(&format!("{value}\n"))
}

fn set(context: &Context, args: &ConfigSetArgs) -> Result<(), Failure> {
    let key: KeyPath = args.key.parse()?;
    let directory = directory_of_model(context, &key, &args.value);
    let value = directory.as_deref().and_then(Path::to_str).unwrap_or(&args.value);
    Ok(change::set(&context.paths.config_file(), context.table, &key, value)?)
}

/// Returns the absolute path of a relative directory that is to be a model. Relative to the configuration, as it would
/// be read, it is another one.
pub(super) fn directory_of_model(context: &Context, key: &KeyPath, value: &str) -> Option<PathBuf> {
    let directory = context.environment.current_dir.as_ref()?.join(value);
    if !key.is_model() || value.is_empty() || Path::new(value).is_absolute() || !directory.is_dir() {
        return None;
    }
    let places = ModelPlaces::discover(&context.environment, &context.paths, &SortedMap::new());
    let takes_directories = |runtime: &&dyn Runtime| runtime.resolve_model(".", &places).name != ".";
    let mut runtimes = context.table.iter().copied();
    let is_directory = match key.runtime(context.table) {
        Some(runtime) => takes_directories(&runtime),
        None => runtimes.any(|runtime| takes_directories(&runtime)),
    };
    let is_plain = directory.components().all(|component| component != Component::ParentDir);
    let path = if is_plain { directory.components().collect() } else { directory.canonicalize().ok()? };
    is_directory.then_some(path)
}

fn unset(context: &Context, args: &ConfigUnsetArgs) -> Result<(), Failure> {
    let key: KeyPath = args.key.parse()?;
    if !change::unset(&context.paths.config_file(), context.table, &key)? {
        context.ui.note(&format!("`{key}` was not set"));
    }
    Ok(())
}

fn check(context: &Context) -> Result<(), Failure> {
    let file = context.paths.config_file();
    match Config::load(&file, context.table) {
        Ok(config) => {
            for (one, other) in config.shared_addresses() {
                context.ui.warning(&shared_address(&one, &other));
            }
            context.ui.result(&format!("{} is valid\n", file.display()))
        }
        Err(error) => Err(Failure::of_config(&error, usize::MAX)),
    }
}

/// Says that only one of two services can run at a time.
fn shared_address(one: &Located, other: &Located) -> String {
    format!(
        "{} and {} are both configured at {}; only one of them can run",
        one.service, other.service, other.address
    )
}

fn reset(context: &Context, args: &ConfigResetArgs) -> Result<(), Failure> {
    let file = context.paths.config_file();
    let question = format!("Replace {} with a fresh file, and keep a copy?", file.display());
    let yes = if args.yes { Some(true) } else { context.ask(&question, false) };
    match yes {
        Some(true) => {}
        Some(false) => return Err(Failure::new(Exit::Failed, "not reset")),
        None => {
            return Err(Failure::new(
                Exit::Usage,
                "not reset: there is no terminal to ask for confirmation on",
            )
            .hint("confirm it: fusion config reset --yes"));
        }
    }
    let backup = change::reset(&file, context.table)?;
    let kept = backup.map(|backup| format!("; the old file is {}", backup.display())).unwrap_or_default();
    context.ui.result(&format!("{} is reset{kept}\n", file.display()))
}
