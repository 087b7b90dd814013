//! The identity of a process, which PID reuse cannot fool.

use serde::{Deserialize, Serialize};

use super::host::Host;
use crate::core::pid::Pid;

/// One process and no other: a PID alone is reused, but not together with its start time and host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: Pid,
    /// The start time in the kernel's own unit: clock ticks since boot on Linux; on macOS a number that each boot uses
    /// once, and that grows.
    pub start_time: u64,
    /// Where it runs.
    pub host: Host,
}
