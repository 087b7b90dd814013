//! The seam between platforms: the facts that each provides, as plain data.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
#[cfg(any(test, target_os = "macos"))]
use std::{ffi::OsStr, path::Path};

use crate::core::process::driver::{Instance, ProcessError};
use crate::core::process::host::Host;
use crate::core::process::socket::Socket;

/// One process at one moment. The numbers are unchecked: 0 and 1 occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::core::process) struct Process {
    pub(in crate::core::process) pid: i32,
    /// See [`ProcessId::start_time`](crate::core::process::ProcessId::start_time).
    pub(in crate::core::process) start_time: u64,
    pub(in crate::core::process) parent: i32,
    /// The PID of its session leader.
    pub(in crate::core::process) session: i32,
    /// It has ended and is not reaped yet.
    pub(in crate::core::process) zombie: bool,
}

/// What one process uses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::core::process) struct Resources {
    /// Resident memory, in bytes.
    pub(in crate::core::process) memory_bytes: u64,
    /// CPU time of all its threads since its start.
    pub(in crate::core::process) cpu_time: Duration,
}

/// The facts that a platform provides.
pub(in crate::core::process) trait Inspect: Sync {
    /// Returns the host on which this process runs.
    fn host(&self) -> Result<Host, ProcessError>;

    /// Returns the process with that PID, even if it is a zombie.
    fn process(&self, pid: i32) -> Result<Option<Process>, ProcessError>;

    /// Sleeps until the process with that PID ends, but at most `limit`; returns at once when there is none. An error
    /// where the system cannot report the end of a process that is no child.
    fn sleep_until_exit(&self, _pid: i32, _limit: Duration) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns every process that the system lets this user see.
    fn processes(&self) -> Result<Vec<Process>, ProcessError>;

    /// Returns the process and its descendants, zombies included, parents before children. Inspects no other process,
    /// if the system supports that.
    fn descendants(&self, pid: i32) -> Vec<i32>;

    /// Returns the instance id in the environment with which the process was started; `None` if it has none, or if this
    /// user may not read it.
    fn instance(&self, pid: i32) -> Option<String>;

    /// Returns the device and the number of the file that is open as this descriptor of the process; `None` if this user
    /// may not know it.
    fn file_of(&self, _pid: i32, _descriptor: i32) -> Option<(u64, u64)> {
        None
    }

    /// Returns whether the system hides the environment of some processes.
    fn hides_environments(&self) -> bool {
        false
    }

    /// Returns whether another start than that of `instance` made the process: it leads a session, as each start
    /// does, and has an instance id of its own. `leader` is the living leader of the instance.
    ///
    /// Of a process with a hidden environment it is not known which start made it. fusion hides none, so only a leader
    /// that hides none, too, may be the gateway, which is the parent of services that outlive it.
    fn is_other_start(&self, process: &Process, instance: &str, leader: Option<i32>) -> bool {
        process.session == process.pid
            && match self.instance(process.pid) {
                Some(own) => own != instance,
                None => {
                    self.hides_environments() && leader.is_none_or(|leader| self.instance(leader).is_some())
                }
            }
    }

    /// Returns whether the leader of the instance started the process, where the system remembers the parent of a
    /// process after that has ended.
    fn was_started_by_leader(&self, _pid: i32, _instance: Instance<'_>) -> bool {
        false
    }

    /// Returns the process, even if it is a zombie, and what it uses; `None` if there is none.
    fn resources(&self, pid: i32) -> Option<(Process, Resources)>;

    /// Returns the number of its threads; `None` if the system does not report it.
    fn threads(&self, _pid: i32) -> Option<u64> {
        None
    }

    /// Returns the number of its open file descriptors; `None` if the system does not report it.
    fn open_files(&self, _pid: i32) -> Option<u64> {
        None
    }

    /// Returns how long ago the process started, by the kernel's clock.
    fn age(&self, process: &Process) -> Option<Duration>;

    /// Returns the name of its program.
    fn program(&self, pid: i32) -> Option<String>;

    /// Returns the sockets that listen on a TCP port; without one, on any.
    fn listening(&self, port: Option<u16>) -> Result<Vec<Socket>, ProcessError>;

    /// Returns the PIDs of the processes that may hold one of the sockets, the oldest first.
    fn possible_holders(&self, _sockets: &[u64]) -> Result<Vec<i32>, ProcessError> {
        Ok(self.processes()?.iter().map(|process| process.pid).collect())
    }

    /// Returns whether this user may know who holds the socket.
    fn can_find_holder(&self, _socket: &Socket) -> bool {
        true
    }

    /// Returns how soon the process is to be asked whether it holds one of the sockets: 0 if that is likely and costs
    /// little.
    fn holder_rank(&self, _pid: i32, _sockets: &[Socket]) -> usize {
        0
    }

    /// Returns which of the sockets (by their `id`) the process holds.
    fn sockets_of(&self, pid: i32, sockets: &[u64]) -> Vec<u64>;

    /// Returns whether a listener that [`Inspect::listening`] cannot see accepts connections.
    fn accepts(&self, _target: SocketAddr) -> bool {
        false
    }
}

/// Returns the process and its descendants, parents before children.
pub(super) fn descendants(root: i32, children: impl Fn(i32) -> Vec<i32>) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        for child in children(*pid) {
            // PIDs are reused while this runs, so a child may seem to be its own ancestor.
            if !found.contains(&child) {
                found.push(child);
            }
        }
        next += 1;
    }
    found
}

/// Returns the name of the program with this path. Inside of an application it is that of the application, which the
/// user knows and which may start the program again.
#[cfg(any(test, target_os = "macos"))]
pub(super) fn program_of(path: &Path) -> Option<String> {
    let name = |part: &OsStr| part.to_string_lossy().into_owned();
    let is_library = |part: &OsStr| Path::new(part).extension().is_some_and(|end| end == "framework");
    let is_application = |part: &OsStr| Path::new(part).extension().is_some_and(|end| end == "app");
    let application = path.iter().take_while(|part| !is_library(part)).find(|part| is_application(part));
    application.or(path.file_name()).map(name)
}

#[cfg(not(target_os = "macos"))]
pub(super) fn children_among(everyone: &[Process], parent: i32) -> Vec<i32> {
    everyone.iter().filter(|process| process.parent == parent).map(|process| process.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_an_application_has_its_name() {
        for (path, name) in [
            ("/Applications/Ollama.app/Contents/Resources/ollama", "Ollama.app"),
            ("/opt/homebrew/bin/ollama", "ollama"),
            (
                "/Library/Frameworks/Python.framework/Versions/3.12/Resources/Python.app/Contents/MacOS/Python",
                "Python",
            ),
        ] {
            assert_eq!(program_of(Path::new(path)).as_deref(), Some(name));
        }
        assert_eq!(program_of(Path::new("/")), None);
    }
}
