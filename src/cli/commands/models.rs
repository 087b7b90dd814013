//! `fusion <runtime> models` and `fusion models`.

use std::collections::BTreeMap;

use crate::app::App;
use crate::app::views::{ModelRow, ModelsView};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::ui::printable;
use crate::cli::units::{ago, bytes};
use crate::core::aliases;
use crate::core::config::Config;
use crate::core::services::ManagedService;

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
        context.ui.result(&table(&rows, false))?;
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
    let mut text = String::new();
    if !all.is_empty() {
        text = table(&all, true) + "\n";
    }
    context.ui.result(&(text + &alias_table(context, &meanings)))?;
    Ok(exit)
}

/// Returns the model of each alias, by runtime.
fn meanings(context: &Context, config: &Config) -> BTreeMap<String, BTreeMap<&'static str, String>> {
    let mut all = BTreeMap::new();
    for alias in aliases::all(context.table, config) {
        let mut meanings = BTreeMap::new();
        for runtime in context.table {
            if let Some(model) = aliases::meaning(*runtime, config, &alias) {
                meanings.insert(runtime.name(), model.to_owned());
            }
        }
        all.insert(alias, meanings);
    }
    all
}

fn table(rows: &[ModelRow], with_service: bool) -> String {
    let mut lines = vec![header(&["SERVICE", "NAME", "SIZE", "FORMAT", "CHANGED", "LAST USED", "NOW"])];
    lines.extend(rows.iter().map(|row| {
        let entry = &row.entry;
        let unknown = || "-".to_owned();
        let size = if entry.remote { Some("remote".to_owned()) } else { entry.size_bytes.map(bytes) };
        let now = match (&entry.defects[..], entry.loaded, &entry.changed[..]) {
            ([first, ..], _, _) => format!("unusable: {first}"),
            ([], Some(true), _) => "loaded".to_owned(),
            ([], _, [first, ..]) => format!("changed: {first}"),
            ([], _, []) => String::new(),
        };
        vec![
            row.service.to_string(),
            entry.name.clone(),
            size.unwrap_or_else(unknown),
            entry.quantization.clone().or_else(|| entry.format.clone()).unwrap_or_else(unknown),
            entry.modified.map_or_else(unknown, |moment| ago(moment.age())),
            entry.last_used.map_or_else(unknown, |moment| ago(moment.age())),
            now,
        ]
    }));
    if !with_service {
        for line in &mut lines {
            line.remove(0);
        }
    }
    aligned(&lines)
}

fn alias_table(context: &Context, meanings: &BTreeMap<String, BTreeMap<&'static str, String>>) -> String {
    let runtimes: Vec<&str> = context.table.iter().map(|runtime| runtime.name()).collect();
    let mut first = vec!["ALIAS".to_owned()];
    first.extend(runtimes.iter().map(|name| name.to_uppercase()));
    let mut lines = vec![first];
    lines.extend(meanings.iter().map(|(alias, meanings)| {
        let meaning = |name: &&str| meanings.get(*name).cloned().unwrap_or_else(|| "-".to_owned());
        std::iter::once(alias.clone()).chain(runtimes.iter().map(meaning)).collect()
    }));
    aligned(&lines)
}

fn header(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Pads every column to its widest cell, with two spaces in between.
pub(super) fn aligned(lines: &[Vec<String>]) -> String {
    let lines: Vec<Vec<String>> = lines
        .iter()
        .map(|line| line.iter().map(|cell| printable(cell).replace('\n', " ")).collect())
        .collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
