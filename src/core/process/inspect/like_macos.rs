//! Linux without what macOS hides, for the tests of a build that acts as if it ran there (feature `like-macos`).
//!
//! Hidden are zombies, and the environment of the system's own programs and of what is called `ollama`, whose makers
//! sign it with the hardened runtime.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::facts::{Inspect, Process, Resources};
use super::linux::Linux;
use crate::core::process::driver::{Instance, ProcessError};
use crate::core::process::host::Host;
use crate::core::process::id::ProcessId;
use crate::core::process::socket::Socket;

/// Linux, as macOS would show it.
pub(in crate::core::process) struct LikeMacos;

/// The directories of the system's own programs.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/bin", "/sbin", "/usr/bin", "/usr/sbin"];

/// A program whose makers sign it with the hardened runtime.
const HARDENED: &str = "ollama";

impl Inspect for LikeMacos {
    fn host(&self) -> Result<Host, ProcessError> {
        Linux.host()
    }

    fn process(&self, pid: i32) -> Result<Option<Process>, ProcessError> {
        Ok(Linux.process(pid)?.filter(|process| !process.zombie))
    }

    fn sleep_until_exit(&self, pid: i32, limit: Duration) -> io::Result<()> {
        Linux.sleep_until_exit(pid, limit)
    }

    fn processes(&self) -> Result<Vec<Process>, ProcessError> {
        Ok(Linux.processes()?.into_iter().filter(|process| !process.zombie).collect())
    }

    fn descendants(&self, pid: i32) -> Vec<i32> {
        Linux.descendants(pid)
    }

    fn instance(&self, pid: i32) -> Option<String> {
        if hides_environment(pid) { None } else { Linux.instance(pid) }
    }

    fn file_of(&self, pid: i32, descriptor: i32) -> Option<(u64, u64)> {
        Linux.file_of(pid, descriptor)
    }

    fn hides_environments(&self) -> bool {
        true
    }

    /// Linux forgets the first parent of a process. The id that a process inherits stands in for it.
    fn was_started_by_leader(&self, pid: i32, instance: Instance<'_>) -> bool {
        let is_other = |leader: &ProcessId| leader.pid.as_raw() != pid;
        instance.leader.is_some_and(is_other) && Linux.instance(pid).is_some_and(|id| id == instance.id)
    }

    fn resources(&self, pid: i32) -> Option<(Process, Resources)> {
        Linux.resources(pid)
    }

    fn threads(&self, pid: i32) -> Option<u64> {
        Linux.threads(pid)
    }

    fn open_files(&self, pid: i32) -> Option<u64> {
        Linux.open_files(pid)
    }

    fn age(&self, process: &Process) -> Option<Duration> {
        Linux.age(process)
    }

    fn program(&self, pid: i32) -> Option<String> {
        Linux.program(pid)
    }

    fn listening(&self, port: Option<u16>) -> Result<Vec<Socket>, ProcessError> {
        Linux.listening(port)
    }

    fn possible_holders(&self, sockets: &[u64]) -> Result<Vec<i32>, ProcessError> {
        Linux.possible_holders(sockets)
    }

    fn can_find_holder(&self, socket: &Socket) -> bool {
        Linux.can_find_holder(socket)
    }

    fn holder_rank(&self, pid: i32, sockets: &[Socket]) -> usize {
        Linux.holder_rank(pid, sockets)
    }

    fn sockets_of(&self, pid: i32, sockets: &[u64]) -> Vec<u64> {
        Linux.sockets_of(pid, sockets)
    }

    fn accepts(&self, target: SocketAddr) -> bool {
        Linux.accepts(target)
    }
}

fn hides_environment(pid: i32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    let is_systems = program.is_ok_and(|program| {
        SYSTEM_DIRECTORIES.iter().any(|directory| program.parent() == Some(Path::new(directory)))
    });
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0).take(2).map(String::from_utf8_lossy);
    is_systems || words.any(|word| word.rsplit('/').next() == Some(HARDENED))
}
