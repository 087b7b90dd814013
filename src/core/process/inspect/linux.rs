//! Linux: reads `/proc` (proc(5)); listening sockets come from `diag`.

mod diag;
mod pidfd;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::readlinkat;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, Uid, sysconf};

use super::facts::{Inspect, Process, Resources, children_among, descendants};
use crate::core::process::driver::{INSTANCE_VARIABLE, ProcessError};
use crate::core::process::host::Host;
use crate::core::process::socket::Socket;

/// The Linux kernel.
pub(in crate::core::process) struct Linux;

/// The fields of `/proc/PID/stat` that fusion uses, with their numbers in proc(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    /// Field 3.
    state: char,
    /// Field 4.
    parent: i32,
    /// Field 6.
    session: i32,
    /// Field 9.
    flags: u32,
    /// Fields 14 and 15: CPU time in clock ticks, in user and in kernel mode.
    ticks: u64,
    /// Field 20: the number of threads that have not ended. The first one counts even after its end.
    threads: u64,
    /// Field 22: clock ticks from boot to start.
    start_time: u64,
}

impl Stat {
    /// Parses the fields after the program's name (field 2), which is in parentheses and may hold spaces, parentheses
    /// and newlines.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let after_name = bytes.iter().rposition(|byte| *byte == b')')? + 1;
        let text = std::str::from_utf8(&bytes[after_name..]).ok()?;
        let mut fields = (3..).zip(text.split_ascii_whitespace());
        // Each call leaves the fields that follow.
        let mut field = |wanted: u32| fields.find(|(number, _)| *number == wanted).map(|(_, text)| text);
        Some(Self {
            state: field(3)?.chars().next()?,
            parent: field(4)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            flags: field(9)?.parse().ok()?,
            ticks: field(14)?.parse::<u64>().ok()?.checked_add(field(15)?.parse().ok()?)?,
            threads: field(20)?.parse().ok()?,
            start_time: field(22)?.parse().ok()?,
        })
    }

    fn read(pid: i32) -> Result<Option<Self>, ProcessError> {
        let bytes = match read_short(format!("/proc/{pid}/stat")) {
            Ok(bytes) => bytes,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(source) => return Err(unreadable(source)),
        };
        let malformed = || unreadable(io::Error::new(ErrorKind::InvalidData, "unknown format"));
        Self::parse(&bytes).map(Some).ok_or_else(malformed)
    }

    /// Returns whether the process has ended. A process that was just reaped has the state `X` for a moment. `Z` is the
    /// state of the first thread only: while there are others, the process may go on without limit, and even if it was
    /// killed, its sockets are still open.
    fn has_ended(&self) -> bool {
        matches!(self.state, 'X' | 'x') || (self.state == 'Z' && self.threads <= 1)
    }

    fn into_process(self, pid: i32) -> Process {
        let zombie = self.has_ended();
        Process { pid, start_time: self.start_time, parent: self.parent, session: self.session, zombie }
    }
}

/// Returns whether the process ended before the file was opened, or between opening and reading.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

fn unreadable(source: io::Error) -> ProcessError {
    ProcessError::System { what: "read /proc", source }
}

impl Inspect for Linux {
    fn host(&self) -> Result<Host, ProcessError> {
        /// Only the name can change while this process lives.
        static HOST: OnceLock<Host> = OnceLock::new();
        if let Some(host) = HOST.get() {
            return Ok(host.clone());
        }
        let host = read_host().map_err(unreadable)?;
        Ok(HOST.get_or_init(|| host).clone())
    }

    fn process(&self, pid: i32) -> Result<Option<Process>, ProcessError> {
        Ok(Stat::read(pid)?.map(|stat| stat.into_process(pid)))
    }

    fn sleep_until_exit(&self, pid: i32, limit: Duration) -> io::Result<()> {
        pidfd::sleep_until_exit(pid, limit)
    }

