//! `fusion doctor`: finds problems and prints how to fix them.

use std::path::Path;

use anstyle::{AnsiColor, Style};

use crate::app::views::{FindingView, Level};
use crate::cli::context::Context;
use crate::cli::error::{Failure, other_port};
use crate::cli::exit::Exit;
use crate::cli::terminal::ui::printable;
use crate::cli::units::bytes;
use crate::cli::words::variable_notice;
use crate::core::config::Config;
use crate::core::doctor::{Examination, Finding};
use crate::core::gpu::where_it_runs;
use crate::core::login::Session;
use crate::core::machine::Memory;
use crate::core::programs::{Program, Source};
use crate::core::services::{ManagedService, State, Status};

/// Find problems and show how to fix them
///
/// Checks the configuration, disk space, memory, and whether servers survive a logout; and for every service its
/// program and version, its state, and what listens on its port. Exit code 1 if there is a problem; a warning does not
/// change the exit code.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Print an array of objects, one for each finding
    ///
    /// Each has `check` (configuration, disk, memory, logout, program, service, gpu, address, login), `service` and
    /// `runtime` (null if it concerns all services), `level` (ok, warning, problem), `summary`, and `remedy` (null if
    /// there is nothing to do). Names and types do not change between releases.
    #[arg(long)]
    json: bool,
}

/// With less free disk space nothing can be installed or downloaded.
const DISK_PROBLEM_BYTES: u64 = 1_000_000_000;

/// With less free disk space few models can be downloaded.
const DISK_WARNING_BYTES: u64 = 10_000_000_000;

/// With less free memory hardly any model can be loaded.
const MEMORY_WARNING_BYTES: u64 = 2_000_000_000;

/// Begins a further line of the same finding.
const INDENT: &str = "\n         ";

/// Runs the command.
pub fn run(context: &Context, args: &DoctorArgs) -> Result<Exit, Failure> {
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
    let reports: Vec<FindingView> = findings.into_iter().map(report).collect();
    if args.json {
        context.ui.json(&reports)?;
    } else {
        context.ui.result(&page(&reports, context.ui.stdout_color))?;
    }
    let wrong = reports.iter().any(|report| report.level == Level::Problem);
    Ok(if wrong { Exit::Failed } else { Exit::Done })
}

fn page(reports: &[FindingView], color: bool) -> String {
    let lines = reports.iter().map(|report| {
        let (word, style) = match report.level {
            Level::Ok => ("ok", AnsiColor::Green.on_default()),
            Level::Warning => ("warning", AnsiColor::Yellow.on_default().bold()),
            Level::Problem => ("problem", AnsiColor::Red.on_default().bold()),
        };
        let style = if color { style } else { Style::new() };
        let service = report.service.as_ref().map(|service| format!("{service}: ")).unwrap_or_default();
        // Other programs decide the names of processes and the lines of logs.
        let summary = printable(&report.summary).replace('\n', INDENT);
        let remedy = report.remedy.as_ref().map(|remedy| format!("{INDENT}{}", printable(remedy)));
        format!("{style}{word:8}{style:#} {service}{summary}{}\n", remedy.unwrap_or_default())
    });
    lines.collect::<Vec<_>>().concat()
}

