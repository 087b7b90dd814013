//! Memory and CPU of a process and its descendants.

use std::time::Duration;

use super::facts::Inspect;
use super::identity::is_same;
use crate::core::process::driver::Usage;
use crate::core::process::id::ProcessId;

/// See [`ProcessDriver::usage`](crate::core::process::ProcessDriver::usage).
pub(in crate::core::process) fn usage(inspect: &dyn Inspect, process: &ProcessId) -> Option<Usage> {
    let now = inspect.process(process.pid.as_raw()).ok()??;
    let same = !now.zombie && is_same(inspect, process).ok()?;
    let uptime = inspect.age(&now).filter(|_| same)?;
    let tree = inspect.descendants(now.pid);
    let (memory_bytes, cpu_time) = tree
        .into_iter()
        .filter_map(|pid| inspect.resources(pid))
        .fold((0, Duration::ZERO), |sum, one| (sum.0 + one.memory_bytes, sum.1 + one.cpu_time));
    let cpu_percent =
        if uptime.is_zero() { 0.0 } else { 100.0 * cpu_time.as_secs_f64() / uptime.as_secs_f64() };
    Some(Usage { uptime, memory_bytes, cpu_percent })
}
