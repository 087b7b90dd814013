//! `restart`: a stop and a start under one lock, so that never two processes of a service live.

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::service::{ManagedService, Up, UpOptions};

impl ServiceManager<'_> {
    /// Stops the service and starts it again. Once cancelled, it starts nothing.
    pub fn restart(&self, service: &ManagedService, options: &UpOptions) -> Result<Up, ServiceError> {
        let lock = self.lock(service)?;
        // A service that could not be started again is not stopped.
        self.plan(service, options.model.as_deref(), 0)?;
        self.down_locked(service, service.server().stop_timeout, false)?;
        self.cancel.check()?;
        let next = self.begin_up(service, options)?;
        drop(lock);
        self.finish_up(service, options, next)
    }
}
