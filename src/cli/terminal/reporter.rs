//! Events in words on stderr: the terminal's subscriber.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::progress::Progress;
use super::ui::Ui;
use crate::cli::words::who;
use crate::core::events::{Event, EventKind, Subscriber};

/// Tells the user: on a terminal on the status line, elsewhere now and then in lines that stay.
pub struct Reporter {
    ui: Ui,
    state: Mutex<ReporterState>,
}

#[derive(Default)]
struct ReporterState {
    /// The time of the wait that was last told in a line that stays.
    told: Duration,
    /// The downloads that are under way, by model.
    downloads: Vec<(String, Progress)>,
}

/// How often a wait is told where lines stay.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

impl Reporter {
    /// Returns a reporter that tells by way of `ui`.
    pub fn new(ui: &Ui) -> Self {
        Self { ui: ui.clone(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, ReporterState> {
        // What a panic elsewhere left behind is still a fact about the terminal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows something that passes; nothing where lines stay, except with `--verbose`.
    fn passing(&self, text: &str) {
        if self.ui.redraws() { self.ui.status(text) } else { self.ui.detail(text) }
    }

    fn waiting(&self, service: &str, elapsed: Duration, last: &str) {
        let text = format!("{service} is starting, {} s: {last}", elapsed.as_secs());
        if self.ui.redraws() {
            return self.ui.status(&text);
        }
        let mut state = self.state();
        // A new wait begins anew.
        if elapsed < state.told {
            state.told = Duration::ZERO;
        }
        if elapsed >= state.told + LINE_INTERVAL {
            state.told = elapsed;
            self.ui.note(&text);
        }
    }

    fn downloading(&self, model: &str, work: impl FnOnce(&mut Progress)) {
        let mut state = self.state();
        let known = state.downloads.iter().position(|(name, _)| name == model);
        let place = known.unwrap_or_else(|| {
            state.downloads.push((model.to_owned(), Progress::new(&self.ui, model)));
            state.downloads.len() - 1
        });
        work(&mut state.downloads[place].1);
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
            EventKind::ConfigurationChanged => ui.warning(&format!(
                "the configuration of {name} has changed since it was started; apply it: fusion {name} restart"
            )),
            EventKind::PortInUse { address, listener } => {
                ui.warning(&format!("{name} is down, and port {} is now in use by {}", address.port, who(listener)));
            }
            EventKind::Orphaned => {
                ui.warning(&format!("{name} died and left processes behind; they are stopped first"));
            }
            EventKind::ExternalWithoutModel { message } => {
                ui.warning(&format!("{name} did not generate with its own model: {message}"));
            }
            EventKind::ModelNotRecorded { model, error } => {
                ui.warning(&format!("`fusion ps` will not show that {model} is loaded: {error}"));
            }
            EventKind::RecordIgnored { error } => ui.warning(&format!("{error}; it is ignored")),
            EventKind::Installing { what, with, directory } => {
                ui.note(&installing(what, with, directory.as_deref()));
            }
            EventKind::CheckingInstallation => ui.note("starting it once to check that it works"),
            EventKind::Installed { version: Some(version), path } => {
                ui.note(&format!("{name} {version} is installed in {}", path.display()));
            }
            EventKind::Installed { version: None, path } => {
                ui.note(&format!("{name} is installed: {}", path.display()));
            }
            EventKind::DownloadStage { model, stage } => {
                self.downloading(model, |progress| progress.stage(stage));
            }
            EventKind::Downloaded { model, bytes, total } => {
                self.downloading(model, |progress| progress.bytes(*bytes, *total));
            }
            EventKind::DownloadEnded { model } => self.download_ended(model),
            EventKind::ModelReplaced { loaded, model } => {
                ui.note(&format!("{name} loads {model} in place of {loaded}"));
            }
            EventKind::StartedOnDemand { is_starting: true } => {
                ui.note(&format!("waiting for {name}, which is starting"));
            }
            EventKind::StartedOnDemand { is_starting: false } => {
                ui.note(&format!("starting {name}, which is not running"));
            }
            EventKind::LogDeleted { log } => ui.warning(&format!(
                "{} was deleted while {name} writes to it; `fusion {name} restart` begins a new log",
                log.display()
            )),
            EventKind::LogNotRotated { error } => {
                ui.warning(&format!("the log of {name} is not rotated: {error}"));
            }
            EventKind::ListenerUnknown { address, error } => {
                ui.warning(&format!("the system does not tell which process listens on {address}: {error}"));
            }
        }
    }
}

fn installing(what: &str, with: &str, directory: Option<&Path>) -> String {
    let place = directory.map(|directory| format!(" into {}", directory.display())).unwrap_or_default();
    format!("installing {what} with {with}{place}")
}
