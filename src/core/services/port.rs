//! The port of a service: whether it is free, used by the service, or in use by another process. Every port conflict
//! is detected here.

use std::io;
use std::net::{IpAddr, TcpListener, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::observe::Observed;
use super::probe::ProbeResult;
use super::record::Record;
use super::service::ManagedService;
use crate::core::address::Address;
use crate::core::events::{EventKind, chain};
use crate::core::process::{Listener, ProcessError};

/// How long the kernel may take to close the sockets of an ending process.
const PROCESS_END_TIME: Duration = Duration::from_millis(50);

/// How long a port may stay in use after its last process has ended.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What responds on the port of an instance.
pub(super) enum Responder {
    /// The instance, or a listener that the system hides.
    Ours,
    /// No process listens now.
    None,
    Other(Listener),
}

/// Returns the error for a port that another process uses.
pub(super) fn in_use(service: &ManagedService, observed: Observed) -> ServiceError {
    ServiceError::PortInUse {
        service: service.name.clone(),
        listener: observed.listener,
        message: found_on(&observed.address, &observed.probe),
        address: observed.address,
    }
}

/// Returns what a probe of an address found where another process listens, in words.
pub(super) fn found_on(address: &Address, probe: &ProbeResult) -> String {
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
    /// Fails when the port cannot be listened on although nothing responds there. Another process may have bound it
    /// without listening yet, or the host may not be an address of this machine.
    pub(super) fn check_port_is_free(&self, service: &ManagedService) -> Result<(), ServiceError> {
        let (name, address) = (service.name.clone(), service.server().address.clone());
        let attempts = match attempts_to_listen(&address) {
            Ok(attempts) => attempts,
            Err(source) => return Err(ServiceError::CannotListen { service: name, address, source }),
        };
        let is_possible = attempts.iter().any(Result::is_ok);
        for error in attempts.into_iter().filter_map(Result::err) {
            if error.kind() == io::ErrorKind::AddrInUse {
                let listener = self.driver.listener(&address, None).unwrap_or(Listener::None);
                let message = error.to_string();
                return Err(ServiceError::PortInUse { service: name, address, listener, message });
            }
            // `localhost` often has two addresses, and the machine may lack one of them.
            if !is_possible {
                return Err(ServiceError::CannotListen { service: name, address, source: error });
            }
        }
        Ok(())
    }

    /// Returns what responds on the port of a recorded instance.
    pub(super) fn responder(&self, service: &ManagedService, record: &Record) -> Responder {
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
            Ok(Listener::Ours { .. }) => Responder::Ours,
            // It has just stopped listening; the next probe shows the change.
            Ok(Listener::None) => Responder::None,
            Ok(listener) => Responder::Other(listener),
            // An unknown listener does not contradict the response.
            Err(error) => {
                let (address, error) = (address.clone(), chain(&error));
                self.emit(service, EventKind::ListenerUnknown { address, error });
                Responder::Ours
            }
        }
    }

    /// Returns the process that took the port after the recorded instance died, if there is one.
    pub(super) fn successor_on_port(&self, record: &Record) -> Option<Listener> {
        self.listener_of(record).ok().filter(|listener| matches!(listener, Listener::Other { .. }))
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

fn is_free(address: &Address) -> bool {
    let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    attempts_to_listen(address)
        .is_ok_and(|attempts| !attempts.iter().filter_map(|attempt| attempt.as_ref().err()).any(is_taken))
}
