//! `fusion <runtime> show`.

use std::fmt::Write as _;

use crate::app::App;
use crate::app::views::ModelView;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::ui::printable;
use crate::cli::units::{ago, bytes, count, grouped};
use crate::core::machine;
use crate::core::models::catalogue::{Details, Entry};
use crate::core::services::ManagedService;

/// Show details of a model
///
/// Shows size, format, license, context length, and an estimate of the memory it needs.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Name or alias of the model, or a directory
    #[arg(value_name = "NAME")]
    model: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Do not start the server
    #[arg(long)]
    no_up: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &ShowArgs) -> Result<Exit, Failure> {
    let models = app.models(service, &context.cancel)?;
    let shown = {
        let _cancelled = context.cancel_on_signal();
        models.show(&models.named(&args.model)?, !args.no_up)?
    };
    if args.json {
        context.ui.json(&shown)?;
    } else {
        context.ui.result(&text(&shown))?;
    }
    Ok(Exit::Done)
}

/// Writes one fact per line; leaves out what is unknown.
fn text(shown: &ModelView) -> String {
    let ModelView { details, aliases, machine_memory_bytes: machine, loaded_context, .. } = shown;
    let entry = &details.entry;
    let format = [entry.format.clone(), entry.quantization.clone()];
    let format: Vec<String> = format.into_iter().flatten().collect();
    let list = |items: &[String]| (!items.is_empty()).then(|| items.join(", "));
    let facts = [
        ("name", Some(entry.name.clone())),
        ("aliases", list(aliases)),
        ("state", state(entry)),
        ("architecture", details.architecture.clone()),
        ("parameters", details.parameters.map(count)),
        ("format", list(&format)),
        ("context", context(details, *loaded_context)),
        ("changed files", list(&entry.changed)),
        ("remote", entry.remote.then(|| "yes".to_owned())),
        ("size", entry.size_bytes.filter(|_| !entry.remote).map(bytes)),
        ("memory", memory(details, *machine)),
        ("license", details.license.clone()),
        ("chat template", details.chat_template.map(|has| if has { "yes" } else { "none" }.to_owned())),
        ("capabilities", list(&details.capabilities)),
        ("changed", entry.modified.map(|moment| ago(moment.age()))),
        ("last used", entry.last_used.map(|moment| ago(moment.age()))),
        ("path", details.path.as_ref().map(|path| path.display().to_string())),
    ];
    let mut text = String::new();
    for (name, fact) in facts {
        if let Some(fact) = fact {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:14} {}", printable(&fact).replace('\n', " "));
        }
    }
    text
}

/// Returns `131,072 tokens, loaded with 4,096`.
fn context(details: &Details, loaded: Option<u64>) -> Option<String> {
    let used = |words: &str, tokens: Option<u64>| Some(format!("{words} {}", grouped(tokens?)));
    let facts = [
        details.context_length.map(|tokens| format!("{} tokens", grouped(tokens))),
        used("loaded with", loaded).or_else(|| used("to be loaded with", details.load_context)),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    (!facts.is_empty()).then(|| facts.join(", "))
}

fn state(entry: &Entry) -> Option<String> {
    match (&entry.defects[..], entry.loaded) {
        ([], Some(true)) => Some("loaded".to_owned()),
        ([], _) => None,
        (defects, _) => Some(format!("unusable: {}", defects.join("; "))),
    }
}

/// Returns `about 2.3 GB (1.8 GB of weights, 4,096 tokens of context) of the 16 GB of this machine`.
fn memory(details: &Details, machine: Option<u64>) -> Option<String> {
    let memory = details.memory?;
    let mut text = format!(
        "about {} ({} of weights, {} tokens of context)",
        bytes(memory.bytes),
        bytes(memory.weight_bytes),
        grouped(memory.context_tokens)
    );
    if let Some(machine) = machine {
        let relation = if memory.bytes > machine { ", more than" } else { " of" };
        let _ = write!(text, "{relation} the {} of this machine", bytes(machine));
    }
    // Elsewhere the GPU has memory of its own, and a server may use both.
    if let Some(gpu) = machine::gpu_memory().filter(|_| cfg!(target_os = "macos")) {
        let relation = if memory.bytes > gpu.total { "only" } else { "about" };
        let _ = write!(text, "; the GPU can use {relation} {}", bytes(gpu.total));
    }
    Some(text)
}
