//! `fusion create`: a new service in the configuration.

use crate::cli::commands::config::directory_of_model;
use crate::cli::commands::up;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::config::edit::{self, NewInstance};
use crate::core::config::{Config, KeyPath};

/// Make a service from a template
///
/// Writes a table `[instances.NAME]` into the configuration. Comments and everything else stay as they are. Writes
/// nothing if the result would not be valid.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Name of the service: 1 to 32 lowercase letters, digits and hyphens
    name: String,
    /// Template: a runtime, or a table `[templates.NAME]` of the configuration
    #[arg(long, value_name = "TEMPLATE")]
    template: String,
    /// Port [default: chosen at the start]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Model: a name, an alias, or a directory
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Working directory of the process
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
    /// Tag for `--tag` of other commands (repeatable)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Variable in the environment of the process (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Start it
    #[arg(long)]
    up: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Runs the command.
pub fn run(context: &Context, args: &CreateArgs) -> Result<Exit, Failure> {
    let file = context.paths.config_file();
    let instance = instance(context, args)?;
    edit::create(&file, context.table, &instance)?;
    let CreateArgs { name, template, .. } = args;
    context.ui.result(&format!("{name} is an instance of {template}\n"))?;
    if !args.up {
        context.ui.hint(&format!("start it: fusion {name} up"));
        return Ok(Exit::Done);
    }
    let app = context.app_with(Config::load(&file, context.table)?);
    let no_service = || Failure::new(Exit::Failed, format!("{name} was removed meanwhile"));
    up::start(context, &app, app.service(name).ok_or_else(no_service)?)
}

fn instance(context: &Context, args: &CreateArgs) -> Result<NewInstance, Failure> {
    let key: KeyPath = "instances.x.model".parse()?;
    let model = args.model.as_ref().map(|model| {
        let directory = directory_of_model(context, &key, model);
        directory.as_deref().and_then(|path| path.to_str()).unwrap_or(model).to_owned()
    });
    Ok(NewInstance {
        name: args.name.clone(),
        template: args.template.clone(),
        port: args.port,
        model,
        working_dir: args.dir.as_ref().map(|directory| working_dir(context, directory)),
        tags: args.tags.clone(),
        env: args.env.clone(),
    })
}

/// Returns the directory as the configuration has it: absolute, unless it begins with what stands for another.
fn working_dir(context: &Context, directory: &str) -> String {
    let absolute = match &context.environment.current_dir {
        Some(current) if !directory.starts_with(['~', '$', '{']) => current.join(directory),
        _ => return directory.to_owned(),
    };
    let plain: std::path::PathBuf = absolute.components().collect();
    plain.to_str().map_or_else(|| directory.to_owned(), str::to_owned)
}
