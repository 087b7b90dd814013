//! Listening sockets.

use std::net::IpAddr;

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) port: u16,
    /// The address to which it is bound.
    pub(super) address: IpAddr,
    /// Whether it is an IPv6 socket that gets no IPv4 connections even if it is bound to the wildcard address.
    pub(super) only_v6: bool,
    /// A number by which the platform finds the processes that hold it.
    pub(super) id: u64,
}

/// All listening sockets of one moment.
#[derive(Debug)]
pub struct ListeningSockets(pub(super) Vec<Socket>);

impl ListeningSockets {
    /// Returns whether one listens on the port, at any address. One that the system hides from this user may listen, too.
    pub fn has(&self, port: u16) -> bool {
        self.0.iter().any(|socket| socket.port == port)
    }
}
