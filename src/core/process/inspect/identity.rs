//! Identities of processes.

use super::facts::Inspect;
use crate::core::pid::Pid;
use crate::core::process::driver::ProcessError;
use crate::core::process::id::ProcessId;

/// See [`ProcessDriver::identify`](crate::core::process::ProcessDriver::identify).
pub(in crate::core::process) fn identify(
    inspect: &dyn Inspect,
    pid: Pid,
) -> Result<Option<ProcessId>, ProcessError> {
    let host = inspect.host()?;
    let process = inspect.process(pid.as_raw())?.filter(|process| !process.zombie);
    Ok(process.map(|process| ProcessId { pid, start_time: process.start_time, host }))
}

/// Returns whether the process is alive or a zombie.
pub(in crate::core::process) fn is_same(
    inspect: &dyn Inspect,
    process: &ProcessId,
) -> Result<bool, ProcessError> {
    let now = inspect.process(process.pid.as_raw())?;
    let same = now.is_some_and(|now| now.start_time == process.start_time);
    Ok(same && inspect.host()? == process.host)
}

/// Returns this process and its ancestors. A signal to one of them would end this one.
pub(in crate::core::process) fn ourselves(inspect: &dyn Inspect) -> Vec<i32> {
    let mut found = vec![std::process::id().cast_signed()];
    while let Some(Ok(Some(process))) = found.last().map(|pid| inspect.process(*pid)) {
        if process.parent <= 1 || found.contains(&process.parent) {
            break;
        }
        found.push(process.parent);
    }
    found
}
