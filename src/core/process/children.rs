//! The children of this process.
//!
//! They are reaped here, because one whose handle was dropped would stay a zombie until this process ends.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd;

use super::driver::{Child, Ending, ProcessError};
use super::id::ProcessId;

/// The children that are not reaped yet. No other child of this process is waited for: other code may own it.
#[derive(Debug, Default)]
pub(super) struct Children {
    unreaped: Mutex<Vec<Arc<Spawned>>>,
    /// How the last ones ended that were reaped.
    endings: Mutex<Vec<(ProcessId, Ending)>>,
    /// The PIDs of what other processes left to this one.
    adopted: Mutex<Vec<i32>>,
}

/// How many endings are remembered.
const MAX_ENDINGS: usize = 64;

/// A child, shared by its handle and by [`Children`]. The standard library remembers how a reaped child ended.
#[derive(Debug)]
struct Spawned {
    id: ProcessId,
    process: Mutex<std::process::Child>,
}

struct Handle(Arc<Spawned>);

impl Children {
    pub(super) const fn new() -> Self {
        Self {
            unreaped: Mutex::new(Vec::new()),
            endings: Mutex::new(Vec::new()),
            adopted: Mutex::new(Vec::new()),
        }
    }

    /// Takes over a child. The handle returns how it ended even if it was reaped here.
    pub(super) fn adopt(&self, id: ProcessId, process: std::process::Child) -> Box<dyn Child> {
        let child = Arc::new(Spawned { id, process: Mutex::new(process) });
        locked(&self.unreaped).push(Arc::clone(&child));
        Box::new(Handle(child))
    }

    /// Reaps the children that have ended, with one system call for each child.
    pub(super) fn reap(&self) {
        locked(&self.unreaped).retain(|child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(ending)) => {
                self.remember(&child.id, ending);
                false
            }
            // It is not a child of this process any longer, which leaves nothing to reap.
            Err(_) => false,
        });
        let is_left = |pid: &i32| {
            let ended = waitpid(unistd::Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
            ended == Ok(WaitStatus::StillAlive)
        };
        locked(&self.adopted).retain(is_left);
    }

    fn remember(&self, child: &ProcessId, ending: Ending) {
        let mut endings = locked(&self.endings);
        if endings.len() >= MAX_ENDINGS {
            endings.remove(0);
        }
        endings.push((child.clone(), ending));
    }

    /// Returns how a child ended, if it was one of the last that were reaped.
    pub(super) fn ending(&self, child: &ProcessId) -> Option<Ending> {
        let endings = locked(&self.endings);
        endings.iter().find(|(ended, _)| ended == child).map(|(_, ending)| *ending)
    }

    /// Returns whether this process spawned the one with that PID.
    pub(super) fn has(&self, pid: i32) -> bool {
        locked(&self.unreaped).iter().any(|child| child.id.pid.as_raw() == pid)
    }

    /// Reaps a process that this one did not spawn, once it has ended.
    pub(super) fn reap_adopted(&self, pid: i32) {
        let mut adopted = locked(&self.adopted);
        if !adopted.contains(&pid) {
            adopted.push(pid);
        }
    }
}

impl Spawned {
    fn try_wait(&self) -> std::io::Result<Option<Ending>> {
        Ok(locked(&self.process).try_wait()?.map(ending))
    }
}

impl Child for Handle {
    fn id(&self) -> &ProcessId {
        &self.0.id
    }

    fn try_wait(&self) -> Result<Option<Ending>, ProcessError> {
        self.0.try_wait().map_err(|source| ProcessError::System { what: "wait for the process", source })
    }
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, signal) => Ending::Signal(signal.unwrap_or_default()),
    }
}

/// Locks the mutex even if a thread panicked: its content is sound at every moment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
