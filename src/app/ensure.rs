//! Having a service ready: install its program, start it, wait; concurrent starts of one service are one start.

use std::sync::Arc;

use super::app::App;
use super::error::AppError;
use crate::core::cancel::CancelToken;
use crate::core::programs::ProgramError;
use crate::core::services::{Endpoint, ManagedService, ServiceError, Up, UpOptions};

impl App {
    /// Starts the service and waits until it is ready; concurrent starts of one service are one start.
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

    /// Returns where the service answers; it is started first if need be and `start_on_demand`, which the
    /// configuration can forbid.
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
