//! `fusion <runtime> ps` and `fusion ps`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::cli::Context;
use crate::cli::commands::doctor::described;
use crate::cli::error::{Exit, Failure};
use crate::cli::reporter::who;
use crate::cli::ui::printable;
use crate::cli::units::{bytes, duration};
use crate::core::config::Config;
use crate::core::programs;
use crate::core::runtimes::Runtime;
use crate::core::services::{ServiceError, ServiceManager, StartedBy, State, Status};

/// Show what it is doing
///
/// Exit code 0 when it answers, 3 when it is not running, 1 otherwise.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    how: How,
}

/// Show what every runtime is doing
#[derive(Debug, clap::Args)]
pub struct AllArgs {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// Show it again and again, on a terminal, until interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// What `--json` prints. Names and types do not change between releases.
#[derive(Debug, Serialize)]
struct Json<'a> {
    runtime: &'static str,
    state: State,
    pid: Option<i64>,
    address: String,
    uptime_s: Option<u64>,
    memory_bytes: Option<u64>,
    cpu_percent: Option<f64>,
    models: Option<&'a [String]>,
    log: String,
    started_by: Option<StartedBy>,
    version: Option<&'a str>,
}

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    show(context, &[runtime], &args.how, |statuses| {
        let Some(status) = statuses.first() else { return Ok(()) };
        context.ui.json(&json(status))
    })
    .map(|statuses| statuses.first().map_or(Exit::Failed, |status| exit(status.state)))
}

/// Runs the command for every runtime.
pub fn run_all(context: &Context, args: &AllArgs) -> Result<Exit, Failure> {
    show(context, context.table, &args.how, |statuses| {
        context.ui.json(&statuses.iter().map(json).collect::<Vec<_>>())
    })?;
    Ok(Exit::Done)
}

fn exit(state: State) -> Exit {
    match state {
        State::Ready | State::External => Exit::Done,
        State::Stopped | State::Exited => Exit::NotRunning,
        State::Starting | State::Unhealthy => Exit::Failed,
    }
}

/// Looks and prints, once or again and again; the last that was seen.
fn show(
    context: &Context,
    runtimes: &[&'static dyn Runtime],
    how: &How,
    print_json: impl Fn(&[Status]) -> Result<(), Failure>,
) -> Result<Vec<Status>, Failure> {
    if how.watch && !context.ui.stdout_is_terminal {
        return Err(Failure::new(Exit::Usage, "--watch needs a terminal")
            .hint("without --watch, it prints what is going on now; --json is for programs"));
    }
    let config = context.config()?;
    let look = || {
        context.with_services(&config, |manager: &ServiceManager<'_>| {
            let services: Vec<_> = runtimes.iter().map(|runtime| manager.service(*runtime)).collect();
            let (seen, failed): (Vec<_>, Vec<_>) =
                manager.status_of_all(&services).into_iter().partition(Result::is_ok);
            let seen: Vec<Status> = seen.into_iter().flatten().collect();
            match failed.into_iter().find_map(Result::err) {
                Some(error) if seen.is_empty() => Err(error),
                Some(error) => {
                    context.ui.failure(&error.into());
                    Ok(seen)
                }
                None => Ok(seen),
            }
        })
    };
    if how.watch {
        return watch(look);
    }
    let statuses = look()?;
    if how.json {
        print_json(&statuses)?;
    } else {
        context.ui.result(&table(&statuses))?;
    }
    if context.ui.verbose {
        tell_programs(context, &config, runtimes);
    }
    Ok(statuses)
}

