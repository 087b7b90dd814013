//! What stderr shows until the answer begins: a spinner with the elapsed time on a terminal, elsewhere one line when
//! it takes long.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::ui::{self, Ui};
use crate::core::process::signals::{self, Terminal};

/// How often the spinner moves, and [`Waiting::tick`] wants to be called.
pub(super) const FRAME: Duration = Duration::from_millis(100);

/// After how long without a spinner stderr says that it is still waiting.
const LONG: Duration = Duration::from_secs(5);

const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// The display, shared between whoever reads the connection and whoever takes the answer.
#[derive(Clone)]
pub(super) struct Waiting(Arc<Mutex<Display>>);

struct Display {
    ui: Ui,
    /// What the user is told is waited for.
    what: Cow<'static, str>,
    begun: Instant,
    /// Whether stderr can show a spinner.
    spins: bool,
    /// When it was drawn last, if it is on the screen.
    drawn: Option<Instant>,
    frame: usize,
    /// The answer has begun.
    over: bool,
}

impl Waiting {
    /// Waiting for `runtime`'s answer, from now on.
    pub(super) fn new(ui: &Ui, runtime: &str) -> Self {
        let spins = ui.redraws();
        let why = if spins { "" } else { "; it may be loading the model or reading the prompt" };
        Self(Arc::new(Mutex::new(Display {
            ui: ui.clone(),
            what: format!("waiting for {runtime}{why}").into(),
            begun: Instant::now(),
            spins,
            drawn: None,
            frame: 0,
            over: false,
        })))
    }

    /// Shows that it is still waiting.
    pub(super) fn tick(&self) {
        self.display().tick();
    }

    /// Something else is waited for now.
    pub(super) fn set_what(&self, what: impl Into<Cow<'static, str>>) {
        let mut display = self.display();
        display.what = what.into();
        display.tick();
    }

    /// The answer has begun: the spinner disappears, for good.
    pub(super) fn end(&self) {
        let mut display = self.display();
        display.over = true;
        display.erase();
    }

    fn display(&self) -> MutexGuard<'_, Display> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Display {
    fn tick(&mut self) {
        let waited = self.begun.elapsed();
        if self.over || self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
            return;
        }
        if self.spins {
            self.frame = (self.frame + 1) % FRAMES.len();
            let frame = FRAMES[self.frame];
            let line = ui::one_line(&format!("{frame} {} {:.1} s", self.what, waited.as_secs_f64()));
            let line = format!("\r\x1b[K\x1b[2m{line}\x1b[0m");
            // Nobody can be told that stderr is gone.
            let _ = io::stderr().write_all(line.as_bytes());
            signals::showing(Terminal::Line);
            self.drawn = Some(Instant::now());
        } else if waited >= LONG {
            self.over = true;
            self.ui.note(&format!("still {}", self.what));
        }
    }

    fn erase(&mut self) {
        if self.drawn.take().is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
            signals::showing(Terminal::Clean);
        }
    }
}
