//! What the front end of the command line knows about the gateway, which is another front end: how it is started, and
//! why it fails.

use std::sync::Arc;

use super::app::App;
use crate::core::address::Address;
use crate::core::process::Listener;
use crate::core::services::{ManagedService, first_usable, next_ports};

/// Serves until a signal ends it, and returns the number of the signal. The function is called once the gateway
/// listens.
pub type Serve = fn(App, &mut dyn FnMut(&Address)) -> Result<i32, ServeError>;

/// Why the gateway cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("port {} is in use by {listener}", address.port)]
    PortInUse {
        address: Address,
        /// A port on which it could listen, if one is known.
        spare: Option<u16>,
        listener: Listener,
    },
    #[error("cannot listen on {address}")]
    Listen { address: Address, source: std::io::Error },
    /// Others could reach it, and nothing would keep them out.
    #[error(
        "the gateway would listen on {address}, which other machines can reach, and `gateway.token` is not set"
    )]
    NoToken { address: Address },
    /// Its requests would come back to it.
    #[error("{service} has the address of the gateway, {address}")]
    OwnPort {
        service: Arc<str>,
        address: Address,
        /// A port on which it could listen, if one is known.
        spare: Option<u16>,
    },
    #[error("cannot start the gateway")]
    Runtime(#[source] std::io::Error),
}

impl App {
    /// Refuses settings under which a gateway at this address would be open to others, or one of its own servers.
    pub fn check_gateway(&self, address: &Address) -> Result<(), ServeError> {
        if !address.is_loopback() && self.config.gateway.token.is_empty() {
            return Err(ServeError::NoToken { address: address.clone() });
        }
        let is_there = |service: &&ManagedService| {
            service.server().address().is_some_and(|configured| configured.conflicts_with(address))
        };
        match self.services().iter().find(is_there) {
            Some(service) => Err(ServeError::OwnPort {
                service: Arc::clone(&service.name),
                address: address.clone(),
                spare: self.spare_gateway_port(address),
            }),
            None => Ok(()),
        }
    }

    /// Returns a port on which the gateway could listen in place of the one of its address.
    pub fn spare_gateway_port(&self, address: &Address) -> Option<u16> {
        let reserved = self.config.reserved_addresses("");
        first_usable(&address.host, &reserved, [Some(next_ports(address.port)), None, None])
    }
}
