//! Listening sockets.

use std::net::IpAddr;

use super::inspect::HolderSearch;

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) port: u16,
    /// The address to which it is bound.
    pub(super) address: IpAddr,
    /// Whether it is an IPv6 socket that gets no IPv4 connections even if it is bound to the wildcard address.
    pub(super) only_v6: bool,
    /// The user who made it, if the system tells that.
    pub(super) user: Option<u32>,
    /// A number by which the platform finds the processes that hold it.
    pub(super) id: u64,
}

/// All listening sockets of one moment, and one search for the processes that hold some of them.
#[derive(Debug)]
pub struct ListeningSockets {
    pub(super) sockets: Vec<Socket>,
    /// The ports of those whose holders `search` finds.
    pub(super) ports: Vec<u16>,
    pub(super) search: HolderSearch,
}

impl ListeningSockets {
    /// Returns whether one listens on the port, at any address. One that the system hides from this user may listen, too.
    pub fn has(&self, port: u16) -> bool {
        self.sockets.iter().any(|socket| socket.port == port)
    }
}
