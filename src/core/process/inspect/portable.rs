//! Every platform but Linux (that is, macOS): the sysinfo crate, and `lsof` for listening sockets.
//!
//! The tests compile and run this file on Linux, too.

#[cfg(target_os = "macos")]
mod macos;

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::facts::{Inspect, Process, Resources, Socket, descendants};
use crate::core::process::driver::{INSTANCE_VARIABLE, ProcessError};
use crate::core::process::host::Host;

/// Any system that sysinfo supports.
///
/// macOS hides zombies, which count as dead anyway. Start times are the kernel's, in seconds since 1970, fixed when the
/// process starts.
pub(in crate::core::process) struct Portable;

/// Part of macOS, but not in every `PATH`.
const LSOF: &str = if cfg!(target_os = "macos") { "/usr/sbin/lsof" } else { "lsof" };

/// lsof can hang on dead network file systems.
const LSOF_TIMEOUT: Duration = Duration::from_secs(5);

/// A local connection is accepted or refused at once.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// Inspects the given processes only: inspecting all of them takes a hundred times as long.
fn refreshed(pids: ProcessesToUpdate<'_>, what: ProcessRefreshKind) -> System {
    let mut system = System::new();
    system.refresh_processes_specifics(pids, true, what.without_tasks());
    system
}

fn read<T>(pid: i32, what: ProcessRefreshKind, read: impl FnOnce(&sysinfo::Process) -> T) -> Option<T> {
    let pid = sysinfo::Pid::from_u32(u32::try_from(pid).ok()?);
    refreshed(ProcessesToUpdate::Some(&[pid]), what).process(pid).map(read)
}

fn number(pid: sysinfo::Pid) -> i32 {
    i32::try_from(pid.as_u32()).unwrap_or_default()
}

fn describe(process: &sysinfo::Process) -> Process {
    Process {
        pid: number(process.pid()),
        start_time: process.start_time(),
        parent: process.parent().map_or(0, number),
        session: process.session_id().map_or(0, number),
        zombie: matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead),
    }
}

impl Inspect for Portable {
    fn host(&self) -> Result<Host, ProcessError> {
        let boot_id =
            boot_id().map_err(|source| ProcessError::System { what: "read the id of the boot", source })?;
        let name = System::host_name().unwrap_or_default();
        Ok(Host { boot_id, pid_namespace: None, machine_id: machine_id(), name })
    }

    fn process(&self, pid: i32) -> Result<Option<Process>, ProcessError> {
        Ok(read(pid, ProcessRefreshKind::nothing(), describe))
    }

    #[cfg(target_os = "macos")]
    fn sleep_until_exit(&self, pid: i32, limit: Duration) -> io::Result<()> {
        macos::sleep_until_exit(pid, limit)
    }

    fn processes(&self) -> Result<Vec<Process>, ProcessError> {
        let system = refreshed(ProcessesToUpdate::All, ProcessRefreshKind::nothing());
        let processes = system.processes().values().filter(|process| process.thread_kind().is_none());
        Ok(processes.map(describe).collect())
    }

    #[cfg(target_os = "macos")]
    fn descendants(&self, pid: i32) -> Vec<i32> {
        descendants(pid, macos::children)
    }

    #[cfg(not(target_os = "macos"))]
    fn descendants(&self, pid: i32) -> Vec<i32> {
        let everyone = self.processes().unwrap_or_default();
        descendants(pid, |pid| super::facts::children_among(&everyone, pid))
    }

    fn instance(&self, pid: i32) -> Option<String> {
        let environment = ProcessRefreshKind::nothing().with_environ(UpdateKind::Always);
        let value = |variable: &OsString| {
            Some(variable.to_str()?.strip_prefix(INSTANCE_VARIABLE)?.strip_prefix('=')?.to_owned())
        };
        read(pid, environment, |process| process.environ().iter().find_map(value)).flatten()
    }

    fn resources(&self, pid: i32) -> Option<Resources> {
        read(pid, ProcessRefreshKind::nothing().with_memory().with_cpu(), |process| Resources {
            memory_bytes: process.memory(),
            cpu_time: Duration::from_millis(process.accumulated_cpu_time()),
        })
    }

    #[cfg(target_os = "macos")]
    fn threads(&self, pid: i32) -> Option<u64> {
        macos::threads(pid)
    }

    #[cfg(target_os = "macos")]
    fn open_files(&self, pid: i32) -> Option<u64> {
        macos::open_files(pid)
    }

    fn age(&self, process: &Process) -> Option<Duration> {
        let started = UNIX_EPOCH.checked_add(Duration::from_secs(process.start_time))?;
        // The clock may have been set back since.
        Some(SystemTime::now().duration_since(started).unwrap_or_default())
    }

