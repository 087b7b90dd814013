//! What the core tells while it works, in words on stderr.

use std::error::Error;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use crate::cli::ui::{self, Ui, printable};
use crate::core::events::{Event, EventSink};
use crate::core::process::Listener;
use crate::core::process::signals::{self, Terminal};

/// Tells the user: on a terminal in one line that is overwritten, elsewhere now and then in lines that stay.
pub struct Reporter<'a> {
    ui: &'a Ui,
    /// Whether the last line on the terminal is to be overwritten; and the wait that was last told elsewhere.
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    line: bool,
    told: Duration,
}

/// How often a wait is told where lines stay.
const SELDOM: Duration = Duration::from_secs(30);

impl<'a> Reporter<'a> {
    /// One that tells by way of `ui`.
    pub fn new(ui: &'a Ui) -> Self {
        Self { ui, shown: Mutex::default() }
    }

    /// Overwritten by whatever is said next. Nothing where lines stay.
    fn passing(&self, text: &str) {
        if !self.ui.redraws() {
            return self.ui.detail(text);
        }
        let mut shown = self.shown();
        signals::showing(Terminal::Line);
        shown.line = true;
        let line = ui::one_line(&printable(&text.replace('\n', " ")));
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }

    fn warning(&self, text: &str) {
        self.clear();
        self.ui.warning(text);
    }

    /// Takes away what was to be overwritten.
    fn clear(&self) {
        let mut shown = self.shown();
        if std::mem::take(&mut shown.line) {
            let _ = write!(io::stderr(), "\r\x1b[K");
            signals::showing(Terminal::Clean);
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        // What a panic elsewhere left behind is still a fact about the terminal.
        self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn waiting(&self, runtime: &str, elapsed: Duration, last: &str) {
        let text = format!("{runtime} is starting, {} s: {last}", elapsed.as_secs());
        if self.ui.redraws() {
            return self.passing(&text);
        }
        let mut shown = self.shown();
        // A new wait begins anew.
        if elapsed < shown.told {
            shown.told = Duration::ZERO;
        }
        if elapsed >= shown.told + SELDOM {
            shown.told = elapsed;
            self.ui.note(&text);
        }
    }
}

impl EventSink for Reporter<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::WaitingForLock { runtime, holder } => {
                let who = holder.map(|pid| format!(" (process {pid})")).unwrap_or_default();
                self.clear();
                self.ui
                    .note(&format!("waiting for another fusion command{who}, which is changing {runtime}"));
            }
            Event::Started { runtime, pid } => {
                self.passing(&format!("{runtime} is starting (process {pid})"));
            }
            Event::Waiting { runtime, elapsed, last } => self.waiting(runtime, *elapsed, last),
            Event::Stopping { runtime, pid } => self.passing(&format!("stopping {runtime} (process {pid})")),
            Event::Killing { runtime, pid } => {
                self.warning(&format!("{runtime} (process {pid}) did not end in time and is killed"));
            }
            Event::Exposed { runtime, address } => {
                let danger = "others on the network can reach it, and it asks nobody for a password";
                self.warning(&format!("{runtime} listens at {address}: {danger}"));
            }
            Event::ConfigurationChanged { runtime } => {
                self.warning(&format!(
                    "the configuration of {runtime} has changed since it was started; `fusion {runtime} restart` \
                     applies it"
                ));
            }
            Event::AddressTakenOver { runtime, address, listener } => {
                let who = who(listener);
                self.warning(&format!("{runtime} is down, and {who} listens at {address} now"));
            }
            Event::Orphaned { runtime } => {
                self.warning(&format!("{runtime} had died and left processes behind; they are ended first"));
            }
            Event::WithoutModel { runtime, said } => {
                self.warning(&format!("{runtime} did not generate with its own model: {said}"));
            }
            Event::ModelUnrecorded { model, error } => {
                self.warning(&format!("`fusion ps` will not know of {model}: {}", chain(*error)));
            }
            Event::RecordIgnored { error } => self.warning(&format!("{}; it is ignored", chain(*error))),
            Event::LogUnbounded { runtime, error } => {
                self.warning(&format!("the log of {runtime} will grow without bounds: {}", chain(*error)));
            }
            Event::ListenerUnknown { address, error } => {
                self.warning(&format!("it cannot be told who answers at {address}: {}", chain(*error)));
            }
        }
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// An error and everything that caused it.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

/// Who listens, in words.
pub fn who(listener: &Listener) -> String {
    match listener {
        Listener::Nobody => "a program that the system does not name".to_owned(),
        Listener::Hidden => "a program of another user".to_owned(),
        Listener::Ours { pid } | Listener::Other { pid, program: None } => format!("process {pid}"),
        Listener::Other { pid, program: Some(program) } => format!("{program} (process {pid})"),
    }
}
