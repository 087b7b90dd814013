//! Makes a service ready: installs its program, starts it, waits.
//!
//! Concurrent starts of one service are one start.

use std::sync::Arc;

use super::app::{App, SharedUp};
use super::error::AppError;
use super::gateway::GATEWAY;
use crate::core::cancel::CancelToken;
use crate::core::programs::ProgramError;
use crate::core::services::{Endpoint, ManagedService, ServiceError, ServiceManager, Up, UpKind, UpOptions};

impl App {
    /// Starts the service and waits until it is ready. Installs the program if it is missing and `install` is set.
    pub fn start(
        &self,
        service: &ManagedService,
        options: &UpOptions,
        install: bool,
        cancel: &CancelToken,
    ) -> Result<Up, AppError> {
        let start = || loop {
            let (up, is_own) = self.share_start(service, cancel, &|manager| manager.up(service, options))?;
            // The shared start may not have waited.
            if is_own || options.no_wait || !matches!(&up, Ok(Up { kind: UpKind::Launched, .. })) {
                return up.map_err(AppError::Service);
            }
        };
        match start() {
            Err(error) if install && error.missing_program().is_some_and(ProgramError::is_installable) => {
                self.install_for_start(service, cancel)?;
                start()
            }
            other => other,
        }
    }

    /// Does `work`, which starts the service; if another start of it is under way, waits for that one's result instead.
    /// Returns with it whether it is the result of `work`.
    fn share_start(
        &self,
        service: &ManagedService,
        cancel: &CancelToken,
        work: &dyn Fn(ServiceManager<'_>) -> Result<Up, ServiceError>,
    ) -> Result<(SharedUp, bool), ServiceError> {
        let flight =
            self.starts.run(&service.name, cancel, |shared| work(self.manager(shared)).map_err(Arc::new));
        flight.map_err(ServiceError::Cancelled)
    }

    /// Returns the endpoint of the service. Waits for a start of it that is under way. Starts it if it is not running
    /// and both `start_on_demand` and the configuration allow that.
    pub fn ensure_ready(
        &self,
        service: &ManagedService,
        start_on_demand: bool,
        options: &UpOptions,
        cancel: &CancelToken,
    ) -> Result<Endpoint, AppError> {
        let manager = self.manager(cancel);
        if !(start_on_demand && service.settings.run.start_on_demand) {
            return Ok(manager.require_endpoint(service)?);
        }
        // A restart may be about to stop the running service.
        if !self.starts.is_running(&service.name)
            && let Some(endpoint) = manager.find_endpoint(service)?
        {
            return Ok(endpoint);
        }
        Ok(self.start(service, options, false, cancel)?.endpoint)
    }

    /// Stops the service and starts it again. If a start of it is under way, waits for that one instead. A gateway that
    /// could not serve with the current configuration is not stopped.
    pub fn restart(
        &self,
        service: &ManagedService,
        options: &UpOptions,
        cancel: &CancelToken,
    ) -> Result<Up, AppError> {
        if *service.name == *GATEWAY
            && let Some(address) = service.address()
        {
            self.check_gateway(&address)?;
        }
        loop {
            let (up, is_own) =
                self.share_start(service, cancel, &|manager| manager.restart(service, options))?;
            // A shared `up` may have found the service running, and not have stopped it.
            let is_restarted = match &up {
                Ok(up) => {
                    up.kind == UpKind::Started
                        && (options.model.is_none() || options.model == up.endpoint.model)
                }
                Err(error) => !matches!(**error, ServiceError::Unhealthy { .. }),
            };
            if is_own || is_restarted {
                return up.map_err(AppError::Service);
            }
        }
    }
}

#[cfg(feature = "test-fakes")]
#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::core::cancel::Cancelled;
    use crate::core::config::Config;
    use crate::core::events::EventBus;
    use crate::core::helper::HelperOutput;
    use crate::core::paths::Paths;
    use crate::core::process::mock::MockDriver;
    use crate::core::runtimes::TABLE;
    use crate::core::services::StartedBy;
    use crate::env::Environment;
    use crate::test_ports::Port;

    /// An app whose servers start and never listen.
    fn app(root: &tempfile::TempDir, port: &Port, driver: &Arc<MockDriver>) -> App {
        let text = format!("[ollama_server]\nport = {}\ncommand = [\"/bin/sh\"]\n", port.number());
        let (config, problems) = Config::parse(&text, TABLE);
        assert!(problems.is_empty(), "{problems:?}");
        let environment = Environment { config_dir: Some(root.path().to_owned()), ..Environment::default() };
        let paths = Paths::discover(&environment).unwrap();
        let driver = Arc::clone(driver);
        App::new(TABLE, config, paths, environment, driver, EventBus::new(), HelperOutput::Keep)
    }

    #[test]
    fn a_restart_is_a_start_that_others_join() {
        let (root, port, driver) = (tempfile::tempdir().unwrap(), Port::free(), Arc::new(MockDriver::new()));
        let app = app(&root, &port, &driver);
        let (service, cancel) = (app.service("ollama").unwrap(), CancelToken::new());
        let options = UpOptions::default();
        std::thread::scope(|scope| {
            let restart = scope.spawn(|| app.restart(service, &options, &cancel));
            while driver.spawned().is_empty() {
                std::thread::yield_now();
            }
            assert!(app.starts.is_running(&service.name));
            cancel.cancel(Cancelled::Abandoned);
            assert_eq!(restart.join().unwrap().unwrap_err().to_string(), "interrupted");
        });
        assert!(!app.starts.is_running(&service.name));
    }

    #[test]
    fn a_restart_that_joined_in_vain_restarts_itself() {
        let (root, port, driver) = (tempfile::tempdir().unwrap(), Port::free(), Arc::new(MockDriver::new()));
        let app = app(&root, &port, &driver);
        let (service, cancel) = (app.service("ollama").unwrap(), CancelToken::new());
        let address = service.address().expect("a configured port");
        let found = Endpoint { address, pid: None, model: None, started_by: StartedBy::Fusion };
        let (end, ends) = mpsc::channel();
        std::thread::scope(|scope| {
            let (app, cancel) = (&app, &cancel);
            scope.spawn(move || {
                app.starts.run(&service.name, cancel, |_| {
                    ends.recv().unwrap();
                    Ok(Up { endpoint: found, kind: UpKind::AlreadyUp })
                })
            });
            while !app.starts.is_running(&service.name) {
                std::thread::yield_now();
            }
            let options = UpOptions { no_wait: true, ..UpOptions::default() };
            let restart = scope.spawn(move || app.restart(service, &options, &CancelToken::new()));
            end.send(()).unwrap();
            assert_eq!(restart.join().unwrap().unwrap().kind, UpKind::Launched);
        });
        assert_eq!(driver.spawned().len(), 1);
    }
}
