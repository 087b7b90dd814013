//! The processes of an instance.

use super::facts::{Inspect, Process};
use super::identity::is_same;
use crate::core::order;
use crate::core::pid::Pid;
use crate::core::process::driver::{Instance, ProcessError};
use crate::core::process::id::ProcessId;

/// What is known of an instance without inspecting every process.
pub(super) struct KnownInstance<'a> {
    instance: Instance<'a>,
    /// The leader is alive or a zombie.
    leads: bool,
    /// The earliest start time of a member. `None` if there can be no member on this host, because the leader was
    /// started on another one, or before its last boot.
    since: Option<u64>,
}

impl<'a> KnownInstance<'a> {
    pub(super) fn of(inspect: &dyn Inspect, instance: Instance<'a>) -> Result<Self, ProcessError> {
        let leads = instance.leader.map_or(Ok(false), |leader| is_same(inspect, leader))?;
        let host = inspect.host()?;
        let since = match instance.leader {
            Some(leader) => (leader.host == host).then_some(leader.start_time),
            None => Some(0),
        };
        Ok(Self { instance, leads, since })
    }

    /// Returns the leader's PID, if the leader is alive or a zombie.
    pub(super) fn leader(&self) -> Option<i32> {
        self.instance.leader.filter(|_| self.leads).map(|leader| leader.pid.as_raw())
    }

    /// Returns whether a process belongs to the instance.
    pub(super) fn has(&self, inspect: &dyn Inspect, pid: i32, everyone: &[Process]) -> bool {
        self.members(inspect, everyone).iter().any(|member| member.pid == pid)
    }

    /// Returns the processes of the instance among `everyone`, zombies included: those with its id in their
    /// environment, the leader and its children, and those that descend from a member or are in a session that a member
    /// leads, but none that another start made.
    pub(super) fn members<'p>(&self, inspect: &dyn Inspect, everyone: &'p [Process]) -> Vec<&'p Process> {
        let Some(since) = self.since else { return Vec::new() };
        let own = std::process::id().cast_signed();
        let others = || everyone.iter().filter(|process| process.pid != own && process.start_time >= since);
        let is_proven = |process: &&Process| {
            let has_id = || inspect.instance(process.pid).is_some_and(|id| id == self.instance.id);
            let is_child = || {
                inspect.was_started_by_leader(process.pid, self.instance)
                    && !inspect.is_other_start(process, self.instance.id, self.leader())
            };
            !process.zombie && (has_id() || is_child())
        };
        let proven: Vec<&Process> = others().filter(is_proven).collect();
        let mut members: Vec<i32> = proven.iter().map(|process| process.pid).collect();
        // The number of a session is the PID of its leader, and the kernel does not reuse that PID while the session
        // has members. So if the leader is gone, a process that is proven to be ours proves that its session is.
        // Without one, the session may be that of another process that got the same PID.
        let is_ours = |number: &i32| self.leads || proven.iter().any(|process| process.session == *number);
        members.extend(self.instance.leader.map(|leader| leader.pid.as_raw()).filter(is_ours));
        loop {
            let belongs = |process: &&Process| {
                !members.contains(&process.pid)
                    && (members.contains(&process.parent) || members.contains(&process.session))
                    // The gateway is the parent of services that outlive it.
                    && !inspect.is_other_start(process, self.instance.id, self.leader())
            };
            let more: Vec<i32> = others().filter(belongs).map(|process| process.pid).collect();
            if more.is_empty() {
                break;
            }
            members.extend(more);
        }
        others().filter(|process| members.contains(&process.pid)).collect()
    }
}

/// See [`ProcessDriver::members`](crate::core::process::ProcessDriver::members).
pub(in crate::core::process) fn members(
    inspect: &dyn Inspect,
    instance: Instance<'_>,
) -> Result<Vec<ProcessId>, ProcessError> {
    let known = KnownInstance::of(inspect, instance)?;
    let host = inspect.host()?;
    let everyone = inspect.processes()?;
    let living = known.members(inspect, &everyone).into_iter().filter(|process| !process.zombie);
    let checked = living.filter_map(|process| {
        let pid = Pid::try_from(i64::from(process.pid)).ok()?;
        Some(ProcessId { pid, start_time: process.start_time, host: host.clone() })
    });
    Ok(checked.collect())
}

/// Returns the living children of this process that were started since `first` and pass.
pub(in crate::core::process) fn children_since(
    inspect: &dyn Inspect,
    first: &ProcessId,
    passes: impl Fn(i32) -> bool,
) -> Result<Vec<ProcessId>, ProcessError> {
    let (own, host) = (std::process::id().cast_signed(), inspect.host()?);
    let is_meant = |process: &Process| {
        process.parent == own
            && !process.zombie
            && process.start_time >= first.start_time
            && passes(process.pid)
    };
    let mut found: Vec<Process> = inspect.processes()?.into_iter().filter(is_meant).collect();
    order::sort_by_key(&mut found, |process| process.start_time);
    let checked = found.into_iter().filter_map(|process| {
        let pid = Pid::try_from(i64::from(process.pid)).ok()?;
        Some(ProcessId { pid, start_time: process.start_time, host: host.clone() })
    });
    Ok(checked.collect())
}
