//! Prints events on stderr: the subscriber of the command line.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::progress::DownloadProgress;
use super::ui::Ui;
use crate::cli::units::bytes;
use crate::cli::words::{changed_parts, variable_notice};
use crate::core::events::{Event, EventKind, Subscriber, VariableNotice};
use crate::core::gpu::where_it_runs;

/// Prints events: passing ones on the status line of a terminal, lasting ones in lines.
pub struct Reporter {
    ui: Ui,
    state: Mutex<ReporterState>,
}

#[derive(Default)]
struct ReporterState {
    /// Elapsed time of the wait when it was last printed in a line.
    printed: Duration,
    /// Unfinished downloads, by model.
    downloads: Vec<(String, DownloadProgress)>,
}

/// How often a wait is printed without a status line.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

impl Reporter {
    pub fn new(ui: &Ui) -> Self {
        Self { ui: ui.clone(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, ReporterState> {
        // The state stays valid if another thread panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows `text` on the status line; without one, prints it only with `--verbose`.
    fn passing(&self, text: &str) {
        if self.ui.redraws() { self.ui.status(text) } else { self.ui.detail(text) }
    }

    fn waiting(&self, service: &str, elapsed: Duration, last: &str) {
        let text = format!("{service} is starting, {} s: {last}", elapsed.as_secs());
        if self.ui.redraws() {
            return self.ui.status(&text);
        }
        let mut state = self.state();
        // A new wait has started.
        if elapsed < state.printed {
            state.printed = Duration::ZERO;
        }
        if elapsed >= state.printed + LINE_INTERVAL {
            state.printed = elapsed;
            self.ui.note(&text);
        }
    }

    fn downloading(&self, model: &str, work: &dyn Fn(&mut DownloadProgress)) {
        let mut state = self.state();
        let known = state.downloads.iter().position(|(name, _)| name == model);
        let place = known.unwrap_or_else(|| {
            state.downloads.push((model.to_owned(), DownloadProgress::new(&self.ui, model)));
            state.downloads.len() - 1
        });
        work(&mut state.downloads[place].1);
    }

    fn warn_of_variable(&self, name: &str, notice: &VariableNotice) {
        let (what, remedy) = variable_notice(name, notice);
        self.ui.warning(&format!("{what}; {remedy}"));
    }

    fn download_ended(&self, model: &str) {
        self.state().downloads.retain(|(name, _)| name != model);
        self.ui.clear_status();
    }
}

impl Subscriber for Reporter {
    fn event(&self, event: &Event) {
        let (ui, name) = (&self.ui, &event.service);
        match &event.kind {
            EventKind::WaitingForLock { holder } => {
                let holder = holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                ui.note(&format!("waiting for another fusion command{holder} that is changing {name}"));
            }
            EventKind::Started { pid } => self.passing(&format!("{name} is starting (pid {pid})")),
            EventKind::Waiting { elapsed, last } => self.waiting(name, *elapsed, last),
            EventKind::Stopping { pid } => self.passing(&format!("stopping {name} (pid {pid})")),
            EventKind::Killing { pid } => {
                ui.warning(&format!("{name} (pid {pid}) did not stop in time and is killed"));
            }
            EventKind::Exposed { address } => {
                let danger = "the server has no authentication: anyone who can reach this address can use it";
                ui.warning(&format!("{name} listens on {address}: {danger}"));
            }
            EventKind::MemoryTight { model, needed, free } => ui.warning(&format!(
                "{model} needs about {}, and {} of memory are free; the machine may swap, or the load may fail",
                bytes(*needed),
                bytes(*free)
            )),
            EventKind::OnCpu { model, gpu_percent } => {
                ui.warning(&format!("{name} runs {model} {}", where_it_runs(*gpu_percent)));
            }
            EventKind::Variable { notice } => self.warn_of_variable(name, notice),
            EventKind::HandedOn { names } => ui.detail(&format!("{name} inherits {}", names.join(", "))),
            EventKind::GpuUnknown { tells } => ui.warning(&gpu_unknown(name, *tells)),
            EventKind::ConfigurationChanged { parts } => ui.warning(&format!(
                "the configuration of {name} has changed since the start{}; apply it: fusion {name} restart",
                changed_parts(parts)
            )),
            EventKind::ConfigChanged { message: None, .. } => ui.note("the configuration was read again"),
            EventKind::ConfigChanged { message: Some(message), .. } => {
                ui.warning(&format!("the configuration stays as it was: {message}"));
            }
            EventKind::StopCommandFailed { command, why } => {
                ui.warning(&format!("the stop_command of {name}, {command}, failed: {why}"));
            }
            EventKind::AddressShared { address, other } => {
                ui.warning(&format!("{other} is configured at {address}, too; only one of them can run"));
            }
            EventKind::PortInUse { address, listener } => {
                ui.warning(&format!(
                    "{name} is down, and port {} is now in use by {}",
                    address.port,
                    listener
                ));
            }
            EventKind::Orphaned => {
                ui.warning(&format!("{name} died and left processes running; stopping them first"));
            }
            EventKind::ExternalWithoutModel { message } => {
                ui.warning(&format!("{name} did not generate with its own model: {message}"));
            }
            EventKind::ModelNotRecorded { model, error } => {
                ui.warning(&format!("`fusion ps` will not show that {model} is loaded: {error}"));
            }
            EventKind::RecordIgnored { error } => ui.warning(&format!("{error}; the record is ignored")),
            EventKind::Installing { what, with, directory } => {
                ui.note(&installing(what, with, directory.as_deref()));
            }
            EventKind::DeveloperToolsOffered => {
                ui.note("macOS may offer to install developer tools: cancel that, they are not needed");
            }
            EventKind::CheckingInstallation => ui.note("starting the program once to check that it works"),
            EventKind::Installed { version: Some(version), path } => {
                ui.note(&format!("{name} {version} is installed in {}", path.display()));
            }
            EventKind::Installed { version: None, path } => {
                ui.note(&format!("{name} is installed: {}", path.display()));
            }
            EventKind::DownloadStage { model, stage } => {
                self.downloading(model, &|progress| progress.stage(stage));
            }
            EventKind::Downloaded { model, bytes, total } => {
                self.downloading(model, &|progress| progress.bytes(*bytes, *total));
            }
            EventKind::DownloadEnded { model } => self.download_ended(model),
            EventKind::ModelReplaced { loaded, model } => {
                ui.note(&format!("{name} loads {model} in place of {loaded}"));
            }
            EventKind::StartedOnDemand { is_starting } => ui.note(&on_demand(name, *is_starting)),
            EventKind::LogDeleted { log } => ui.warning(&format!(
                "{} was deleted while {name} writes to it; start a new log: fusion {name} restart",
                log.display()
            )),
            EventKind::LogNotRotated { error } => {
                ui.warning(&format!("the log of {name} is not rotated: {error}"));
            }
            EventKind::ListenerUnknown { address, error } => {
                ui.warning(&format!(
                    "the system does not report which process listens on {address}: {error}"
                ));
            }
            EventKind::NotKeptAwake { error } => {
                ui.detail(&format!("the machine may sleep while {name} is busy: {error}"));
            }
        }
    }
}

fn on_demand(name: &str, is_starting: bool) -> String {
    if is_starting {
        format!("waiting for {name}, which is starting")
    } else {
        format!("starting {name}, which is not running")
    }
}

fn gpu_unknown(name: &str, tells: bool) -> String {
    let why = if tells { "has no model loaded" } else { "does not tell whether a model runs on the GPU" };
    format!("{name} {why}, so --require-gpu is not checked")
}

fn installing(what: &str, with: &str, directory: Option<&Path>) -> String {
    let place = directory.map(|directory| format!(" into {}", directory.display())).unwrap_or_default();
    format!("installing {what} with {with}{place}")
}
