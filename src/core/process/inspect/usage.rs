//! Memory, CPU, threads and open files of a process and its descendants.

use std::time::Duration;

use super::facts::Inspect;
use super::identity::is_same;
use crate::core::process::driver::{Holdings, Usage};
use crate::core::process::id::ProcessId;

/// See [`ProcessDriver::usage`](crate::core::process::ProcessDriver::usage).
pub(in crate::core::process) fn usage(inspect: &dyn Inspect, process: &ProcessId) -> Option<Usage> {
    let now = inspect.process(process.pid.as_raw()).ok()??;
    let same = !now.zombie && now.start_time == process.start_time && inspect.host().ok()? == process.host;
    let uptime = inspect.age(&now).filter(|_| same)?;
    let tree = inspect.descendants(now.pid);
    let others = made_by_others(inspect, now.pid, &tree);
    let (memory_bytes, cpu_time) = tree
        .into_iter()
        .filter(|pid| !others.contains(pid))
        .filter_map(|pid| inspect.resources(pid))
        .fold((0, Duration::ZERO), |sum, one| (sum.0 + one.memory_bytes, sum.1 + one.cpu_time));
    let cpu_percent =
        if uptime.is_zero() { 0.0 } else { 100.0 * cpu_time.as_secs_f64() / uptime.as_secs_f64() };
    Some(Usage { uptime, memory_bytes, cpu_percent })
}

/// Returns the processes among the descendants of `root` that other starts made, with all that descend from these: the
/// gateway is the parent of services.
fn made_by_others(inspect: &dyn Inspect, root: i32, tree: &[i32]) -> Vec<i32> {
    let others: Vec<i32> = match tree {
        [] | [_] => Vec::new(),
        _ => {
            let own = inspect.instance(root).unwrap_or_default();
            let is_other = |pid: &&i32| {
                let process = inspect.process(**pid).ok().flatten();
                **pid != root
                    && process.is_some_and(|process| inspect.is_other_start(&process, &own, Some(root)))
            };
            tree.iter().filter(is_other).copied().collect()
        }
    };
    others.into_iter().flat_map(|pid| inspect.descendants(pid)).collect()
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
