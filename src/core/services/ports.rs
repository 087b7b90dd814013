//! Chooses the port of a service whose configuration says none.

use std::time::Duration;

use super::error::ServiceError;
use super::kept_port;
use super::lock::ServiceLockError;
use super::manager::ServiceManager;
use super::port;
use super::service::ManagedService;
use crate::core::address::Address;
use crate::core::cancel::Cancelled;
use crate::core::files;

/// How long another command may take to choose a port: milliseconds, but for a slow disk.
const CHOICE_TIMEOUT: Duration = Duration::from_secs(10);

impl ServiceManager<'_> {
    /// Returns where a start would listen now: at the configured port; else at the first port that nothing listens on
    /// and no other service has configured, of the one that is kept, the default port and the range of its template.
    pub(super) fn address_for_start(&self, service: &ManagedService) -> Result<Address, ServiceError> {
        let server = service.server();
        if let Some(address) = server.address() {
            return Ok(address);
        }
        let (default, range) = (service.template.default_port(), service.template.port_range());
        let is_allowed = |port: &u16| {
            range.as_ref().map_or(default == Some(*port), |range| range.contains(port))
                || default == Some(*port)
        };
        let at = |port| Address { host: server.host.clone(), port };
        let mut reserved = self.config.reserved_addresses(&service.name);
        reserved.extend(self.addresses_of_others(service));
        let is_usable = |address: &Address| {
            !reserved.iter().any(|other| other.conflicts_with(address)) && port::is_free(address)
        };
        kept_port::read(&service.files)
            .filter(is_allowed)
            .into_iter()
            .chain(default)
            .chain(range.clone().into_iter().flatten())
            .map(at)
            .find(is_usable)
            .ok_or_else(|| ServiceError::NoPort {
                service: service.name.clone(),
                range: range.or(default.map(|port| port..=port)),
            })
    }

    /// Keeps other commands from choosing a port until the result is dropped, if a start must choose one: two services
    /// that start at once would choose the same.
    pub(super) fn lock_choice_of_port(
        &self,
        service: &ManagedService,
    ) -> Result<Option<files::Lock>, ServiceError> {
        if service.server().port.is_some() {
            return Ok(None);
        }
        files::make_directory(self.paths.directory())?;
        let is_cancelled = || self.cancel.is_cancelled();
        match files::Lock::acquire(&self.paths.ports_lock(), CHOICE_TIMEOUT, &is_cancelled) {
            Ok(lock) => Ok(Some(lock)),
            Err(files::LockError::Held { holder, .. }) => {
                Err(ServiceLockError::Held { service: service.name.clone(), holder }.into())
            }
            Err(files::LockError::Cancelled { .. }) => {
                self.cancel.check()?;
                Err(ServiceError::Cancelled(Cancelled::Abandoned))
            }
            Err(files::LockError::File(error)) => Err(error.into()),
        }
    }
}

/// Keeps a chosen port for the next start. The caller holds the service's lock.
pub(super) fn keep(service: &ManagedService, address: &Address) -> Result<(), ServiceError> {
    match service.server().port {
        Some(_) => Ok(()),
        None => Ok(kept_port::write(&service.files, address.port)?),
    }
}
