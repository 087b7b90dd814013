//! `restart`: stops and starts a service under one lock, so two processes of a service never run at once.

use std::time::SystemTime;

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::service::{ManagedService, Up, UpOptions};

impl ServiceManager<'_> {
    /// Stops the service and starts it again. Starts nothing once it is cancelled.
    pub fn restart(&self, service: &ManagedService, options: &UpOptions) -> Result<Up, ServiceError> {
        Self::check_is_configured(service)?;
        self.adopting(|| self.restart_locked(service, options))
    }

    fn restart_locked(&self, service: &ManagedService, options: &UpOptions) -> Result<Up, ServiceError> {
        let lock = self.lock(service)?;
        let running = self.running(service)?;
        // Fails before the stop if the service cannot start again. Where nothing is to be stopped, the start finds out,
        // which looks at the port before it looks for the program and the model.
        if running.is_some() || self.is_starting(service)? {
            let address = service.address().map_or_else(|| self.address_for_start(service), Ok)?;
            if running.is_some_and(|endpoint| endpoint.address.port != address.port) {
                self.check_port_is_free(service, &address)?;
            }
            self.plan(service, &address, options.model.as_deref(), SystemTime::now())?;
        }
        self.down_locked(service, service.server().stop_timeout, false)?;
        self.cancel.check()?;
        let next = self.begin_up(service, options)?;
        drop(lock);
        self.finish_up(service, options, next)
    }
}