fn report(finding: Finding) -> FindingView {
    match finding {
        Finding::Configuration { path } => {
            FindingView::ok("configuration", format!("{} is valid", path.display()))
        }
        Finding::BrokenConfiguration(error) => {
            failed("configuration", &Failure::of_config(&error, usize::MAX), "fusion config edit".to_owned())
        }
        Finding::Disk { directory, free } => disk(&directory, free),
        Finding::Memory(memory) => self::memory(memory),
        Finding::Logout(session) => logout(session),
        Finding::Program { service, program, version, known } => {
            let summary = described(&service, &program, version.as_deref());
            let report = if known == Some(false) {
                let remedy =
                    format!("install a version that is known to work: fusion {} install", service.name);
                FindingView::warning("program", summary, remedy)
            } else {
                FindingView::ok("program", summary)
            };
            report.of(&service)
        }
        Finding::NoProgram { service, reason, needed, refused } => {
            let level = if needed { Level::Problem } else { Level::Warning };
            let install = format!("install it: fusion {} install", service.name);
            let failure = refused.map_or_else(|| Failure::of_program(&reason), Failure::from);
            FindingView { level, ..failed("program", &failure, install) }.of(&service)
        }
        Finding::NoWorkingDir { service, error } => {
            let edit = "fusion config edit".to_owned();
            failed("service", &Failure::from(error), edit).of(&service)
        }
        Finding::Unfinished { service, directory } => FindingView::warning(
            "program",
            format!("an installation was interrupted: {}", directory.display()),
            format!(
                "install it again: fusion {0} install; or remove its files: fusion {0} uninstall",
                service.name
            ),
        )
        .of(&service),
        Finding::Service { service, status, spare, installed } => match *status {
            Ok(status) => self::service(&service, &status, spare, installed).of(&service),
            Err(error) => {
                let log = format!("see the log: fusion {} log", service.name);
                failed("service", &Failure::from(error), log).of(&service)
            }
        },
        Finding::OnCpu { service, model, gpu_percent } => FindingView::warning(
            "gpu",
            format!("it runs {model} {}", where_it_runs(gpu_percent)),
            match gpu_percent {
                0 => "where there is a GPU, the log of the server tells why it is not used".to_owned(),
                _ => "free memory of the GPU, or choose a smaller model or a shorter context".to_owned(),
            },
        )
        .of(&service),
        Finding::Exposed { service, address } => FindingView::warning(
            "address",
            format!("{address} can be reached from other machines, and the server has no authentication"),
            format!(
                "listen on this machine only: fusion config set {}.host 127.0.0.1",
                service.server_table()
            ),
        )
        .of(&service),
        Finding::Variable { service, notice } => {
            let (summary, remedy) = variable_notice(&service.name, &notice);
            FindingView::warning("environment", summary, remedy).of(&service)
        }
        Finding::Application { service, path } => FindingView::warning(
            "application",
            format!("{} ends other servers of its kind and starts its own", path.display()),
            "remove it from the login items in System Settings".to_owned(),
        )
        .of(&service),
        Finding::AtLogin { service, file, lingers, is_switched_off } => {
            let summary = format!("starts at login ({})", file.display());
            match lingers {
                _ if is_switched_off => FindingView::warning(
                    "login",
                    format!(
                        "does not start at login: it is switched off in System Settings ({})",
                        file.display()
                    ),
                    format!("switch it on: fusion {} enable", service.name),
                ),
                Some(false) => FindingView::warning(
                    "login",
                    format!("{summary}, and is stopped at your last logout"),
                    "keep it running, and start it at boot: loginctl enable-linger".to_owned(),
                ),
                _ => FindingView::ok("login", summary),
            }
            .of(&service)
        }
    }
}

/// Returns a failure with its causes, each on a line; `otherwise` is the remedy if it has no hint.
fn failed(check: &'static str, failure: &Failure, otherwise: String) -> FindingView {
    FindingView::problem(check, failure.facts("\n"), failure.hint.clone().unwrap_or(otherwise))
}

fn disk(directory: &Path, free: Option<u64>) -> FindingView {
    let Some(free) = free else {
        return FindingView::ok(
            "disk",
            format!("the system does not report the free space in {}", directory.display()),
        );
    };
    let summary = format!("{} free in {}", bytes(free), directory.display());
    let remedy = "free some space: a model takes 1 to 50 GB".to_owned();
    if free < DISK_PROBLEM_BYTES {
        FindingView::problem("disk", summary, remedy)
    } else if free < DISK_WARNING_BYTES {
        FindingView::warning("disk", summary, remedy)
    } else {
        FindingView::ok("disk", summary)
    }
}

