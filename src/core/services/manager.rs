//! What every use case of a service works with, and the right to change one.

use std::time::Duration;

use super::error::ServiceError;
use super::lock::{LockError, ServiceLock};
use super::service::ManagedService;
use crate::core::cancel::CancelToken;
use crate::core::config::Config;
use crate::core::events::{EventBus, EventKind};
use crate::core::paths::Paths;
use crate::core::process::ProcessDriver;
use crate::env::Environment;

/// Starts, stops and watches services. The use cases are in the files beside this one.
#[derive(Clone, Copy)]
pub struct ServiceManager<'a> {
    /// The operating system.
    pub driver: &'a dyn ProcessDriver,
    /// Learns of what happens.
    pub events: &'a EventBus,
    /// Asks the work to stop early. What was started is stopped first; then the result is
    /// [`ServiceError::Cancelled`].
    pub cancel: &'a CancelToken,
    /// The whole configuration.
    pub config: &'a Config,
    /// Where everything lies.
    pub paths: &'a Paths,
    /// `PATH`, and where models may lie.
    pub environment: &'a Environment,
}

/// How long a command waits for the lock beyond the time that stopping the service may take.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);

impl ServiceManager<'_> {
    /// Waits for the right to change a service. An installation keeps it for minutes; in all other commands nothing
    /// takes long but stopping the service.
    pub(super) fn lock(&self, service: &ManagedService) -> Result<ServiceLock, ServiceError> {
        self.lock_within(service, service.server().stop_timeout)
    }

    /// Like [`Self::lock`], where stopping the service may take `stop_timeout`.
    pub(super) fn lock_within(
        &self,
        service: &ManagedService,
        stop_timeout: Duration,
    ) -> Result<ServiceLock, ServiceError> {
        let timeout = stop_timeout.saturating_add(LOCK_TIMEOUT);
        match ServiceLock::acquire(&service.name, &service.files, timeout, self.cancel, self.events) {
            Err(LockError::Cancelled(reason)) => Err(ServiceError::Cancelled(reason)),
            other => Ok(other?),
        }
    }

    /// Returns the same manager for what must be done because of a cancellation. `never` is a token that nobody else
    /// has.
    pub(super) fn uncancellable<'b>(&'b self, never: &'b CancelToken) -> ServiceManager<'b> {
        ServiceManager { cancel: never, ..*self }
    }

    pub(super) fn emit(&self, service: &ManagedService, kind: EventKind) {
        self.events.emit(&service.name, kind);
    }
}
