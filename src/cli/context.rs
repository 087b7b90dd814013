//! What every command works with: the environment, the streams, and the app over the configuration.

use std::sync::Arc;

use crate::app::App;
use crate::cli::error::Failure;
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

/// What every command gets.
pub struct Context {
    /// The process environment.
    pub environment: Environment,
    /// The runtimes there are.
    pub table: Table,
    /// Where things lie.
    pub paths: Paths,
    /// The streams.
    pub ui: Ui,
    /// The operating system.
    pub driver: Arc<dyn ProcessDriver>,
    /// Cancelled by a signal that is remembered.
    pub cancel: CancelToken,
    /// Tells of events; it lives as long as the command.
    reporter: Arc<Reporter>,
}

impl Context {
    /// Returns the context of one command.
    pub fn new(
        environment: Environment,
        table: Table,
        paths: Paths,
        ui: Ui,
        driver: Arc<dyn ProcessDriver>,
        cancel: CancelToken,
    ) -> Self {
        let reporter = Arc::new(Reporter::new(&ui));
        Self { environment, table, paths, ui, driver, cancel, reporter }
    }

    /// Returns the app over the configuration, whose file is made on first use. Where the file cannot be made, the
    /// defaults hold.
    pub fn app(&self) -> Result<App, Failure> {
        Ok(self.app_with(self.config()?))
    }

    /// Returns the configuration, as [`Self::app`] has it.
    pub fn config(&self) -> Result<Config, Failure> {
        match Config::load_sound(&self.paths.config_file(), self.table) {
            (config, None) => Ok(config),
            (config, Some(error @ ConfigError::Create { .. })) => {
                self.warn_of(error, "the defaults hold");
                Ok(config)
            }
            (_, Some(error)) => Err(error.into()),
        }
    }

    /// Returns the app over the valid part of the configuration, with a warning when the rest is broken: for commands
    /// that must work whatever the file says.
    pub fn lenient_app(&self) -> App {
        let (config, error) = Config::load_sound(&self.paths.config_file(), self.table);
        if let Some(error) = error {
            self.warn_of(error, "for the rest the defaults hold");
        }
        self.app_with(config)
    }

    /// Returns the app over this configuration.
    pub fn app_with(&self, config: Config) -> App {
        let events = EventBus::new();
        events.subscribe(&self.reporter);
        let helper_output = if self.ui.quiet { HelperOutput::Keep } else { HelperOutput::Show };
        let (paths, environment) = (self.paths.clone(), self.environment.clone());
        let driver = Arc::clone(&self.driver);
        App::new(self.table, config, paths, environment, driver, events, helper_output)
    }

    /// Warns of a configuration that cannot be used, and says what holds instead.
    pub fn warn_of(&self, error: ConfigError, consequence: &str) {
        let failure = Failure::from(error);
        let facts = [vec![failure.message], failure.causes].concat().join(": ");
        self.ui.warning(&format!("{facts}; {consequence}"));
    }

    /// From now on, until the result is dropped, a signal cancels the work, so that what was started is stopped first.
    /// Otherwise a signal ends fusion at once.
    pub fn cancel_on_signal(&self) -> Remembering {
        signals::remember()
    }

    /// Asks a question to be answered with yes or no; just Enter means `default`, the end of input means no. `None`
    /// without a terminal to ask on.
    pub fn ask(&self, question: &str, default: bool) -> Option<bool> {
        if !(self.environment.stdin_is_terminal && self.environment.stderr_is_terminal) {
            return None;
        }
        self.ui.clear_status();
        let choice = if default { "[Y/n]" } else { "[y/N]" };
        let asked = self.ui.error().write_all(format!("{} {choice} ", printable(question)).as_bytes());
        let mut answer = String::new();
        let read = asked.and_then(|()| std::io::stdin().read_line(&mut answer));
        Some(match answer.trim().to_lowercase().as_str() {
            "" => default && matches!(read, Ok(1..)),
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
