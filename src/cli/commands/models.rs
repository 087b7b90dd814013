//! `fusion <runtime> models` and `fusion models`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::cli::models::Models;
use crate::cli::ui::printable;
use crate::cli::units::{ago, bytes};
use crate::core::aliases;
use crate::core::config::Config;
use crate::core::models::catalogue::Entry;
use crate::core::runtimes::Runtime;
use crate::core::services::{State, Status};

/// List its models on this machine
///
/// What they take on the disk, how they are stored, when they were used last, and which is loaded now.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    /// Do not start the server, where only the server knows the models
    #[arg(long)]
    no_up: bool,
}

/// List the models of every runtime, and the short names for models
///
/// Nothing is started: a runtime whose models only its server knows is asked only if it runs. One that cannot tell is
/// an error, and the others are listed all the same.
#[derive(Debug, clap::Args)]
pub struct AllArgs {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

/// One model, as `--json` prints it. Fields are added, never changed or removed; unknown is null.
#[derive(Debug, Serialize)]
struct Row {
    /// The runtime.
    runtime: &'static str,
    /// Short names that mean this model.
    aliases: Vec<String>,
    #[serde(flatten)]
    entry: Entry,
}

/// What `fusion models --json` prints. Fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct AllJson<'a> {
    /// The models of every runtime that could be asked.
    models: &'a [Row],
    /// What each short name means, by runtime.
    aliases: BTreeMap<String, BTreeMap<&'static str, String>>,
}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let models = Models::of(context, &config, runtime)?;
    if models.needs_server() {
        models.endpoint(!args.no_up, None)?;
    }
    let rows = rows(context, &models, &models.status()?)?;
    if args.json {
        context.ui.json(&rows)?;
    } else if rows.is_empty() {
        context.ui.note(&format!(
            "{} has no models; `fusion {} pull NAME` downloads one",
            runtime.title(),
            runtime.name()
        ));
    } else {
        context.ui.result(&table(&rows, false))?;
    }
    Ok(Exit::Done)
}

/// Runs the command for every runtime.
pub fn run_all(context: &Context, args: &AllArgs) -> Result<Exit, Failure> {
    let config = context.config()?;
    let (mut all, mut exit) = (Vec::new(), Exit::Done);
    for runtime in context.table.iter().filter(|runtime| runtime.catalogue().is_some()) {
        let models = Models::of(context, &config, *runtime)?;
        let name = runtime.name();
        match known_rows(context, &models) {
            Ok(Some(rows)) => all.extend(rows),
            Ok(None) => context.ui.note(&format!(
                "{name} is not running, so its models are not known; `fusion {name} up` starts it"
            )),
            Err(failure) => {
                let failure = failure.about(format!("the models of {name} are not known"));
                exit = exit.or(context.ui.failure(&failure));
            }
        }
    }
    let meanings = meanings(context, &config);
    if args.json {
        context.ui.json(&AllJson { models: &all, aliases: meanings })?;
        return Ok(exit);
    }
    let mut text = String::new();
    if !all.is_empty() {
        text = table(&all, true) + "\n";
    }
    context.ui.result(&(text + &alias_table(context, &meanings)))?;
    Ok(exit)
}

/// The models of one runtime; `None` when only its server knows them, which is not running.
fn known_rows(context: &Context, models: &Models<'_>) -> Result<Option<Vec<Row>>, Failure> {
    let status = models.status()?;
    if models.needs_server() && matches!(status.state, State::Stopped | State::Exited) {
        return Ok(None);
    }
    rows(context, models, &status).map(Some)
}

/// The models of one runtime, by name; it is running if that is needed.
fn rows(context: &Context, models: &Models<'_>, status: &Status) -> Result<Vec<Row>, Failure> {
    let listed = models.work_at(&status.address, |catalogue, site| catalogue.list(site));
    let mut entries = listed.map_err(|error| Failure::of_model(models.runtime.name(), "", &error))?;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let loaded = models.loaded(status);
    // A directory of the user's is in no list, unless it is loaded.
    for name in loaded.iter().flatten().filter(|name| name.starts_with('/')) {
        if let Ok(details) = models.work_at(&status.address, |catalogue, site| catalogue.show(site, name)) {
            entries.push(details.entry);
        }
    }
    let row = |mut entry: Entry| {
        entry.loaded = entry.loaded.or_else(|| loaded.as_ref().map(|loaded| loaded.contains(&entry.name)));
        let aliases = aliases::of(context.table, models.runtime, models.config, &entry.name);
        Row { runtime: models.runtime.name(), aliases, entry }
    };
    Ok(entries.into_iter().map(row).collect())
}

/// What each alias means, by runtime.
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

fn table(rows: &[Row], with_runtime: bool) -> String {
    let mut lines = vec![header(&["RUNTIME", "NAME", "SIZE", "STORED AS", "CHANGED", "LAST USED", "NOW"])];
    lines.extend(rows.iter().map(|row| {
        let entry = &row.entry;
        let unknown = || "-".to_owned();
        let now = match (&entry.defects[..], entry.loaded) {
            ([first, ..], _) => format!("incomplete: {first}"),
            ([], Some(true)) => "loaded".to_owned(),
            ([], _) => String::new(),
        };
        vec![
            row.runtime.to_owned(),
            entry.name.clone(),
            entry.size_bytes.map_or_else(unknown, bytes),
            entry.quantization.clone().or_else(|| entry.format.clone()).unwrap_or_else(unknown),
            entry.modified.map_or_else(unknown, |moment| ago(moment.age())),
            entry.last_used.map_or_else(unknown, |moment| ago(moment.age())),
            now,
        ]
    }));
    if !with_runtime {
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

/// Columns as wide as their widest cell, two spaces between them.
fn aligned(lines: &[Vec<String>]) -> String {
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
