//! Every platform but Linux, which means macOS: the sysinfo crate, and `lsof` for listening sockets.
//!
//! The tests compile and run this file on Linux, too.

#[cfg(target_os = "macos")]
mod macos;

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::facts::{Inspect, Process, Resources, Socket, descendants};
use crate::core::process::driver::{INSTANCE_VARIABLE, ProcessError};
use crate::core::process::host::Host;

/// Whatever sysinfo runs on.
///
/// A zombie is not seen at all where the system hides it (macOS), which is as good as dead. Start times are the
/// kernel's, in seconds since 1970, fixed when the process starts.
pub(in crate::core::process) struct Portable;

/// Part of macOS, and not on everybody's `PATH`.
const LSOF: &str = if cfg!(target_os = "macos") { "/usr/sbin/lsof" } else { "lsof" };

/// lsof has been seen to hang on dead network file systems.
const LSOF_LIMIT: Duration = Duration::from_secs(5);

/// A local connection is accepted or refused at once.
const CONNECT_LIMIT: Duration = Duration::from_millis(250);

/// Asks about the given processes only: looking at all of them takes a hundred times as long.
fn look(pids: ProcessesToUpdate<'_>, what: ProcessRefreshKind) -> System {
    let mut system = System::new();
    system.refresh_processes_specifics(pids, true, what.without_tasks());
    system
}

fn look_at<T>(pid: i32, what: ProcessRefreshKind, read: impl FnOnce(&sysinfo::Process) -> T) -> Option<T> {
    let pid = sysinfo::Pid::from_u32(u32::try_from(pid).ok()?);
    look(ProcessesToUpdate::Some(&[pid]), what).process(pid).map(read)
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
        Ok(look_at(pid, ProcessRefreshKind::nothing(), describe))
    }

    #[cfg(target_os = "macos")]
    fn sleep_until_exit(&self, pid: i32, limit: Duration) -> io::Result<()> {
        macos::sleep_until_exit(pid, limit)
    }

    fn processes(&self) -> Result<Vec<Process>, ProcessError> {
        let system = look(ProcessesToUpdate::All, ProcessRefreshKind::nothing());
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

    fn has_instance(&self, pid: i32, instance: &str) -> bool {
        let environment = ProcessRefreshKind::nothing().with_environ(UpdateKind::Always);
        let wanted = format!("{INSTANCE_VARIABLE}={instance}");
        look_at(pid, environment, |process| process.environ().iter().any(|variable| *variable == *wanted))
            .unwrap_or(false)
    }

    fn resources(&self, pid: i32) -> Option<Resources> {
        look_at(pid, ProcessRefreshKind::nothing().with_memory().with_cpu(), |process| Resources {
            memory_bytes: process.memory(),
            cpu_time: Duration::from_millis(process.accumulated_cpu_time()),
        })
    }

    fn age(&self, process: &Process) -> Option<Duration> {
        let started = UNIX_EPOCH.checked_add(Duration::from_secs(process.start_time))?;
        // The clock may have been set back meanwhile.
        Some(SystemTime::now().duration_since(started).unwrap_or_default())
    }

    fn program(&self, pid: i32) -> Option<String> {
        let name = |process: &sysinfo::Process| process.name().to_string_lossy().into_owned();
        look_at(pid, ProcessRefreshKind::nothing(), name).filter(|name| !name.is_empty())
    }

    fn listening(&self, port: u16) -> Result<Vec<Socket>, ProcessError> {
        let report = lsof(port).map_err(|source| ProcessError::System { what: "run lsof", source })?;
        Ok(read_lsof(&String::from_utf8_lossy(&report)))
    }

    fn sockets_of(&self, pid: i32, sockets: &[u64]) -> Vec<u64> {
        // lsof told the owner, so that is what a socket is known by.
        sockets.iter().copied().filter(|socket| i64::try_from(*socket) == Ok(i64::from(pid))).collect()
    }

    /// Unless it is run by root, lsof tells of the user's own processes only; a connection tells of the others.
    fn accepts(&self, target: SocketAddr) -> bool {
        TcpStream::connect_timeout(&target, CONNECT_LIMIT).is_ok()
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

/// The time of the boot, which moves when the clock is set: the best there is elsewhere.
#[cfg(not(target_os = "macos"))]
fn boot_id() -> io::Result<String> {
    match System::boot_time() {
        0 => Err(io::ErrorKind::Unsupported.into()),
        time => Ok(time.to_string()),
    }
}

/// What lsof reports of the sockets that listen at a port, in the form of its option `-F`.
fn lsof(port: u16) -> io::Result<Vec<u8>> {
    let mut child = Command::new(LSOF)
        .args(["-nP", &format!("-iTCP:{port}"), "-sTCP:LISTEN", "-Fptn"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let begin = Instant::now();
    // It fails when it finds nothing, so its exit code says nothing. What it finds at one port fits into the pipe.
    while child.try_wait()?.is_none() {
        if begin.elapsed() > LSOF_LIMIT {
            child.kill()?;
            // What hangs in the kernel dies only when the call returns: a thread waits for that, and leaves no zombie.
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

/// One field on a line, its letter first: `p` PID, then for each descriptor `f` number, `t` IPv4 or IPv6, `n` name,
/// such as `127.0.0.1:8080`, `[::1]:8080` or `*:8080`.
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
        // A link-local address names its interface.
        host => host.trim_matches(['[', ']']).split('%').next()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In the form that lsof(8) describes, for a port with several listeners.
    #[test]
    fn the_report_of_lsof_is_read() {
        let report = "p501\nf3\ntIPv4\nn127.0.0.1:8080\nf4\ntIPv6\nn[::1]:8080\np777\nf9\ntIPv6\nn*:8080\n\
                      p778\nf9\ntIPv4\nn*:8080\nf10\ntIPv6\nn[fe80::1%lo0]:8080\n";
        let found: Vec<(u64, String)> =
            read_lsof(report).into_iter().map(|socket| (socket.id, socket.address.to_string())).collect();
        let expected = [(501, "127.0.0.1"), (501, "::1"), (777, "::"), (778, "0.0.0.0"), (778, "fe80::1")];
        assert_eq!(found, expected.map(|(id, address)| (id, address.to_owned())));
    }

    #[test]
    fn nothing_found_is_an_empty_report() {
        assert_eq!(read_lsof(""), []);
        assert_eq!(read_lsof("n127.0.0.1:8080\n"), []);
    }

    proptest! {
        #[test]
        fn no_report_is_fatal(report in "([ptn]?[^\n]{0,40}\n){0,8}") {
            let _ = read_lsof(&report);
        }
    }
}
