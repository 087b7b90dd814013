//! `fusion doctor`: what may be wrong, and what to do about it.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::ui::printable;
use crate::cli::units::bytes;
use crate::cli::words::who;
use crate::core::config::Config;
use crate::core::doctor::{Examination, Finding};
use crate::core::login::Session;
use crate::core::machine::Memory;
use crate::core::programs::{Program, Source};
use crate::core::services::{ManagedService, State, Status};

/// Look for what may be wrong, and say what to do about it
///
/// Looks at the configuration, disk and memory, what logging out does, and for every runtime at its program and
/// version, what it is doing, and who has its address. Exits with 1 if there is a problem; what is only worth knowing
/// is a warning.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print an array of objects, one for each finding
    ///
    /// `check` (configuration, disk, memory, logout, program, service, address, login), `service` and `runtime` (null for what
    /// concerns all of them), `level` (ok, warning, problem), `summary`, `remedy` (null where there is nothing to do).
    /// Names and types do not change between releases.
    #[arg(long)]
    json: bool,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// A finding in words. Fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Report {
    /// What was looked at: `configuration`, `disk`, `memory`, `logout`, `program`, `service`, `address`, `login`.
    check: &'static str,
    /// The service; null for what concerns all of them.
    service: Option<String>,
    runtime: Option<&'static str>,
    level: Level,
    /// What was found.
    summary: String,
    /// What to do about it; null where there is nothing to do.
    remedy: Option<String>,
}

/// Below this much free disk space nothing can be installed or downloaded, in bytes.
const DISK_PROBLEM: u64 = 1_000_000_000;

/// Below this much, few models can be downloaded, in bytes.
const DISK_WARNING: u64 = 10_000_000_000;

/// Below this much free memory hardly any model can be loaded, in bytes.
const MEMORY_WARNING: u64 = 2_000_000_000;

/// A further line of the same finding.
const INDENT: &str = "\n         ";

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let (config, broken) = Config::load_sound(&context.paths.config_file(), context.table);
    let app = context.app_with(config);
    let user = nix::unistd::getuid();
    let examination = Examination {
        services: app.services(),
        manager: &app.manager(&context.cancel),
        broken,
        places: super::enable::places(context).ok(),
        user: nix::unistd::User::from_uid(user).ok().flatten().map(|user| user.name),
    };
    let findings = examination.findings();
    let reports: Vec<Report> = findings.into_iter().map(report).collect();
    if args.json {
        context.ui.json(&reports)?;
    } else {
        context.ui.result(&page(&reports, context.ui.stdout_color))?;
    }
    let wrong = reports.iter().any(|report| report.level == Level::Problem);
    Ok(if wrong { Exit::Failed } else { Exit::Done })
}

fn page(reports: &[Report], color: bool) -> String {
    let lines = reports.iter().map(|report| {
        let (word, style) = match report.level {
            Level::Ok => ("ok", AnsiColor::Green.on_default()),
            Level::Warning => ("warning", AnsiColor::Yellow.on_default().bold()),
            Level::Problem => ("problem", AnsiColor::Red.on_default().bold()),
        };
        let style = if color { style } else { Style::new() };
        let service = report.service.as_ref().map(|service| format!("{service}: ")).unwrap_or_default();
        // Process names and log lines are whatever others made them.
        let summary = printable(&report.summary).replace('\n', INDENT);
        let remedy = report.remedy.as_ref().map(|remedy| format!("{INDENT}{}", printable(remedy)));
        format!("{style}{word:8}{style:#} {service}{summary}{}\n", remedy.unwrap_or_default())
    });
    lines.collect::<Vec<_>>().concat()
}

fn report(finding: Finding) -> Report {
    match finding {
        Finding::Configuration { path } => ok("configuration", format!("{} is sound", path.display())),
        Finding::BrokenConfiguration(error) => {
            failed("configuration", Failure::of_config(&error, usize::MAX), "fusion config edit".to_owned())
        }
        Finding::Disk { directory, free } => disk(&directory, free),
        Finding::Memory(memory) => self::memory(memory),
        Finding::Logout(session) => logout(session),
        Finding::Program { service, program, version, known } => {
            let summary = described(&service, &program, version.as_deref());
            let report = if known == Some(false) {
                let remedy = format!("fusion {} install, for a version that is known to work", service.name);
                warning("program", summary, remedy)
            } else {
                ok("program", summary)
            };
            report.of(&service)
        }
        Finding::NoProgram { service, reason, needed } => {
            let level = if needed { Level::Problem } else { Level::Warning };
            let install = format!("fusion {} install", service.name);
            Report { level, ..failed("program", Failure::of_program(&reason), install) }.of(&service)
        }
        Finding::Unfinished { service, directory } => warning(
            "program",
            format!("an installation was not finished: {}", directory.display()),
            format!("fusion {0} install; or, to remove what it left: fusion {0} uninstall", service.name),
        )
        .of(&service),
        Finding::Service { service, status, installed } => match *status {
            Ok(status) => self::service(&service, &status, installed).of(&service),
            Err(error) => {
                let log = format!("fusion {} log", service.name);
                failed("service", Failure::from(error), log).of(&service)
            }
        },
        Finding::Exposed { service, address } => warning(
            "address",
            format!("{address} can be reached from other machines, and asks nobody for a password"),
            format!("fusion config set {}_server.host 127.0.0.1", service.name),
        )
        .of(&service),
        Finding::AtLogin { service, file, lingers } => {
            let summary = format!("starts at login ({})", file.display());
            match lingers {
                Some(false) => warning(
                    "login",
                    format!("{summary}, and ends with your last logout"),
                    "if it is to stay and to start without a login: loginctl enable-linger".to_owned(),
                ),
                _ => ok("login", summary),
            }
            .of(&service)
        }
    }
}

