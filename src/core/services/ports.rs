//! Chooses the port of a service whose configuration says none.

use std::ops::RangeInclusive;
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
        let is_allowed =
            |port: &u16| default == Some(*port) || range.as_ref().is_some_and(|range| range.contains(port));
        let kept = kept_port::read(&service.files).filter(is_allowed);
        let at = |port: u16| Address { host: server.host.clone(), port };
        if let Some(port) = self.usable_port(service, kept) {
            return Ok(at(port));
        }
        let range = range.or(default.map(|port| port..=port));
        // Of a single port it can be told what listens there.
        if let Some(only) = range.as_ref().filter(|range| range.start() == range.end()) {
            self.check_port_is_free(service, &at(*only.start()))?;
        }
        Err(ServiceError::NoPort { service: service.name.clone(), range })
    }

    /// Returns the first port on which a start could listen now: `first`, else one that the template offers. After a
    /// configured port, a template without a range offers the next ones.
    pub fn usable_port(&self, service: &ManagedService, first: Option<u16>) -> Option<u16> {
        let (server, template) = (service.server(), &service.template);
        let range = template.port_range().or_else(|| server.port.map(next_ports));
        let mut reserved = self.config.reserved_addresses(&service.name);
        reserved.extend(self.addresses_of_others(service));
        let only = |port: u16| port..=port;
        first_usable(&server.host, &reserved, [first.map(only), template.default_port().map(only), range])
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

/// Returns the ports after this one that may be offered in its place.
pub fn next_ports(port: u16) -> RangeInclusive<u16> {
    port.saturating_add(1)..=port.saturating_add(100)
}

/// Returns the first of these ports of the host that nothing listens on and that is not reserved.
pub fn first_usable(
    host: &str,
    reserved: &[Address],
    ports: [Option<RangeInclusive<u16>>; 3],
) -> Option<u16> {
    let mut address = Address { host: host.to_owned(), port: 0 };
    for port in ports.into_iter().flatten().flatten() {
        address.port = port;
        if !reserved.iter().any(|other| other.conflicts_with(&address)) && port::is_free(&address) {
            return Some(port);
        }
    }
    None
}

/// Keeps a chosen port for the next start. The caller holds the service's lock.
pub(super) fn keep(service: &ManagedService, address: &Address) -> Result<(), ServiceError> {
    match service.server().port {
        Some(_) => Ok(()),
        None => Ok(kept_port::write(&service.files, address.port)?),
    }
}
