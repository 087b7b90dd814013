//! The port of a service: whether it is free, used by the service, or in use by another process.
//!
//! Every port conflict is detected here.

use std::io;
use std::net::{IpAddr, TcpListener, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::observe::Observed;
use super::probe::ProbeResult;
use super::record::Record;
use super::service::{ManagedService, OtherService};
use crate::core::address::Address;
use crate::core::events::{EventKind, chain};
use crate::core::process::{Listener, ProcessError};

/// How long the kernel may take to close the sockets of an ending process.
const PROCESS_END_TIME: Duration = Duration::from_millis(50);

/// How long a port may stay in use after its last process has ended.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Who uses the port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortUse {
    /// Nothing listens.
    Closed,
    /// The service listens, or a process that the system hides.
    Open,
    /// Another process listens.
    InUse,
}

impl PortUse {
    pub(super) fn of(observed: &Observed) -> Self {
        match &observed.probe {
            ProbeResult::NoConnection(_) => Self::Closed,
            _ if observed.listener.is_other() => Self::InUse,
            _ => Self::Open,
        }
    }
}

/// Returns what a probe of an address found where another process listens, in words.
fn found_on(address: &Address, probe: &ProbeResult) -> String {
    match probe {
        // A host name such as `localhost` can mean two addresses: the response can be that of our own server at the
        // other one.
        ProbeResult::Ready(_) if address.host.parse::<IpAddr>().is_err() => {
            format!("{} can mean several addresses, and another process listens at one of them", address.host)
        }
        other => other.words(),
    }
}

impl ServiceManager<'_> {
    /// Returns the error for a port that another process uses.
    pub(super) fn in_use(&self, service: &ManagedService, observed: Observed) -> ServiceError {
        let Some(address) = observed.address else {
            return ServiceError::NotRunning { service: service.name.clone(), state: observed.state };
        };
        let message = found_on(&address, &observed.probe);
        self.conflict(service, address, observed.listener, message)
    }

    /// Fails if another program or another service has the address of the service.
    pub fn refuse_other_program(&self, service: &ManagedService) -> Result<(), ServiceError> {
        match self.require_endpoint(service) {
            Err(error @ (ServiceError::PortInUse { .. } | ServiceError::AddressTaken { .. })) => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the error for an address where another service, or another process, listens.
    fn conflict(
        &self,
        service: &ManagedService,
        address: Address,
        listener: Listener,
        message: String,
    ) -> ServiceError {
        let (table, spare) = (service.server_table().into(), self.usable_port(service, None));
        match self.other_service_at(service, &address) {
            Some(OtherService { name: other, pid }) => ServiceError::AddressTaken {
                service: service.name.clone(),
                address,
                table,
                spare,
                other,
                pid,
            },
            None => ServiceError::PortInUse {
                service: service.name.clone(),
                address,
                table,
                spare,
                listener,
                message: message.into(),
            },
        }
    }

    /// Fails when the port cannot be listened on although nothing responds there. Another process may have bound it
    /// without listening yet, or the host may not be an address of this machine.
    pub(super) fn check_port_is_free(
        &self,
        service: &ManagedService,
        address: &Address,
    ) -> Result<(), ServiceError> {
        let cannot_listen = |source| {
            let (table, service, address) =
                (service.server_table().into(), service.name.clone(), address.clone());
            ServiceError::CannotListen { service, address, table, source }
        };
        let attempts = attempts_to_listen(address).map_err(cannot_listen)?;
        let is_possible = attempts.iter().any(Result::is_ok);
        for error in attempts.into_iter().filter_map(Result::err) {
            if error.kind() == io::ErrorKind::AddrInUse {
                let listener = self.driver.listener(address, None).unwrap_or(Listener::None);
                return Err(self.conflict(service, address.clone(), listener, error.to_string()));
            }
            // `localhost` often has two addresses, and the machine may lack one of them.
            if !is_possible {
                return Err(cannot_listen(error));
            }
        }
        Ok(())
    }

    /// Returns the listener that sent the response which `probe` found: one of the recorded instance, `None` if it has
    /// just stopped listening, or `Unknown` if the system does not tell. Fails if another process listens on its port.
    pub(super) fn own_listener(
        &self,
        service: &ManagedService,
        record: &Record,
        probe: &ProbeResult,
    ) -> Result<Listener, ServiceError> {
        let address = &record.address;
        let listener = match self.listener_of(record) {
            // No visible process owns the sockets of an ending process.
            Ok(Listener::Unknown) => {
                std::thread::sleep(PROCESS_END_TIME);
                self.listener_of(record)
            }
            other => other,
        };
        match listener {
            Ok(own @ (Listener::Ours { .. } | Listener::None)) => Ok(own),
            Ok(listener) => Err(self.conflict(service, address.clone(), listener, found_on(address, probe))),
            // An unknown listener does not contradict the response.
            Err(error) => {
                let (address, error) = (address.clone(), chain(&error));
                self.emit(service, EventKind::ListenerUnknown { address, error });
                Ok(Listener::Unknown)
            }
        }
    }

    /// Returns the error for a process that took the port before the recorded instance could listen, and so made it
    /// end; `None` if there is no such process. `cause` is the end of the instance as its log explains it.
    pub(super) fn taken_during_start(
        &self,
        service: &ManagedService,
        record: &Record,
        cause: Option<&str>,
    ) -> Option<ServiceError> {
        let listener =
            self.listener_of(record).ok().filter(|listener| matches!(listener, Listener::Other { .. }))?;
        let message = cause.unwrap_or("another process listens there now").to_owned();
        Some(self.conflict(service, record.address.clone(), listener, message))
    }

    /// Waits after a stop until the port is free. Reports another process that takes the port first.
    pub(super) fn await_release(&self, service: &ManagedService, address: &Address) {
        let begin = Instant::now();
        while !is_free(address) {
            let is_late = begin.elapsed() >= RELEASE_TIMEOUT;
            match self.driver.listener(address, None) {
                // No visible process owns the sockets of an ending process.
                Ok(Listener::Unknown) if !is_late => {}
                Ok(listener @ (Listener::Other { .. } | Listener::Unknown)) => {
                    let address = address.clone();
                    return self.emit(service, EventKind::PortInUse { address, listener });
                }
                _ if is_late => return,
                _ => {}
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn listener_of(&self, record: &Record) -> Result<Listener, ProcessError> {
        self.driver.listener(&record.address, Some(record.as_instance()))
    }
}

/// Tries to listen on each address of the host.
fn attempts_to_listen(address: &Address) -> io::Result<Vec<io::Result<()>>> {
    let candidates = (address.host.as_str(), address.port).to_socket_addrs()?;
    Ok(candidates.map(|candidate| TcpListener::bind(candidate).map(drop)).collect())
}

/// Returns whether nothing listens at `address`.
pub(super) fn is_free(address: &Address) -> bool {
    let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    attempts_to_listen(address)
        .is_ok_and(|attempts| !attempts.iter().filter_map(|attempt| attempt.as_ref().err()).any(is_taken))
}