/// A failure with its causes, each on a line; `otherwise` is done where it has no hint.
fn failed(check: &'static str, failure: Failure, otherwise: String) -> Report {
    let summary = [failure.message].into_iter().chain(failure.causes).collect::<Vec<_>>().join("\n");
    problem(check, summary, failure.hint.unwrap_or(otherwise))
}

fn disk(directory: &Path, free: Option<u64>) -> Report {
    let Some(free) = free else {
        return ok("disk", format!("the system does not tell how much space {} has", directory.display()));
    };
    let summary = format!("{} free in {}", bytes(free), directory.display());
    let remedy = "make room: models take from 1 to 50 GB each".to_owned();
    if free < DISK_PROBLEM {
        problem("disk", summary, remedy)
    } else if free < DISK_WARNING {
        warning("disk", summary, remedy)
    } else {
        ok("disk", summary)
    }
}

fn memory(memory: Option<Memory>) -> Report {
    let Some(Memory { total, available }) = memory else {
        return ok("memory", "the system does not tell how much memory it has".to_owned());
    };
    let summary = format!("{} of {} memory free", bytes(available), bytes(total));
    if available < MEMORY_WARNING {
        return warning("memory", summary, "fusion ps shows what the runtimes use".to_owned());
    }
    ok("memory", summary)
}

fn logout(session: Option<Session>) -> Report {
    match session {
        None => ok("logout", "nothing ends what was started when you log out".to_owned()),
        Some(Session { kills: false, .. }) => {
            ok("logout", "systemd leaves what was started alone when you log out".to_owned())
        }
        Some(Session { kills: true, .. }) => problem(
            "logout",
            "systemd kills what was started when you log out (KillUserProcesses=yes)".to_owned(),
            "have it started outside of the session: fusion RUNTIME enable, and loginctl enable-linger"
                .to_owned(),
        ),
    }
}

/// Which program it is, in words.
pub(super) fn described(service: &ManagedService, program: &Program, version: Option<&str>) -> String {
    let name =
        service.runtime().map_or_else(|| service.name.to_string(), |runtime| runtime.program().to_owned());
    let version = version.map(|version| format!(" {version}")).unwrap_or_default();
    let source = match program.source {
        Source::Configuration => "named by the configuration",
        Source::Installation => "installed by fusion",
        Source::Path => "on PATH",
    };
    format!("{name}{version}, {source}: {}", program.path.display())
}

fn service(service: &ManagedService, status: &Status, installed: bool) -> Report {
    let name = &service.name;
    let address = &status.address;
    let process = status.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let state = status.state.word();
    match (status.state, &status.other_listener) {
        (State::Stopped | State::Exited, Some(listener)) => {
            let summary = format!("{state}, and {address} belongs to {}", who(listener));
            let remedy = format!("end that, or take another port: fusion config set {name}_server.port PORT");
            let level = if installed { Level::Problem } else { Level::Warning };
            Report { level, ..problem("address", summary, remedy) }
        }
        (State::Stopped, None) => ok("service", format!("{state}; {address} is free")),
        (State::Exited, None) => {
            let last = status.exited.as_ref().and_then(|exited| exited.last_line.as_ref());
            let last = last.map(|line| format!("; its last words: {line}")).unwrap_or_default();
            warning("service", format!("it has ended by itself{last}"), format!("fusion {name} log"))
        }
        (State::Unhealthy, other) => {
            let why = match other {
                Some(listener) => format!("{address} belongs to {}", who(listener)),
                None => status.trouble.clone().unwrap_or_else(|| "it does not answer".to_owned()),
            };
            let remedy = format!("fusion {name} log tells more; fusion {name} restart");
            problem("service", format!("{state}{process}: {why}"), remedy)
        }
        (State::External, _) => {
            ok("service", format!("answers at {address}, and was not started by fusion{process}"))
        }
        (State::Starting | State::Ready, _) if status.configuration_changed => warning(
            "service",
            format!("{state} at {address}{process}, and the configuration has changed since it was started"),
            format!("fusion {name} restart"),
        ),
        (State::Starting | State::Ready, _) => ok("service", format!("{state} at {address}{process}")),
    }
}

fn ok(check: &'static str, summary: String) -> Report {
    Report { check, service: None, runtime: None, level: Level::Ok, summary, remedy: None }
}

fn warning(check: &'static str, summary: String, remedy: String) -> Report {
    Report { level: Level::Warning, remedy: Some(remedy), ..ok(check, summary) }
}

fn problem(check: &'static str, summary: String, remedy: String) -> Report {
    Report { level: Level::Problem, ..warning(check, summary, remedy) }
}

impl Report {
    fn of(self, service: &ManagedService) -> Self {
        let runtime = service.runtime().map(crate::core::runtimes::Runtime::name);
        Self { service: Some(service.name.to_string()), runtime, ..self }
    }
}
