//! Which process is meant: an identity that PID reuse cannot fool.

use serde::{Deserialize, Serialize};

use super::host::Host;
use crate::core::pid::Pid;

/// One process and no other: a PID alone is reused, but not together with its start time and host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its PID.
    pub pid: Pid,
    /// When the kernel says it started, in the kernel's own unit: clock ticks since boot on Linux, seconds since 1970
    /// on macOS.
    pub start_time: u64,
    /// Where it runs.
    pub host: Host,
}
