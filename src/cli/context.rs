//! [`Context`]: what every command gets.

use std::sync::{Arc, Mutex};

use crate::app::App;
use crate::cli::error::Failure;
use crate::cli::instances::ReadConfig;
use crate::cli::terminal::keyboard;
use crate::cli::terminal::reporter::Reporter;
use crate::cli::terminal::signals::{self, Remembering};
use crate::cli::terminal::ui::{Ui, printable};
use crate::core::cancel::CancelToken;
use crate::core::config::{Config, ConfigError};
use crate::core::events::EventBus;
use crate::core::helper::HelperOutput;
use crate::core::paths::Paths;
use crate::core::process::ProcessDriver;
use crate::core::runtimes::Table;
use crate::env::Environment;

/// The environment, the streams, and the means to make the [`App`].
pub struct Context {
    pub environment: Environment,
    /// The runtimes that fusion knows.
    pub table: Table,
    pub paths: Paths,
    pub ui: Ui,
    pub driver: Arc<dyn ProcessDriver>,
    /// Cancelled by a signal after [`cancel_on_signal`](Self::cancel_on_signal).
    pub cancel: CancelToken,
    /// The configuration, if it was read before the command line was parsed.
    read_config: Mutex<Option<ReadConfig>>,
    /// Prints events for as long as the command runs.
    reporter: Arc<Reporter>,
}

impl Context {
    pub fn new(
        environment: Environment,
        table: Table,
        paths: Paths,
        ui: Ui,
        driver: Arc<dyn ProcessDriver>,
        cancel: CancelToken,
        read_config: Option<ReadConfig>,
    ) -> Self {
        let reporter = Arc::new(Reporter::new(&ui));
        let read_config = Mutex::new(read_config);
        Self { environment, table, paths, ui, driver, cancel, read_config, reporter }
    }

    /// Returns the sound part of the configuration and what is wrong with the rest. It is read once for each command.
    pub fn sound_config(&self) -> ReadConfig {
        let read = self.read_config.lock().ok().and_then(|mut read| read.take());
        read.unwrap_or_else(|| Config::load_sound(&self.paths.config_file(), self.table))
    }

    /// Returns the app with the configuration, whose file is created on first use. If the file cannot be created, the
    /// defaults apply.
    pub fn app(&self) -> Result<App, Failure> {
        Ok(self.app_with(self.config()?))
    }

    /// Returns the configuration of [`app`](Self::app).
    pub fn config(&self) -> Result<Config, Failure> {
        match self.sound_config() {
            (config, None) => Ok(config),
            (config, Some(error @ ConfigError::Create { .. })) => {
                self.warn_about(error, "the defaults apply");
                Ok(config)
            }
            (_, Some(error)) => Err(error.into()),
        }
    }

    /// Returns the app with the valid part of the configuration, and warns if the rest is invalid: for commands that
    /// must work with any file.
    pub fn lenient_app(&self) -> App {
        let (config, error) = self.sound_config();
        if let Some(error) = error {
            self.warn_about(error, "the defaults apply in place of what is invalid");
        }
        self.app_with(config)
    }

    /// Returns the app with this configuration.
    pub fn app_with(&self, config: Config) -> App {
        let events = EventBus::new();
        events.subscribe(&self.reporter);
        let helper_output = match self.ui.error().duplicate() {
            Ok(error) if !self.ui.quiet => HelperOutput::Show(Arc::new(error)),
            _ => HelperOutput::Keep,
        };
        let (paths, environment) = (self.paths.clone(), self.environment.clone());
        let driver = Arc::clone(&self.driver);
        App::new(self.table, config, paths, environment, driver, events, helper_output)
    }

    /// Returns the app of [`app`](Self::app) whose events are not printed: for a command that draws the screen.
    pub fn silent_app(&self) -> Result<App, Failure> {
        let (paths, environment) = (self.paths.clone(), self.environment.clone());
        let driver = Arc::clone(&self.driver);
        let config = self.config()?;
        Ok(App::new(self.table, config, paths, environment, driver, EventBus::new(), HelperOutput::Keep))
    }

    /// Warns about an invalid configuration and its consequence.
    pub fn warn_about(&self, error: ConfigError, consequence: &str) {
        let failure = Failure::from(error);
        self.ui.warning(&format!("{}; {consequence}", failure.facts(": ")));
    }

    /// Makes signals cancel the work until the result is dropped; then fusion can stop what it started. Otherwise a
    /// signal ends fusion at once.
    pub fn cancel_on_signal(&self) -> Remembering {
        signals::remember()
    }

    /// Asks a yes-or-no question; Enter means `default`, the end of input means no. Returns `None` without a terminal.
    pub fn ask(&self, question: &str, default: bool) -> Option<bool> {
        if !(self.environment.stdin_is_terminal && self.environment.stderr_is_terminal) {
            return None;
        }
        self.ui.clear_status();
        let _lent = keyboard::lend();
        let choice = if default { "[Y/n]" } else { "[y/N]" };
        let asked = self.ui.error().write_all(format!("{} {choice} ", printable(question)).as_bytes());
        // What cannot be read is the end of input, which means no.
        let answer = asked.and_then(|()| self.ui.input().read_line()).unwrap_or_default();
        Some(match answer.trim().to_lowercase().as_str() {
            "" => default && !answer.is_empty(),
            "y" | "yes" => true,
            _ => false,
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.ui.clear_status();
    }
}
