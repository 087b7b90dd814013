//! The wait for an answer: a spinner with the elapsed time on a terminal, elsewhere one line when it takes long.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ui::Ui;

/// How often the spinner moves, and [`Waiting::tick`] wants to be called.
pub const FRAME_INTERVAL: Duration = Duration::from_millis(100);

/// After how long without a spinner stderr says that the command still waits.
const NOTICE_AFTER: Duration = Duration::from_secs(5);

const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// The display, shared between what reads the connection and what takes the answer.
#[derive(Clone)]
pub struct Waiting(Arc<Mutex<Display>>);

struct Display {
    ui: Ui,
    /// What is waited for.
    what: Cow<'static, str>,
    begun: Instant,
    /// When the spinner was drawn last, if it is on the screen.
    drawn: Option<Instant>,
    frame: usize,
    /// The answer has begun.
    over: bool,
}

impl Waiting {
    /// Waits for an answer of the runtime called `title`, from now on.
    pub fn new(ui: &Ui, title: &str) -> Self {
        let why = if ui.redraws() { "" } else { "; it may be loading the model or reading the prompt" };
        Self(Arc::new(Mutex::new(Display {
            ui: ui.clone(),
            what: format!("waiting for {title}{why}").into(),
            begun: Instant::now(),
            drawn: None,
            frame: 0,
            over: false,
        })))
    }

    /// Counts the wait from now.
    pub fn restart(&self) {
        self.display().begun = Instant::now();
    }

    /// Shows that the command still waits.
    pub fn tick(&self) {
        self.display().tick();
    }

    /// Says what is waited for now.
    pub fn set_what(&self, what: impl Into<Cow<'static, str>>) {
        let mut display = self.display();
        display.what = what.into();
        display.tick();
    }

    /// The answer has begun: the spinner disappears and does not come back.
    pub fn end(&self) {
        let mut display = self.display();
        display.over = true;
        if display.drawn.take().is_some() {
            display.ui.clear_status();
        }
    }

    fn display(&self) -> MutexGuard<'_, Display> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Display {
    fn tick(&mut self) {
        let waited = self.begun.elapsed();
        if self.over || self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME_INTERVAL) {
            return;
        }
        if self.ui.redraws() {
            self.frame = (self.frame + 1) % FRAMES.len();
            let frame = FRAMES[self.frame];
            self.ui.status(&format!("{frame} {} {:.1} s", self.what, waited.as_secs_f64()));
            self.drawn = Some(Instant::now());
        } else if waited >= NOTICE_AFTER {
            self.over = true;
            self.ui.note(&format!("still {}", self.what));
        }
    }
}
