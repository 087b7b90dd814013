//! Makes a service ready: installs its program, starts it, waits.
//!
//! Concurrent starts of one service are one start.

use std::sync::Arc;

use super::app::App;
use super::error::AppError;
use crate::core::cancel::CancelToken;
use crate::core::programs::ProgramError;
use crate::core::services::{Endpoint, ManagedService, ServiceError, Up, UpOptions};

impl App {
    /// Starts the service and waits until it is ready. Installs the program if it is missing and `install` is set.
    pub fn start(
        &self,
        service: &ManagedService,
        options: &UpOptions,
        install: bool,
        cancel: &CancelToken,
    ) -> Result<Up, AppError> {
        let start = || {
            let flight = self.starts.run(&service.name, cancel, |shared| {
                self.manager(shared).up(service, options).map_err(Arc::new)
            });
            flight.map_err(ServiceError::Cancelled)?.map_err(AppError::Service)
        };
        match start() {
            Err(error) if install && error.missing_program().is_some_and(ProgramError::is_installable) => {
                self.install_for_start(service, cancel)?;
                start()
            }
            other => other,
        }
    }

    /// Returns the endpoint of the service. Starts it if it is not running and both `start_on_demand` and the configuration
    /// allow that.
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
        match manager.find_endpoint(service)? {
            Some(endpoint) => Ok(endpoint),
            None => Ok(self.start(service, options, false, cancel)?.endpoint),
        }
    }

    /// Stops the service and starts it again.
    pub fn restart(
        &self,
        service: &ManagedService,
        options: &UpOptions,
        cancel: &CancelToken,
    ) -> Result<Up, AppError> {
        Ok(self.manager(cancel).restart(service, options)?)
    }
}