    fn program(&self, pid: i32) -> Option<String> {
        let name = |process: &sysinfo::Process| process.name().to_string_lossy().into_owned();
        read(pid, ProcessRefreshKind::nothing(), name).filter(|name| !name.is_empty())
    }

    fn listening(&self, port: u16) -> Result<Vec<Socket>, ProcessError> {
        let report = lsof(port).map_err(|source| ProcessError::System { what: "run lsof", source })?;
        Ok(read_lsof(&String::from_utf8_lossy(&report)))
    }

    fn sockets_of(&self, pid: i32, sockets: &[u64]) -> Vec<u64> {
        // The id of a socket is the PID that lsof reported.
        sockets.iter().copied().filter(|socket| i64::try_from(*socket) == Ok(i64::from(pid))).collect()
    }

    /// For users other than root, lsof reports their own processes only. A connection detects the others.
    fn accepts(&self, target: SocketAddr) -> bool {
        TcpStream::connect_timeout(&target, CONNECT_TIMEOUT).is_ok()
    }
}

#[cfg(target_os = "macos")]
fn boot_id() -> io::Result<String> {
    macos::boot_id()
}

#[cfg(target_os = "macos")]
fn machine_id() -> Option<String> {
    macos::machine_id()
}

#[cfg(not(target_os = "macos"))]
fn machine_id() -> Option<String> {
    None
}

/// Returns the time of the boot, the best id on other systems. It moves when the clock is set.
#[cfg(not(target_os = "macos"))]
fn boot_id() -> io::Result<String> {
    match System::boot_time() {
        0 => Err(io::ErrorKind::Unsupported.into()),
        time => Ok(time.to_string()),
    }
}

/// Returns what lsof reports of the sockets that listen on a port, in the format of its option `-F`.
fn lsof(port: u16) -> io::Result<Vec<u8>> {
    let mut child = Command::new(LSOF)
        .args(["-nP", &format!("-iTCP:{port}"), "-sTCP:LISTEN", "-Fptn"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let begin = Instant::now();
    // Its exit code has no meaning here: it fails if it finds nothing. Its report on one port fits into the pipe.
    while child.try_wait()?.is_none() {
        if begin.elapsed() > LSOF_TIMEOUT {
            child.kill()?;
            // A process that hangs in the kernel dies only when its system call returns. A thread waits for that, so
            // that no zombie is left.
            thread::Builder::new().spawn(move || child.wait())?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    let mut report = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut report)?;
    }
    Ok(report)
}

/// Parses a report. Each line is a field that begins with a letter: `p` PID, then for each descriptor `f` number, `t`
/// IPv4 or IPv6, `n` name, such as `127.0.0.1:8080`, `[::1]:8080` or `*:8080`.
fn read_lsof(report: &str) -> Vec<Socket> {
    let (mut id, mut v6) = (None, false);
    let mut sockets = Vec::new();
    for line in report.lines() {
        if let Some(pid) = line.strip_prefix('p') {
            id = pid.parse().ok();
        } else if let Some(family) = line.strip_prefix('t') {
            v6 = family == "IPv6";
        } else if let Some(name) = line.strip_prefix('n')
            && let (Some(id), Some(address)) = (id, read_name(name, v6))
        {
            sockets.push(Socket { address, only_v6: false, id });
        }
    }
    sockets
}

fn read_name(name: &str, v6: bool) -> Option<IpAddr> {
    let (host, _port) = name.rsplit_once(':')?;
    match host {
        "*" if v6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        "*" => Some(Ipv4Addr::UNSPECIFIED.into()),
        // A link-local address is followed by its interface.
        host => host.trim_matches(['[', ']']).split('%').next()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The format is that of lsof(8), for a port with several listeners.
    #[test]
    fn a_report_of_lsof_is_parsed() {
        let report = "p501\nf3\ntIPv4\nn127.0.0.1:8080\nf4\ntIPv6\nn[::1]:8080\np777\nf9\ntIPv6\nn*:8080\n\
                      p778\nf9\ntIPv4\nn*:8080\nf10\ntIPv6\nn[fe80::1%lo0]:8080\n";
        let found: Vec<(u64, String)> =
            read_lsof(report).into_iter().map(|socket| (socket.id, socket.address.to_string())).collect();
        let expected = [(501, "127.0.0.1"), (501, "::1"), (777, "::"), (778, "0.0.0.0"), (778, "fe80::1")];
        assert_eq!(found, expected.map(|(id, address)| (id, address.to_owned())));
    }

    #[test]
    fn an_empty_report_has_no_sockets() {
        assert_eq!(read_lsof(""), []);
        assert_eq!(read_lsof("n127.0.0.1:8080\n"), []);
    }

    proptest! {
        #[test]
        fn any_report_is_parsed_without_panic(report in "([ptn]?[^\n]{0,40}\n){0,8}") {
            let _ = read_lsof(&report);
        }
    }
}
