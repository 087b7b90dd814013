//! `fusion <runtime> health`.

use serde::Serialize;

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::core::runtimes::Runtime;

/// Generate one token, and say how long that took
///
/// Also with a server that somebody else started. The first answer may take long: the model may have to be loaded.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model to ask [default: the one it was started with, else the one of `run`]
    #[arg(short, long)]
    model: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Json<'a> {
    runtime: &'static str,
    address: String,
    model: &'a str,
    latency_ms: f64,
}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let model = args.model.as_ref().map(|model| context.model(&config, runtime, model).name);
    let health = context
        .with_services(&config, |manager| manager.health(&manager.service(runtime), model.as_deref()))?;
    let name = runtime.name();
    let milliseconds = health.latency.as_secs_f64() * 1000.0;
    if args.json {
        context.ui.json(&Json {
            runtime: name,
            address: health.endpoint.address.url(),
            model: &health.model,
            latency_ms: (milliseconds * 10.0).round() / 10.0,
        })?;
    } else {
        let model = crate::cli::ui::printable(&health.model);
        context.ui.result(&format!("{name} is healthy: one token of {model} in {milliseconds:.0} ms\n"))?;
    }
    Ok(Exit::Done)
}
