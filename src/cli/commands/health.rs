//! `fusion <service> health`.

use crate::app::App;
use crate::app::views::HealthView;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::ui::printable;
use crate::core::services::ManagedService;

/// Generate one token and print how long it took
///
/// Works with a server that was started outside fusion, too. The first answer can take long: the server may have to
/// load the model.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// Model to use [default: the one the server was started with, else the one of `run`]
    #[arg(short, long)]
    model: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(
    context: &Context,
    app: &App,
    service: &ManagedService,
    args: &HealthArgs,
) -> Result<Exit, Failure> {
    let mut model = args.model.as_ref().map(|model| app.model(service, model).name);
    if model.is_none() && service.runtime().is_some() && service.settings.run.model.is_empty() {
        app.manager(&context.cancel).require_endpoint(service)?;
        model = Some(app.only_model(service, &context.cancel)?.name);
    }
    let health = app.manager(&context.cancel).health(service, model.as_deref())?;
    if args.json {
        context.ui.json(&HealthView::new(service, &health))?;
    } else {
        let (name, milliseconds) = (&service.name, health.latency.as_secs_f64() * 1000.0);
        let what = match &health.model {
            Some(model) => format!("one token of {}", printable(model)),
            None => "it answered".to_owned(),
        };
        context.ui.result(&format!("{name} is healthy: {what} in {milliseconds:.0} ms\n"))?;
    }
    Ok(Exit::Done)
}
