//! The children of this process, which somebody must reap: one whose handle was dropped would stay a zombie for as long
//! as this process lives.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::{Child, Ending, ProcessError};
use super::id::ProcessId;

/// The children that have not been reaped. Only these are ever waited for: other code of this process has children, too.
#[derive(Debug, Default)]
pub(super) struct Children {
    unreaped: Mutex<Vec<Arc<Spawned>>>,
}

/// A child, shared by its handle and by [`Children`]. The standard library remembers how it ended once it was reaped.
#[derive(Debug)]
struct Spawned {
    id: ProcessId,
    process: Mutex<std::process::Child>,
}

struct Handle(Arc<Spawned>);

impl Children {
    pub(super) const fn new() -> Self {
        Self { unreaped: Mutex::new(Vec::new()) }
    }

    /// Takes over a child; the handle tells how it ended, whoever reaps it.
    pub(super) fn adopt(&self, id: ProcessId, process: std::process::Child) -> Box<dyn Child> {
        let child = Arc::new(Spawned { id, process: Mutex::new(process) });
        locked(&self.unreaped).push(Arc::clone(&child));
        Box::new(Handle(child))
    }

    /// Reaps those that have ended. One system call for each child that lives.
    pub(super) fn reap(&self) {
        // One that cannot be waited for is not this process's child, so there is nothing to reap.
        locked(&self.unreaped).retain(|child| matches!(child.try_wait(), Ok(None)));
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

/// A panic elsewhere leaves a list or a child that is as good as before.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
