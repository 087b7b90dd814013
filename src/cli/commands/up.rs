//! `fusion <runtime> up` and `fusion up`.

use std::time::Duration;

use serde::Serialize;

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::cli::models::Models;
use crate::cli::units::seconds_from;
use crate::core::runtimes::Runtime;
use crate::core::services::{Endpoint, StartedBy, Up, UpKind, UpOptions};

/// Start it, and wait until it really answers
///
/// Does nothing where it is up already, also when somebody else has started it. A start that fails leaves no process
/// behind, only its log. A model that it is to be started with is downloaded first if it is not on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long it may take to be ready [default: `startup_timeout` of the configuration]
    #[arg(long, value_name = "SECS", value_parser = seconds_from::<0>)]
    timeout: Option<Duration>,
    /// Have this model loaded: a name, an alias, or a directory; downloaded first if it is missing
    #[arg(short, long, value_name = "MODEL", conflicts_with = "no_wait")]
    model: Option<String>,
    /// Return as soon as it is started; `ps` tells when it is ready
    #[arg(long)]
    no_wait: bool,
    /// Install its program first if it is missing, without asking
    #[arg(long)]
    install: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Start every runtime that has `auto_start` in the configuration
///
/// Each as `fusion RUNTIME up` does.
#[derive(Debug, clap::Args)]
pub struct AllArgs {
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Json {
    runtime: &'static str,
    /// As in `ps`: `ready`, `external`, or with `--no-wait` `starting`.
    state: &'static str,
    pid: Option<i64>,
    address: String,
    model: Option<String>,
    started_by: StartedBy,
    /// Whether this command has started it.
    started: bool,
}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let model = args.model.as_ref().map(|model| context.model(&config, runtime, model).name);
    let options = UpOptions { timeout: args.timeout, no_wait: args.no_wait, model };
    let mut up = context.up_with_model(&config, runtime, &options, args.install)?;
    if let Some(model) = &args.model
        && runtime.catalogue().is_some()
    {
        let models = Models::of(context, &config, runtime)?;
        up = models.have_loaded(&models.named(model), up)?;
    }
    tell(context, runtime, &up, args.json)?;
    Ok(Exit::Done)
}

/// Prints what was done.
pub(super) fn tell(context: &Context, runtime: &dyn Runtime, up: &Up, as_json: bool) -> Result<(), Failure> {
    if as_json { context.ui.json(&json(runtime, up)) } else { context.ui.result(&line(runtime, up)) }
}

/// Runs the command for every runtime that has `auto_start`. Neither one that fails nor a reader that goes away keeps
/// the others down.
pub fn run_all(context: &Context, args: &AllArgs) -> Result<Exit, Failure> {
    let config = context.config()?;
    let wanted = |runtime: &&&'static dyn Runtime| config.runtime(**runtime).server.auto_start;
    let wanted: Vec<_> = context.table.iter().filter(wanted).copied().collect();
    if wanted.is_empty() {
        let name = context.table.first().map_or("RUNTIME", |runtime| runtime.name());
        return Err(Failure::new(Exit::Usage, "no runtime has auto_start in the configuration").hint(format!(
            "`fusion {name} up` starts one; `fusion config set {name}_server.auto_start true` has `fusion up` start it"
        )));
    }
    let (mut done, mut exit) = (Vec::new(), Exit::Done);
    for runtime in wanted {
        let told = match context.up_with_model(&config, runtime, &UpOptions::default(), false) {
            Ok(up) if args.json => {
                done.push(json(runtime, &up));
                Ok(())
            }
            Ok(up) => tell(context, runtime, &up, false),
            Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = told {
            exit = exit.or(context.ui.failure(&failure));
        }
    }
    if args.json {
        context.ui.json(&done)?;
    }
    Ok(exit)
}

/// The one line on stdout.
fn line(runtime: &dyn Runtime, up: &Up) -> String {
    let Endpoint { address, pid, started_by, .. } = &up.endpoint;
    let pid = pid.map(|pid| format!("pid {pid}"));
    let stranger = (*started_by == StartedBy::Other).then(|| "not started by fusion".to_owned());
    let facts: Vec<String> = pid.into_iter().chain(stranger).collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    let does = if up.kind == UpKind::Launched { "is starting" } else { "is up" };
    format!("{} {does} at {}{facts}\n", runtime.name(), address.url())
}

fn json(runtime: &dyn Runtime, up: &Up) -> Json {
    let Endpoint { address, pid, model, started_by } = &up.endpoint;
    Json {
        runtime: runtime.name(),
        state: match up.kind {
            UpKind::Launched => "starting",
            UpKind::External => "external",
            UpKind::Started | UpKind::AlreadyUp => "ready",
        },
        pid: pid.map(i64::from),
        address: address.url(),
        model: model.clone(),
        started_by: *started_by,
        started: matches!(up.kind, UpKind::Started | UpKind::Launched),
    }
}