    fn processes(&self) -> Result<Vec<Process>, ProcessError> {
        let mut processes = Vec::new();
        for pid in pids()? {
            match self.process(pid) {
                // Mounted with hidepid=1, /proc refuses to show processes of other users.
                Err(ProcessError::System { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
                found => processes.extend(found?),
            }
        }
        Ok(processes)
    }

    fn descendants(&self, pid: i32) -> Vec<i32> {
        /// Whether the kernel lists children (`CONFIG_PROC_CHILDREN`).
        static LISTS_CHILDREN: OnceLock<bool> = OnceLock::new();
        if *LISTS_CHILDREN.get_or_init(|| Path::new("/proc/thread-self/children").exists()) {
            return descendants(pid, children_of_threads);
        }
        let everyone = self.processes().unwrap_or_default();
        descendants(pid, |pid| children_among(&everyone, pid))
    }

    fn instance(&self, pid: i32) -> Option<String> {
        let bytes = read_short(format!("/proc/{pid}/environ")).ok()?;
        let value = |variable: &[u8]| {
            let value = variable.strip_prefix(INSTANCE_VARIABLE.as_bytes())?.strip_prefix(b"=")?;
            String::from_utf8(value.to_vec()).ok()
        };
        bytes.split(|byte| *byte == 0).find_map(value)
    }

    fn file_of(&self, pid: i32, descriptor: i32) -> Option<(u64, u64)> {
        let file = fs::metadata(format!("/proc/{pid}/fd/{descriptor}")).ok()?;
        Some((file.dev(), file.ino()))
    }

    fn resources(&self, pid: i32) -> Option<(Process, Resources)> {
        let stat = Stat::read(pid).ok()??;
        let resources =
            Resources { memory_bytes: resident_memory(pid)?, cpu_time: ticks_to_time(stat.ticks)? };
        Some((stat.into_process(pid), resources))
    }

    fn threads(&self, pid: i32) -> Option<u64> {
        Some(Stat::read(pid).ok()??.threads)
    }

    fn open_files(&self, pid: i32) -> Option<u64> {
        let directory = format!("/proc/{pid}/fd");
        // Since Linux 6.2 the size of the directory is the number of descriptors; before, it is 0.
        match fs::metadata(&directory).map(|metadata| metadata.size()) {
            Ok(size @ 1..) => {
                // The directory must be readable, or the number is not to be known.
                fs::read_dir(&directory).ok()?;
                Some(size)
            }
            _ => Some(fs::read_dir(directory).ok()?.count() as u64),
        }
    }

    fn age(&self, process: &Process) -> Option<Duration> {
        // The kernel counts start times by this clock, which also runs while the machine sleeps.
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
        Some(now.saturating_sub(ticks_to_time(process.start_time)?))
    }

    fn program(&self, pid: i32) -> Option<String> {
        let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
        let name = String::from_utf8_lossy(&name);
        Some(name.trim_end_matches('\n').to_owned()).filter(|name| !name.is_empty())
    }

    fn listening(&self, port: Option<u16>) -> Result<Vec<Socket>, ProcessError> {
        diag::listening(port)
    }

    fn possible_holders(&self, _sockets: &[u64]) -> Result<Vec<i32>, ProcessError> {
        let mut pids = pids()?;
        // The kernel gives PIDs in turn, and begins again after the greatest: those above the last one are older.
        let last = last_pid().unwrap_or(i32::MAX);
        let not_above = pids.partition_point(|pid| *pid <= last);
        pids.rotate_left(not_above);
        Ok(pids)
    }

    /// As a rule, only root may read the descriptors of other users' processes. That of a process whose socket was made
    /// by another user is rare: a service manager made it, the process has changed its user, or it is in a user namespace
    /// of this one.
    fn can_find_holder(&self, socket: &Socket) -> bool {
        let own = Uid::effective();
        own.is_root() || socket.user.is_none_or(|user| user == own.as_raw())
    }

    /// Since Linux 6.2, the size of the directory is the number of descriptors.
    fn holder_rank(&self, pid: i32, sockets: &[Socket]) -> usize {
        let Ok(directory) = fs::metadata(format!("/proc/{pid}/fd")) else { return 2 };
        let is_of_user = |socket: &Socket| socket.user.is_none_or(|user| user == directory.uid());
        match directory.len() {
            _ if !sockets.iter().any(is_of_user) => 2,
            // The standard streams alone.
            1..=3 => 2,
            4..=FEW_DESCRIPTORS => 0,
            _ => 1,
        }
    }

    fn sockets_of(&self, pid: i32, sockets: &[u64]) -> Vec<u64> {
        let path = format!("/proc/{pid}/fd");
        // Unreadable for processes of other users.
        let Ok(directory) = File::open(&path) else { return Vec::new() };
        let descriptors = fs::read_dir(path).into_iter().flatten().flatten();
        let mut found = Vec::with_capacity(sockets.len());
        for inode in descriptors.filter_map(|entry| socket_inode(&directory, &entry.file_name())) {
            if sockets.contains(&inode) && !found.contains(&inode) {
                found.push(inode);
                // A server of many connections has many other descriptors.
                if found.len() == sockets.len() {
                    break;
                }
            }
        }
        found
    }
}

/// Most servers have no more descriptors, and they are soon read.
const FEW_DESCRIPTORS: u64 = 64;

/// Returns the PIDs of all processes but those of the kernel.
fn pids() -> Result<Vec<i32>, ProcessError> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    // Read after the list: a process that gets the PID of one of them later is in neither.
    let kernel = children_of_kernel();
    pids.retain(|pid| !kernel.contains(pid));
    Ok(pids)
}

/// Returns the PID that was given last.
fn last_pid() -> Option<i32> {
    fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().nth(4)?.parse().ok()
}

/// Returns the PIDs of the kernel's threads and of the helper programs that it runs. They are most of the
/// processes of an idle machine, and one file lists them. Empty where there is none, as in a container.
fn children_of_kernel() -> Vec<i32> {
    /// The parent of them all.
    const KTHREADD: i32 = 2;
    /// See `include/linux/sched.h`.
    const PF_KTHREAD: u32 = 0x0020_0000;
    match Stat::read(KTHREADD) {
        Ok(Some(stat)) if stat.flags & PF_KTHREAD != 0 => children_of_threads(KTHREADD),
        _ => Vec::new(),
    }
}

/// Reads a file of `/proc`, whose size no call tells. Room for a page spares four of six reads of a short one.
fn read_short(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    // `Take` asks for no size.
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads where this process runs; see `proc(5)`, `pid_namespaces(7)` and `machine-id(5)`. Everything that compares
/// identities needs it, so a missing `/proc` is an error and not an empty machine.
fn read_host() -> io::Result<Host> {
    let read = |path| fs::read_to_string(path).map(|text| text.trim_end().to_owned());
    let pid_namespace = match fs::metadata("/proc/self/ns/pid") {
        Ok(namespace) => Some(namespace.ino()),
        // The kernel was built without namespaces (CONFIG_PID_NS).
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    // Absent or empty in many containers, and a word instead of an id during the installation of the system.
    let machine_id = read("/etc/machine-id").ok().filter(|id| !matches!(id.as_str(), "" | "uninitialized"));
    Ok(Host {
        boot_id: read("/proc/sys/kernel/random/boot_id")?,
        pid_namespace,
        machine_id,
        name: read("/proc/sys/kernel/hostname")?,
    })
}

/// Returns the resident memory in bytes. Since Linux 6.16 `statm` has the exact number; the one in `stat` may lack some
/// pages for each processor, which is a tenth of a small process.
fn resident_memory(pid: i32) -> Option<u64> {
    let text = String::from_utf8(read_short(format!("/proc/{pid}/statm")).ok()?).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(system_value(SysconfVar::PAGE_SIZE)?)
}

/// Returns the children of all threads of the process: a child belongs to the thread that made it.
fn children_of_threads(pid: i32) -> Vec<i32> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let list = read_short(thread.path().join("children")).unwrap_or_default();
        let list = String::from_utf8_lossy(&list);
        children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    children
}

/// Returns the inode of a socket. The links in `/proc/PID/fd` read `socket:[INODE]`; from the open directory, they are
/// soon found.
fn socket_inode(directory: &File, descriptor: &OsStr) -> Option<u64> {
    let target = readlinkat(directory, descriptor).ok()?;
    let digits = target.as_bytes().strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn system_value(variable: SysconfVar) -> Option<u64> {
    u64::try_from(sysconf(variable).ok()??).ok().filter(|value| *value > 0)
}

fn ticks_to_time(ticks: u64) -> Option<Duration> {
    let per_second = system_value(SysconfVar::CLK_TCK)?;
    let nanoseconds = (ticks % per_second) * 1_000_000_000 / per_second;
    Some(Duration::from_secs(ticks / per_second) + Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AFTER_NAME: &str =
        "S 7 8 9 0 -1 4194560 1 0 0 0 11 22 0 0 20 0 1 0 987654 8192 321 18446744073709551615 1 1 0 0 0";

    #[test]
    fn a_name_may_hold_any_character() {
        for name in ["sleep", "a b", ") S 1 1 1", "(((", "x) Z 1 (y", "\n) R 2 2 2 2", "\u{ff}"] {
            let line = format!("42 ({name}) {AFTER_NAME}");
            let expected = Stat {
                state: 'S',
                parent: 7,
                session: 9,
                flags: 4_194_560,
                ticks: 33,
                threads: 1,
                start_time: 987_654,
            };
            assert_eq!(Stat::parse(line.as_bytes()), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_process_lives_while_any_thread_does() {
        for (state, threads, has_ended) in [('Z', 2, false), ('Z', 1, true), ('X', 0, true), ('S', 1, false)]
        {
            let fields = AFTER_NAME.replacen('S', &state.to_string(), 1);
            let line = format!("42 (x) {}", fields.replacen(" 20 0 1 0 ", &format!(" 20 0 {threads} 0 "), 1));
            assert_eq!(Stat::parse(line.as_bytes()).unwrap().has_ended(), has_ended, "{line}");
        }
    }

    #[test]
    fn threads_of_the_kernel_are_passed_over() {
        let kernel = children_of_kernel();
        let found: Vec<i32> = Linux.processes().unwrap().iter().map(|process| process.pid).collect();
        for pid in kernel {
            assert!(!found.contains(&pid), "{:?}", Stat::read(pid));
        }
        assert!(found.contains(&std::process::id().cast_signed()));
    }

    #[test]
    fn half_a_line_is_refused() {
        let whole = format!("42 (sleep) {AFTER_NAME}");
        let needed = whole.find(" 8192").unwrap();
        for length in 0..needed {
            let half = Stat::parse(&whole.as_bytes()[..length]);
            // A line that is cut inside its last number reads like a whole one. The kernel never cuts it.
            assert!(half.is_none() || length > needed - 6, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Stat::parse(&bytes);
        }
    }
}
