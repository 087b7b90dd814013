//! Memory, CPU, threads and open files of a process and its descendants.

use std::time::Duration;

use super::facts::{Inspect, Process, Resources};
use super::identity::is_same;
use crate::core::process::driver::{Holdings, Usage};
use crate::core::process::id::ProcessId;

/// See [`ProcessDriver::usage`](crate::core::process::ProcessDriver::usage).
pub(in crate::core::process) fn usage(inspect: &dyn Inspect, process: &ProcessId) -> Option<Usage> {
    let tree = inspect.descendants(process.pid.as_raw());
    let tree: Vec<(Process, Resources)> = tree.into_iter().filter_map(|pid| inspect.resources(pid)).collect();
    let (root, _) = tree.first()?;
    let same = !root.zombie
        && (root.pid, root.start_time) == (process.pid.as_raw(), process.start_time)
        && inspect.host().ok()? == process.host;
    let uptime = inspect.age(root).filter(|_| same)?;
    let others = made_by_others(inspect, root, &tree);
    let own = tree.iter().filter(|(process, _)| !others.contains(&process.pid));
    let (memory_bytes, cpu_time) =
        own.fold((0, Duration::ZERO), |sum, (_, one)| (sum.0 + one.memory_bytes, sum.1 + one.cpu_time));
    let cpu_percent =
        if uptime.is_zero() { 0.0 } else { 100.0 * cpu_time.as_secs_f64() / uptime.as_secs_f64() };
    Some(Usage { uptime, memory_bytes, cpu_percent })
}

/// Returns the processes among the descendants of `root` that other starts made, with all that descend from these: the
/// gateway is the parent of services.
fn made_by_others(inspect: &dyn Inspect, root: &Process, tree: &[(Process, Resources)]) -> Vec<i32> {
    let [_, descendants @ ..] = tree else { return Vec::new() };
    if descendants.is_empty() {
        return Vec::new();
    }
    let own = inspect.instance(root.pid).unwrap_or_default();
    let is_other = |process: &&Process| inspect.is_other_start(process, &own, Some(root.pid));
    let others = descendants.iter().map(|(process, _)| process).filter(is_other);
    others.flat_map(|process| inspect.descendants(process.pid)).collect()
}

/// See [`ProcessDriver::holdings`](crate::core::process::ProcessDriver::holdings).
pub(in crate::core::process) fn holdings(inspect: &dyn Inspect, process: &ProcessId) -> Holdings {
    let is_alive = |pid: &i32| inspect.process(*pid).ok().flatten().is_some_and(|process| !process.zombie);
    if !is_same(inspect, process).unwrap_or(false) {
        return Holdings::default();
    }
    let tree: Vec<i32> = inspect.descendants(process.pid.as_raw()).into_iter().filter(is_alive).collect();
    // A process that ended a moment ago has no more to report than one that may not be inspected.
    let sum = |of: &dyn Fn(i32) -> Option<u64>| {
        let known = tree.iter().filter_map(|pid| of(*pid).or_else(|| (!is_alive(pid)).then_some(0)));
        let known: Vec<u64> = known.collect();
        (known.len() == tree.len() && !tree.is_empty()).then(|| known.iter().sum())
    };
    Holdings { threads: sum(&|pid| inspect.threads(pid)), open_files: sum(&|pid| inspect.open_files(pid)) }
}
