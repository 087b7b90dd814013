//! Which process is meant: an identity that PID reuse cannot fool.

use serde::{Deserialize, Serialize};

use crate::core::pid::Pid;

/// A process, for ever: a PID alone is reused, together with its start time and boot it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its PID.
    pub pid: Pid,
    /// When the kernel says it started, in the kernel's own unit: clock ticks since boot on Linux, seconds since 1970
    /// on macOS.
    pub start_time: u64,
    /// The boot in which it runs.
    pub boot_id: String,
}
