//! The identity of a process, which PID reuse cannot fool.

use serde::Serialize;
use serde::de::Error as _;

use super::host::Host;
use crate::core::json_object::{JsonObject, required};
use crate::core::pid::Pid;

/// One process and no other: a PID alone is reused, but not together with its start time and host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessId {
    pub pid: Pid,
    /// The start time in the kernel's own unit: clock ticks since boot on Linux; on macOS a number that each boot uses
    /// once, and that grows.
    pub start_time: u64,
    /// Where it runs.
    pub host: Host,
}

impl ProcessId {
    /// Reads an identity as it is serialized.
    pub fn read(process: &JsonObject<'_>) -> Result<Self, serde_json::Error> {
        let pid =
            i64::try_from(required("pid", process.number("pid")?)?).map_err(serde_json::Error::custom)?;
        let host = required("host", process.object("host")?)?;
        Ok(Self {
            pid: pid.try_into().map_err(serde_json::Error::custom)?,
            start_time: required("start_time", process.number("start_time")?)?,
            host: Host::read(&host)?,
        })
    }
}
