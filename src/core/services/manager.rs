//! What every use case of a service needs, and the lock that permits changes.

use std::time::Duration;

use super::error::ServiceError;
use super::lock::{ServiceLock, ServiceLockError};
use super::service::ManagedService;
use crate::core::cancel::CancelToken;
use crate::core::config::Config;
use crate::core::events::{EventBus, EventKind};
use crate::core::paths::Paths;
use crate::core::process::{ListeningSockets, ProcessDriver};
use crate::core::runtimes::Table;
use crate::env::Environment;

/// Starts, stops and watches services. The use cases are in the other files of this directory.
#[derive(Clone, Copy)]
pub struct ServiceManager<'a> {
    /// The runtimes that fusion knows.
    pub table: Table,
    pub driver: &'a dyn ProcessDriver,
    pub events: &'a EventBus,
    /// Cancels the work. fusion first stops what it started, then returns [`ServiceError::Cancelled`].
    pub cancel: &'a CancelToken,
    pub config: &'a Config,
    pub paths: &'a Paths,
    /// Source of `PATH` and of the directories that may hold models.
    pub environment: &'a Environment,
    /// All listening sockets of a moment ago, if many services are observed at once.
    pub sockets: Option<&'a ListeningSockets>,
}

/// How long a command waits for the lock, in addition to the service's stop timeout.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);

impl ServiceManager<'_> {
    /// Waits for the lock of a service. Only an installation and a stop hold it for long.
    pub(super) fn lock(&self, service: &ManagedService) -> Result<ServiceLock, ServiceError> {
        self.lock_within(service, service.server().stop_timeout)
    }

    /// Like [`Self::lock`], for a service whose stop may take `stop_timeout`.
    pub(super) fn lock_within(
        &self,
        service: &ManagedService,
        stop_timeout: Duration,
    ) -> Result<ServiceLock, ServiceError> {
        let timeout = stop_timeout.saturating_add(LOCK_TIMEOUT);
        match ServiceLock::acquire(&service.name, &service.files, timeout, self.cancel, self.events) {
            Err(ServiceLockError::Cancelled(reason)) => Err(ServiceError::Cancelled(reason)),
            other => Ok(other?),
        }
    }

    /// Returns this manager with a token that is never cancelled, for the cleanup after a cancellation.
    pub(super) fn uncancellable<'b>(&'b self, never: &'b CancelToken) -> ServiceManager<'b> {
        ServiceManager { cancel: never, ..*self }
    }

    pub(super) fn emit(&self, service: &ManagedService, kind: EventKind) {
        self.events.emit(&service.name, kind);
    }
}
