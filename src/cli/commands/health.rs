//! `fusion <service> health`.

use crate::app::App;
use crate::app::ability::{Ability, AbilityTest};
use crate::app::views::HealthView;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::ui::printable;
use crate::core::services::{Health, ManagedService};

/// Generate one token and print how long it took
///
/// Works with a server that was started outside fusion, too. The first answer can take long: the server may have to
/// load the model. --tools, --schema and --vision then ask the model to show what it can do on this server; exit code 1
/// if it cannot.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct HealthArgs {
    /// Model to use [default: the one the server was started with, else the one of `run`]
    #[arg(short, long)]
    model: Option<String>,
    /// Check that the model calls a tool
    #[arg(long)]
    tools: bool,
    /// Check that answers satisfy a JSON Schema
    #[arg(long)]
    schema: bool,
    /// Check that the model sees images
    #[arg(long)]
    vision: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The examples of the help.
pub const EXAMPLES: [&str; 3] = [
    "fusion SERVICE health",
    "fusion SERVICE health --tools -m MODEL",
    "fusion SERVICE health --json | jq .latency_ms",
];

impl HealthArgs {
    /// Returns what the model is asked to show.
    fn abilities(&self) -> Vec<Ability> {
        let asked =
            [(self.tools, Ability::Tools), (self.schema, Ability::Schema), (self.vision, Ability::Vision)];
        asked.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, ability)| ability).collect()
    }
}

/// Runs the command.
pub fn run(
    context: &Context,
    app: &App,
    service: &ManagedService,
    args: &HealthArgs,
) -> Result<Exit, Failure> {
    let abilities = args.abilities();
    let health = app.health(service, args.model.as_deref(), &context.cancel)?;
    if !args.json {
        let (name, milliseconds) = (&service.name, health.latency.as_secs_f64() * 1000.0);
        let what = match &health.model {
            Some(model) => format!("one token of {}", printable(model)),
            None => "it answered".to_owned(),
        };
        context.ui.result(&format!("{name} is healthy: {what} in {milliseconds:.0} ms\n"))?;
    }
    let (mut shown, mut exit) = (Vec::new(), Exit::Done);
    for ability in abilities {
        let failure = ask(context, app, service, &health, ability)?;
        shown.push((ability, failure.is_none()));
        match failure {
            Some(failure) => exit = exit.or(context.ui.failure(&failure)),
            None if args.json => {}
            None => context.ui.result(&format!("{} {}\n", model_of(&health), does(ability)))?,
        }
    }
    if args.json {
        context.ui.json(&HealthView::new(service, &health, &shown))?;
    }
    Ok(exit)
}

/// Asks the model to show the ability; returns the failure to print if it cannot.
fn ask(
    context: &Context,
    app: &App,
    service: &ManagedService,
    health: &Health,
    ability: Ability,
) -> Result<Option<Failure>, Failure> {
    let model = health.model.as_deref().unwrap_or_default();
    context.ui.status(&format!("asking {model} {}", ability.question()));
    let test = app.test_ability(service, &health.endpoint.address, model, ability, &context.cancel)?;
    context.ui.clear_status();
    let AbilityTest::Failed { said } = test else { return Ok(None) };
    let (cannot, hint) = match ability {
        Ability::Tools => ("calls no tools", "choose a model that calls tools, such as qwen3:8b"),
        Ability::Schema => (
            "does not follow a JSON Schema",
            "ask for JSON in the prompt; `run --schema` checks every answer",
        ),
        Ability::Vision => ("sees no images", "choose a model that sees images, such as qwen2.5vl:7b"),
    };
    let said = if said.is_empty() { String::new() } else { format!("; it said: {said}") };
    let message = format!("{} {cannot} on {}{said}", model_of(health), service.name);
    Ok(Some(Failure::new(Exit::Failed, message).hint(hint)))
}

fn model_of(health: &Health) -> String {
    printable(health.model.as_deref().unwrap_or_default())
}

/// Returns what a model does that has shown the ability.
fn does(ability: Ability) -> &'static str {
    match ability {
        Ability::Tools => "calls tools",
        Ability::Schema => "follows a JSON Schema",
        Ability::Vision => "sees images",
    }
}