/// Says which program `up` would start.
fn tell_programs(context: &Context, config: &Config, runtimes: &[&'static dyn Runtime]) {
    let search = context.environment.path.as_deref();
    for runtime in runtimes {
        let found = programs::find(*runtime, &config.runtime(*runtime).server, &context.paths, search);
        context.ui.detail(&match found {
            Ok(program) => {
                let version = programs::version(*runtime, &program);
                format!("{}: {}", runtime.name(), described(*runtime, &program, version.as_deref()))
            }
            Err(error) => error.to_string(),
        });
    }
}

/// Until a signal ends it, or the terminal is gone.
fn watch(look: impl Fn() -> Result<Vec<Status>, ServiceError>) -> Result<Vec<Status>, Failure> {
    loop {
        let screen = in_place(&table(&look()?));
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(screen.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| Failure::output(&error))?;
        drop(stdout);
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// From the top of the screen, over what is there line by line, so that nothing flickers.
fn in_place(text: &str) -> String {
    let lines = text.lines().fold(String::new(), |lines, line| lines + line + "\x1b[K\n");
    format!("\x1b[H{lines}\x1b[J")
}

fn json(status: &Status) -> Json<'_> {
    let usage = status.usage.as_ref();
    Json {
        runtime: status.runtime,
        state: status.state,
        pid: status.pid.map(i64::from),
        address: status.address.url(),
        uptime_s: usage.map(|usage| usage.uptime.as_secs()),
        memory_bytes: usage.map(|usage| usage.memory_bytes),
        cpu_percent: usage.map(|usage| (usage.cpu_percent * 10.0).round() / 10.0),
        models: status.models.as_deref(),
        log: status.log.display().to_string(),
        started_by: status.started_by,
        version: status.version.as_deref(),
    }
}

const HEADER: [&str; 8] = ["RUNTIME", "STATE", "PID", "ADDRESS", "UPTIME", "MEMORY", "CPU", "MODELS"];

/// One row for each runtime, and under it what there is to say about it.
fn table(statuses: &[Status]) -> String {
    let rows: Vec<[String; 8]> = statuses.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADER[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    push_row(&mut text, &HEADER.map(str::to_owned), &widths);
    for (status, row) in statuses.iter().zip(&rows) {
        push_row(&mut text, row, &widths);
        for note in notes(status) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {}", printable(&note.replace('\n', " ")));
        }
    }
    text
}

fn push_row(text: &mut String, cells: &[String; 8], widths: &[usize; 8]) {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(line, "{cell:width$}  ");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn row(status: &Status) -> [String; 8] {
    let unknown = || "-".to_owned();
    let usage = status.usage.as_ref();
    let models = status.models.as_ref().map(|models| printable(&models.join(", ")).replace('\n', " "));
    [
        status.runtime.to_owned(),
        status.state.word().to_owned(),
        status.pid.map_or_else(unknown, |pid| pid.to_string()),
        status.address.url(),
        usage.map_or_else(unknown, |usage| duration(usage.uptime)),
        usage.map_or_else(unknown, |usage| bytes(usage.memory_bytes)),
        usage.map_or_else(unknown, |usage| format!("{:.0}%", usage.cpu_percent)),
        models.filter(|models| !models.is_empty()).unwrap_or_else(unknown),
    ]
}

/// What there is to say about a runtime beyond its row.
fn notes(status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    let name = status.runtime;
    if let Some(exited) = &status.exited {
        let ago = exited.last_sign.and_then(|then| SystemTime::now().duration_since(then).ok());
        let when = ago.map_or_else(String::new, |ago| format!(", about {} ago", duration(ago)));
        let last =
            exited.last_line.as_ref().map_or_else(String::new, |line| format!("; its last words: {line}"));
        notes.push(format!("it ended without `down`{when}{last}"));
    }
    if let Some(intruder) = &status.intruder {
        notes.push(format!("its address is taken by {}", who(intruder)));
    } else if let Some(trouble) = &status.trouble {
        notes.push(trouble.clone());
    }
    if status.configuration_changed {
        notes.push(format!(
            "the configuration has changed since it was started; `fusion {name} restart` applies it"
        ));
    }
    let is_in_trouble = matches!(status.state, State::Exited | State::Unhealthy);
    if is_in_trouble && status.started_by != Some(StartedBy::Other) {
        notes.push(format!("`fusion {name} log` shows its log"));
    }
    notes
}
