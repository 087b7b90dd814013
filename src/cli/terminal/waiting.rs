//! The wait for an answer: a spinner with the elapsed time on a terminal, else one line after five seconds.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ui::Ui;

/// How often the spinner moves; call [`Waiting::tick`] as often.
pub const FRAME_INTERVAL: Duration = Duration::from_millis(100);

/// Time until the wait is printed without a spinner.
const NOTICE_AFTER: Duration = Duration::from_secs(5);

const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// The display, shared by the reader of the connection and the receiver of the answer.
#[derive(Clone)]
pub struct Waiting(Arc<Mutex<WaitingDisplay>>);

struct WaitingDisplay {
    ui: Ui,
    /// The current activity.
    activity: Cow<'static, str>,
    started: Instant,
    /// When the spinner was last drawn, if it is shown.
    drawn: Option<Instant>,
    frame: usize,
    over: bool,
}

impl Waiting {
    /// Returns a wait for an answer of the server `display_name` that begins now.
    pub fn new(ui: &Ui, display_name: &str) -> Self {
        let why = if ui.redraws() { "" } else { "; it may be loading the model or processing the prompt" };
        Self(Arc::new(Mutex::new(WaitingDisplay {
            ui: ui.clone(),
            activity: format!("waiting for {display_name}{why}").into(),
            started: Instant::now(),
            drawn: None,
            frame: 0,
            over: false,
        })))
    }

    /// Restarts the clock.
    pub fn restart(&self) {
        self.display().started = Instant::now();
    }

    /// Updates the display.
    pub fn tick(&self) {
        self.display().tick();
    }

    /// Changes the activity.
    pub fn set_activity(&self, activity: impl Into<Cow<'static, str>>) {
        let mut display = self.display();
        display.activity = activity.into();
        display.tick();
    }

    /// Clears the status line for good: the answer has started.
    pub fn end(&self) {
        let mut display = self.display();
        display.over = true;
        display.drawn = None;
        // Also what another has shown there, such as the start of the server.
        display.ui.clear_status();
    }

    fn display(&self) -> MutexGuard<'_, WaitingDisplay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitingDisplay {
    fn tick(&mut self) {
        let waited = self.started.elapsed();
        if self.over || self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME_INTERVAL) {
            return;
        }
        if self.ui.redraws() {
            self.frame = (self.frame + 1) % FRAMES.len();
            let frame = FRAMES[self.frame];
            self.ui.status(&format!("{frame} {} {:.1} s", self.activity, waited.as_secs_f64()));
            self.drawn = Some(Instant::now());
        } else if waited >= NOTICE_AFTER {
            self.over = true;
            self.ui.note(&format!("still {}", self.activity));
        }
    }
}