fn memory(memory: Option<Memory>) -> FindingView {
    let Some(Memory { total, available, .. }) = memory else {
        return FindingView::ok("memory", "the system does not report its memory".to_owned());
    };
    let summary = format!("{} of {} memory free", bytes(available), bytes(total));
    if available < MEMORY_WARNING_BYTES {
        return FindingView::warning("memory", summary, "see which services use it: fusion ps".to_owned());
    }
    FindingView::ok("memory", summary)
}

fn logout(session: Option<Session>) -> FindingView {
    match session {
        None if cfg!(target_os = "macos") => FindingView::warning(
            "logout",
            "servers keep running after your last logout, and may lose the GPU then".to_owned(),
            "restart them after the next login: fusion restart".to_owned(),
        ),
        None => FindingView::ok("logout", "servers keep running after you log out".to_owned()),
        Some(Session { kills: false, .. }) => {
            FindingView::ok("logout", "systemd keeps servers running after you log out".to_owned())
        }
        Some(Session { kills: true, .. }) => FindingView::problem(
            "logout",
            "systemd kills servers when you log out (KillUserProcesses=yes)".to_owned(),
            "start them outside the session: fusion SERVICE enable, then loginctl enable-linger".to_owned(),
        ),
    }
}

/// Returns name, version, source and path of a program, in words.
pub(super) fn described(service: &ManagedService, program: &Program, version: Option<&str>) -> String {
    let file = || program.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let own = service.runtime().map(|runtime| runtime.program().to_owned());
    let name = own.or_else(file).unwrap_or_else(|| service.name.to_string());
    let version = version.map(|version| format!(" {version}")).unwrap_or_default();
    let source = match program.source {
        Source::Configuration => "set in the configuration",
        Source::Installation => "installed by fusion",
        Source::Path => "on PATH",
    };
    format!("{name}{version}, {source}: {}", program.path.display())
}

fn service(service: &ManagedService, status: &Status, spare: Option<u16>, installed: bool) -> FindingView {
    let name = &service.name;
    let (address, port) = match &status.address {
        Some(address) => (address.to_string(), format!("port {}", address.port)),
        None => ("no address".to_owned(), "no port".to_owned()),
    };
    let process = status.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let state = status.state.word();
    match (status.state, &status.other_listener) {
        (State::Stopped | State::Exited, Some(listener)) => {
            let summary = format!("{state}, and {port} is in use by {listener}");
            let remedy = other_port("stop that program, or ", &service.server_table(), spare);
            let level = if installed { Level::Problem } else { Level::Warning };
            FindingView { level, ..FindingView::problem("address", summary, remedy) }
        }
        (State::Stopped, None) => match status.address {
            Some(_) => FindingView::ok("service", format!("{state}; {port} is free")),
            None => FindingView::ok("service", format!("{state}; its port is chosen at the start")),
        },
        (State::Exited, None) => {
            let last = status.exited.as_ref().and_then(|exited| exited.last_line.as_ref());
            let last = last.map(|line| format!("; last log line: {line}")).unwrap_or_default();
            FindingView::warning(
                "service",
                format!("the server ended without `down`{last}"),
                format!("see the log: fusion {name} log"),
            )
        }
        (State::Unhealthy, other) => {
            let why = match other {
                Some(listener) => format!("{port} is in use by {listener}"),
                None => status.trouble.clone().unwrap_or_else(|| "it does not respond".to_owned()),
            };
            let remedy = format!("see the log: fusion {name} log; restart it: fusion {name} restart");
            FindingView::problem("service", format!("{state}{process}: {why}"), remedy)
        }
        (State::External, _) => {
            FindingView::ok("service", format!("ready at {address}{process}, not started by fusion"))
        }
        (State::Starting | State::Ready, _) if status.changes.is_some() => FindingView::warning(
            "service",
            format!("{state} at {address}{process}, but the configuration has changed since the start"),
            format!("apply the configuration: fusion {name} restart"),
        ),
        (State::Starting | State::Ready, _) => {
            FindingView::ok("service", format!("{state} at {address}{process}"))
        }
    }
}
