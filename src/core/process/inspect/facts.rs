//! The seam between platforms: the facts that each must know, as plain data.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::process::driver::ProcessError;
use crate::core::process::host::Host;

/// One process at one moment. Numbers are as the kernel has them, so 0 and 1 occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::core::process) struct Process {
    pub(in crate::core::process) pid: i32,
    /// See [`ProcessId::start_time`](crate::core::process::ProcessId::start_time).
    pub(in crate::core::process) start_time: u64,
    pub(in crate::core::process) parent: i32,
    /// The PID of the process that leads its session.
    pub(in crate::core::process) session: i32,
    /// It has ended, and its parent has not asked yet how.
    pub(in crate::core::process) zombie: bool,
}

/// What one process has used and uses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::core::process) struct Resources {
    /// Resident memory, in bytes.
    pub(in crate::core::process) memory_bytes: u64,
    /// CPU time since its start, of all its threads.
    pub(in crate::core::process) cpu_time: Duration,
}

/// A socket that listens at the port in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::core::process) struct Socket {
    /// Where it is bound.
    pub(in crate::core::process) address: IpAddr,
    /// An IPv6 socket that gets no IPv4 connections although its address is the wildcard.
    pub(in crate::core::process) only_v6: bool,
    /// By what the platform finds its owner.
    pub(in crate::core::process) id: u64,
}

/// The facts that a platform must know.
pub(in crate::core::process) trait Inspect: Sync {
    /// Returns where this process runs.
    fn host(&self) -> Result<Host, ProcessError>;

    /// The process with that PID, also when it is a zombie.
    fn process(&self, pid: i32) -> Result<Option<Process>, ProcessError>;

    /// Sleeps until the process with that PID ends, but at most `limit`; returns at once when there is none. An error
    /// where the system cannot report the end of a process that is no child.
    fn sleep_until_exit(&self, _pid: i32, _limit: Duration) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Every process that the system lets us see.
    fn processes(&self) -> Result<Vec<Process>, ProcessError>;

    /// A process and its descendants, zombies included, parents before children; found without looking at strangers
    /// where the system can.
    fn descendants(&self, pid: i32) -> Vec<i32>;

    /// Whether the environment with which the process was started holds `FUSION_INSTANCE=instance`; false where
    /// the system does not let us see it.
    fn has_instance(&self, pid: i32, instance: &str) -> bool;

    /// What it uses; `None` when it is gone.
    fn resources(&self, pid: i32) -> Option<Resources>;

    /// How long ago it started, by the kernel's clock.
    fn age(&self, process: &Process) -> Option<Duration>;

    /// The name of its program.
    fn program(&self, pid: i32) -> Option<String>;

    /// The sockets that listen at a TCP port.
    fn listening(&self, port: u16) -> Result<Vec<Socket>, ProcessError>;

    /// Those of the sockets (by their `id`) that the process has.
    fn sockets_of(&self, pid: i32, sockets: &[u64]) -> Vec<u64>;

    /// Whether somebody accepts connections who is not among [`Inspect::listening`], because the system hides him.
    fn accepts(&self, _target: SocketAddr) -> bool {
        false
    }
}

/// A process and its descendants, parents before children, zombies included.
pub(super) fn descendants(root: i32, children: impl Fn(i32) -> Vec<i32>) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        for child in children(*pid) {
            // PIDs are reused while this runs, so that a child may seem to be its own ancestor.
            if !found.contains(&child) {
                found.push(child);
            }
        }
        next += 1;
    }
    found
}

#[cfg(not(target_os = "macos"))]
pub(super) fn children_among(everyone: &[Process], parent: i32) -> Vec<i32> {
    everyone.iter().filter(|process| process.parent == parent).map(|process| process.pid).collect()
}
