//! `fusion <runtime> models` and `fusion models`.

use crate::app::App;
use crate::app::views::{ModelRow, ModelsView};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::table::{TextTable, unknown};
use crate::cli::units::{ago, bytes};
use crate::core::aliases;
use crate::core::config::Config;
use crate::core::services::ManagedService;
use crate::core::sorted_map::SortedMap;

/// List the models on this machine
///
/// Shows size, format, when they were last used, and which are loaded.
#[derive(Debug, clap::Args)]
pub struct ModelsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Do not start the server
    #[arg(long)]
    no_up: bool,
}

/// List the models of every service, and the aliases of models
///
/// Starts no server. A service whose models only its server knows is skipped if it is not running.
#[derive(Debug, clap::Args)]
pub struct AllModelsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(
    context: &Context,
    app: &App,
    service: &ManagedService,
    args: &ModelsArgs,
) -> Result<Exit, Failure> {
    let rows = {
        let _cancelled = context.cancel_on_signal();
        app.models(service, &context.cancel)?.list(!args.no_up)?
    };
    let Some(rows) = rows else {
        return Err(app
            .manager(&context.cancel)
            .require_endpoint(service)
            .map_or_else(Failure::from, |_| {
                Failure::new(Exit::Failed, format!("{} has just started", service.name))
            }));
    };
    if args.json {
        context.ui.json(&rows)?;
    } else if rows.is_empty() {
        context.ui.note(&format!(
            "{} has no models; `fusion {} pull NAME` downloads one",
            service.template.display_name(),
            service.name
        ));
    } else {
        let mut table = table(&rows);
        table.remove_first_column();
        context.ui.result(&table.text(context.ui.screen_width()))?;
    }
    Ok(Exit::Done)
}

/// Runs the command for every service.
pub fn run_all(context: &Context, app: &App, args: &AllModelsArgs) -> Result<Exit, Failure> {
    let (mut all, mut exit) = (Vec::new(), Exit::Done);
    for service in app.services() {
        let Ok(models) = app.models(service, &context.cancel) else { continue };
        let name = &service.name;
        match models.list(false) {
            Ok(Some(rows)) => all.extend(rows),
            Ok(None) => context.ui.note(&format!(
                "{name} is not running, so its models are unknown; `fusion {name} up` starts it"
            )),
            Err(error) => {
                let failure = Failure::from(error).about(format!("cannot list the models of {name}"));
                exit = exit.or(context.ui.failure(&failure));
            }
        }
    }
    let meanings = meanings(context, &app.config);
    if args.json {
        context.ui.json(&ModelsView { models: &all, aliases: &meanings })?;
        return Ok(exit);
    }
    let screen = context.ui.screen_width();
    let models = if all.is_empty() { String::new() } else { table(&all).text(screen) + "\n" };
    context.ui.result(&(models + &alias_table(context, &meanings).text(screen)))?;
    Ok(exit)
}

/// Returns the model of each alias, by runtime.
fn meanings(context: &Context, config: &Config) -> SortedMap<String, SortedMap<&'static str, String>> {
    let mut all = SortedMap::new();
    for alias in aliases::all(context.table, config) {
        let mut meanings = SortedMap::new();
        for runtime in context.table {
            if let Some(model) = aliases::meaning(*runtime, config, &alias) {
                meanings.insert(runtime.name(), model.to_owned());
            }
        }
        all.insert(alias, meanings);
    }
    all
}

fn table(rows: &[ModelRow]) -> TextTable {
    let mut table = TextTable::new(&["SERVICE", "NAME", "SIZE", "FORMAT", "CHANGED", "LAST USED", "NOW"]);
    for row in rows {
        let entry = &row.entry;
        let size = if entry.remote { Some("remote".to_owned()) } else { entry.size_bytes.map(bytes) };
        let now = match (&entry.defects[..], entry.loaded, &entry.changed[..]) {
            ([first, ..], _, _) => format!("unusable: {first}"),
            ([], Some(true), _) => "loaded".to_owned(),
            ([], _, [first, ..]) => format!("changed: {first}"),
            ([], _, []) => String::new(),
        };
        table.row(&[
            row.service.to_string(),
            entry.name.clone(),
            size.unwrap_or_else(unknown),
            entry.quantization.clone().or_else(|| entry.format.clone()).unwrap_or_else(unknown),
            entry.modified.map_or_else(unknown, |moment| ago(moment.age())),
            entry.last_used.map_or_else(unknown, |moment| ago(moment.age())),
            now,
        ]);
    }
    table
}

fn alias_table(
    context: &Context,
    meanings: &SortedMap<String, SortedMap<&'static str, String>>,
) -> TextTable {
    let runtimes: Vec<&str> = context.table.iter().map(|runtime| runtime.name()).collect();
    let header = format!("alias {}", runtimes.join(" ")).to_uppercase();
    let mut table = TextTable::new(&header.split(' ').collect::<Vec<_>>());
    for (alias, meanings) in meanings {
        let mut row = vec![alias.clone()];
        for name in &runtimes {
            row.push(meanings.get(*name).cloned().unwrap_or_else(unknown));
        }
        table.row(&row);
    }
    table
}
