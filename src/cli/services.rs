//! How commands get at the services: with what the core tells in words, and with signals seen to.

use crate::cli::Context;
use crate::cli::commands;
use crate::cli::error::{Exit, Failure};
use crate::cli::models::{Models, Named};
use crate::cli::reporter::Reporter;
use crate::core::config::Config;
use crate::core::process::signals;
use crate::core::runtimes::Runtime;
use crate::core::services::{ServiceError, ServiceManager, Up, UpOptions};

impl Context {
    /// Looks at services or stops them. A signal ends fusion at once: what is recorded tells the next command how
    /// far this one came.
    pub fn with_services<T>(
        &self,
        config: &Config,
        work: impl FnOnce(&ServiceManager<'_>) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        if self.ui.stderr_is_terminal {
            signals::clean_terminal_on_death();
        }
        self.manage(config, work)
    }

    /// Starts services. When a signal comes, what is being started is ended first; then the signal has its effect.
    pub fn starting<T>(
        &self,
        config: &Config,
        work: impl FnOnce(&ServiceManager<'_>) -> Result<T, ServiceError>,
    ) -> Result<T, Failure> {
        told(self.start(config, work))
    }

    /// Has the runtime up. Its program is installed first if it is missing and that is wanted: with `install`, or when
    /// the user says so on a terminal.
    pub fn up(
        &self,
        config: &Config,
        runtime: &'static dyn Runtime,
        options: &UpOptions,
        install: bool,
    ) -> Result<Up, Failure> {
        told(self.installed_and_up(config, runtime, options, install)?)
    }

    /// As [`Context::up`]; and the model that it is started with is downloaded first if it is missing.
    pub fn up_with_model(
        &self,
        config: &Config,
        runtime: &'static dyn Runtime,
        options: &UpOptions,
        install: bool,
    ) -> Result<Up, Failure> {
        match self.installed_and_up(config, runtime, options, install)? {
            Err(ServiceError::Model { model, .. }) => {
                let models = Models::of(self, config, runtime)?;
                models.fetch(&Named::resolved(&model), false)?;
                self.up(config, runtime, options, install)
            }
            other => told(other),
        }
    }

    fn installed_and_up(
        &self,
        config: &Config,
        runtime: &'static dyn Runtime,
        options: &UpOptions,
        install: bool,
    ) -> Result<Result<Up, ServiceError>, Failure> {
        let up = || self.start(config, |manager| manager.up(&manager.service(runtime), options));
        match up() {
            Err(ServiceError::Program(missing)) => {
                commands::install::offer(self, runtime, missing, install)?;
                Ok(up())
            }
            other => Ok(other),
        }
    }

    fn start<T>(
        &self,
        config: &Config,
        work: impl FnOnce(&ServiceManager<'_>) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        let _remembering = signals::remember();
        self.manage(config, work)
    }

    fn manage<T>(
        &self,
        config: &Config,
        work: impl FnOnce(&ServiceManager<'_>) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        let events = Reporter::new(&self.ui);
        work(&ServiceManager {
            driver: &self.driver,
            events: &events,
            interrupted: &|| signals::pending().map(|signal| signal as i32),
            config,
            paths: &self.paths,
            environment: &self.environment,
        })
    }
}

/// The outcome of a start, for the user. Who sent the signal knows of it; with this exit code it is raised again.
fn told<T>(outcome: Result<T, ServiceError>) -> Result<T, Failure> {
    match outcome {
        Err(ServiceError::Interrupted { .. }) => Err(Failure::new(Exit::Interrupted, "")),
        other => Ok(other?),
    }
}
