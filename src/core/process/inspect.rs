//! What the kernel says of processes: who they are, who belongs together, what they use, who listens.
//!
//! [`Inspect`] is the seam between platforms: `linux` reads `/proc`, `portable` asks the sysinfo crate and `lsof`.
//! What follows from the facts is decided here, once for all platforms.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;
mod sockets;
#[cfg(test)]
mod strangers;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Instance, Pid, ProcessError, ProcessId, Usage};

pub(super) use sockets::{Socket, listener};

/// One process at one moment. Numbers are as the kernel has them, so 0 and 1 occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// See [`ProcessId::start_time`].
    pub(super) start_time: u64,
    pub(super) parent: i32,
    /// The PID of the process that leads its session.
    pub(super) session: i32,
    /// It has ended, and its parent has not asked yet how.
    pub(super) zombie: bool,
}

/// What one process has used and uses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Resources {
    /// Resident memory, in bytes.
    pub(super) memory_bytes: u64,
    /// CPU time since its start, of all its threads.
    pub(super) cpu_time: Duration,
}

/// The facts that a platform must know.
pub(super) trait Inspect: Sync {
    /// A name that no other boot of any machine has.
    fn boot_id(&self) -> Result<String, ProcessError>;

    /// The process with that PID, also when it is a zombie.
    fn process(&self, pid: i32) -> Result<Option<Process>, ProcessError>;

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

/// The platform's own.
pub(super) fn native() -> &'static dyn Inspect {
    #[cfg(target_os = "linux")]
    return &linux::Linux;
    #[cfg(not(target_os = "linux"))]
    return &portable::Portable;
}

/// Who has this PID now; `None` when nobody or a zombie.
pub(super) fn identify(inspect: &dyn Inspect, pid: Pid) -> Result<Option<ProcessId>, ProcessError> {
    let boot_id = inspect.boot_id()?;
    let process = inspect.process(pid.as_raw())?.filter(|process| !process.zombie);
    Ok(process.map(|process| ProcessId { pid, start_time: process.start_time, boot_id }))
}

/// What of an instance can be told without looking at every process.
pub(super) struct Known<'a> {
    instance: Instance<'a>,
    /// The leader is still that very process, or its zombie.
    leads: bool,
    /// No member has started before the leader; `None` when the machine was booted since, and all are gone.
    since: Option<u64>,
}

impl<'a> Known<'a> {
    pub(super) fn of(inspect: &dyn Inspect, instance: Instance<'a>) -> Result<Self, ProcessError> {
        let leads = instance.leader.map_or(Ok(false), |leader| is_same(inspect, leader))?;
        let boot_id = inspect.boot_id()?;
        let since = match instance.leader {
            Some(leader) => (leader.boot_id == boot_id).then_some(leader.start_time),
            None => Some(0),
        };
        Ok(Self { instance, leads, since })
    }

    /// The leader's PID, while it is that very process or its zombie.
    pub(super) fn leader(&self) -> Option<i32> {
        self.instance.leader.filter(|_| self.leads).map(|leader| leader.pid.as_raw())
    }

    /// Whether a process belongs to the instance.
    fn has(&self, inspect: &dyn Inspect, pid: i32, everyone: &[Process]) -> bool {
        self.members(inspect, everyone).iter().any(|member| member.pid == pid)
    }

    /// The processes of the instance among `everyone`, zombies included: those with its id in their environment,
    /// the leader, and whatever descends from a member or is in a session that a member leads.
    pub(super) fn members<'p>(&self, inspect: &dyn Inspect, everyone: &'p [Process]) -> Vec<&'p Process> {
        let Some(since) = self.since else { return Vec::new() };
        let own = std::process::id().cast_signed();
        let others = || everyone.iter().filter(|process| process.pid != own && process.start_time >= since);
        let has_id =
            |process: &&Process| !process.zombie && inspect.has_instance(process.pid, self.instance.id);
        let named: Vec<&Process> = others().filter(has_id).collect();
        let mut members: HashSet<i32> = named.iter().map(|process| process.pid).collect();
        // The number of a session is the PID of its leader, and the kernel gives that PID to nobody while somebody
        // is in the session. So when the leader is gone, one that has the id proves that its session is ours still;
        // without one, it may be the session of a stranger who had the same PID.
        let is_ours = |number: &i32| self.leads || named.iter().any(|process| process.session == *number);
        members.extend(self.instance.leader.map(|leader| leader.pid.as_raw()).filter(is_ours));
        loop {
            let belongs = |process: &&Process| {
                !members.contains(&process.pid)
                    && (members.contains(&process.parent) || members.contains(&process.session))
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

/// Whether the process has not been replaced by another: it runs, or is a zombie.
pub(super) fn is_same(inspect: &dyn Inspect, process: &ProcessId) -> Result<bool, ProcessError> {
    let now = inspect.process(process.pid.as_raw())?;
    let same = now.is_some_and(|now| now.start_time == process.start_time);
    Ok(same && inspect.boot_id()? == process.boot_id)
}

/// See [`ProcessDriver::members`](super::ProcessDriver::members).
pub(super) fn members(inspect: &dyn Inspect, instance: Instance<'_>) -> Result<Vec<ProcessId>, ProcessError> {
    let known = Known::of(inspect, instance)?;
    let boot_id = inspect.boot_id()?;
    let everyone = inspect.processes()?;
    let living = known.members(inspect, &everyone).into_iter().filter(|process| !process.zombie);
    let checked = living.filter_map(|process| {
        let pid = Pid::try_from(i64::from(process.pid)).ok()?;
        Some(ProcessId { pid, start_time: process.start_time, boot_id: boot_id.clone() })
    });
    Ok(checked.collect())
}

/// A process and its descendants, parents before children, zombies included.
fn descendants(root: i32, children: impl Fn(i32) -> Vec<i32>) -> Vec<i32> {
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
fn children_among(everyone: &[Process], parent: i32) -> Vec<i32> {
    everyone.iter().filter(|process| process.parent == parent).map(|process| process.pid).collect()
}

/// See [`ProcessDriver::usage`](super::ProcessDriver::usage).
pub(super) fn usage(inspect: &dyn Inspect, process: &ProcessId) -> Option<Usage> {
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

/// This process and those from which it was started: to signal one of them is to end this one.
pub(super) fn ourselves(inspect: &dyn Inspect) -> Vec<i32> {
    let mut found = vec![std::process::id().cast_signed()];
    while let Some(Ok(Some(process))) = found.last().map(|pid| inspect.process(*pid)) {
        if process.parent <= 1 || found.contains(&process.parent) {
            break;
        }
        found.push(process.parent);
    }
    found
}
