//! macOS: libproc and sysctl; listening sockets come from `lsof`.
//!
//! The system hides zombies, which count as dead anyway, and the environment of programs that restrict it: its own, and
//! those with the hardened runtime. No call but those about resources, environment and sockets asks for a privilege.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::time::TimeSpec;

use super::facts::{Inspect, Process, Resources, descendants, program_of};
use super::lsof;
use crate::core::machine::sysctl;
use crate::core::process::driver::{INSTANCE_VARIABLE, Instance, ProcessError};
use crate::core::process::host::Host;
use crate::core::process::socket::Socket;

/// The macOS kernel.
pub(in crate::core::process) struct MacOs;

/// A local connection is accepted or refused at once.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// How many bytes the arguments and the environment of a process take at most (`ARG_MAX`).
const MAX_ARGUMENT_BYTES: usize = 1024 * 1024;

/// How many more processes than a moment ago may be there when they are listed.
const LIST_MARGIN: usize = 64;

/// The flavour of [`UniqueIdentifiers`] (xnu, `bsd/sys/proc_info_private.h`).
const PROC_PIDUNIQIDENTIFIERINFO: c_int = 17;

/// `struct proc_uniqidentifierinfo`.
#[derive(Clone, Copy)]
#[repr(C)]
struct UniqueIdentifiers {
    uuid: [u8; 16],
    /// Used once in a boot, and kept by `exec`.
    unique_id: u64,
    /// Set when the process starts, and kept when its parent ends (xnu, `bsd/sys/proc_internal.h`).
    parent_unique_id: u64,
    id_version: i32,
    original_parent_id_version: i32,
    reserved: [u64; 2],
}

/// The flavour of [`VnodeOfDescriptor`] (xnu, `bsd/sys/proc_info.h`).
const PROC_PIDFDVNODEINFO: c_int = 1;

/// `struct vnode_fdinfo`.
#[repr(C)]
struct VnodeOfDescriptor {
    /// `struct proc_fileinfo`: flags, status, offset (64 bits), type, guard flags.
    file: [u32; 6],
    vnode: libc::vnode_info,
}

/// Plain data, as the kernel writes it.
///
/// # Safety
///
/// Any bytes are a value of the type.
#[expect(unsafe_code, reason = "only its implementations can promise that")]
unsafe trait KernelData: Copy {}

#[expect(unsafe_code, reason = "numbers and arrays of numbers")]
// SAFETY: every field is a number or an array of numbers.
unsafe impl KernelData for UniqueIdentifiers {}

#[expect(unsafe_code, reason = "numbers and arrays of numbers")]
// SAFETY: every field is a number or an array of numbers.
unsafe impl KernelData for libc::proc_bsdshortinfo {}

#[expect(unsafe_code, reason = "numbers and arrays of numbers")]
// SAFETY: every field is a number.
unsafe impl KernelData for libc::proc_taskinfo {}

impl Inspect for MacOs {
    fn host(&self) -> Result<Host, ProcessError> {
        let text = |name: &CStr, what: &'static str| {
            sysctl::text(name).map_err(|source| ProcessError::System { what, source })
        };
        // xnu makes a UUID for each boot (`bsd/kern/kern_sysctl.c`).
        let boot_id = text(c"kern.bootsessionuuid", "read the id of the boot")?;
        let name = text(c"kern.hostname", "read the name of the machine")?;
        Ok(Host { boot_id, pid_namespace: None, machine_id: machine_id(), name })
    }

    fn process(&self, pid: i32) -> Result<Option<Process>, ProcessError> {
        Ok(describe(pid))
    }

    fn sleep_until_exit(&self, pid: i32, limit: Duration) -> io::Result<()> {
        sleep_until_exit(pid, limit)
    }

    fn processes(&self) -> Result<Vec<Process>, ProcessError> {
        let pids = pids().map_err(|source| ProcessError::System { what: "list the processes", source })?;
        Ok(pids.into_iter().filter_map(describe).collect())
    }

    fn descendants(&self, pid: i32) -> Vec<i32> {
        descendants(pid, children)
    }

    fn instance(&self, pid: i32) -> Option<String> {
        let bytes = arguments(pid)?;
        let start = format!("{INSTANCE_VARIABLE}=");
        let value = bytes.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(start.as_bytes()))?;
        String::from_utf8(value.to_vec()).ok()
    }

    fn file_of(&self, pid: i32, descriptor: i32) -> Option<(u64, u64)> {
        let mut file = MaybeUninit::<VnodeOfDescriptor>::zeroed();
        let size = c_int::try_from(size_of::<VnodeOfDescriptor>()).ok()?;
        #[expect(unsafe_code, reason = "nix has no libproc")]
        // SAFETY: the kernel writes at most `size` bytes; every field is a number or an array of numbers.
        let stat = unsafe {
            let pointer = file.as_mut_ptr().cast();
            let filled = libc::proc_pidfdinfo(pid, descriptor, PROC_PIDFDVNODEINFO, pointer, size);
            (filled == size).then(|| file.assume_init().vnode.vi_stat)?
        };
        Some((u64::from(stat.vst_dev), stat.vst_ino))
    }

    /// Those of programs that their makers sign with the hardened runtime.
    fn hides_environments(&self) -> bool {
        true
    }

    fn was_started_by_leader(&self, pid: i32, instance: Instance<'_>) -> bool {
        let parent = info(pid, PROC_PIDUNIQIDENTIFIERINFO).map(|ids: UniqueIdentifiers| ids.parent_unique_id);
        parent.is_some() && parent == instance.leader.map(|leader| leader.start_time)
    }

    fn resources(&self, pid: i32) -> Option<(Process, Resources)> {
        let usage = usage(pid)?;
        let resources = Resources {
            // The footprint has the share of the GPU, and not the clean pages of mapped weights.
            memory_bytes: usage.ri_phys_footprint.max(usage.ri_resident_size),
            cpu_time: of_ticks(usage.ri_user_time.saturating_add(usage.ri_system_time)),
        };
        Some((describe(pid)?, resources))
    }

    fn threads(&self, pid: i32) -> Option<u64> {
        threads_of(pid)
    }

    fn open_files(&self, pid: i32) -> Option<u64> {
        open_files_of(pid)
    }

    /// The time for which the machine slept does not count.
    fn age(&self, process: &Process) -> Option<Duration> {
        let started = usage(process.pid)?.ri_proc_start_abstime;
        Some(of_ticks(mach_absolute_time().saturating_sub(started)))
    }

    fn program(&self, pid: i32) -> Option<String> {
        program_of(&path(pid)?)
    }

    fn listening(&self, port: Option<u16>) -> Result<Vec<Socket>, ProcessError> {
        lsof::listening(port).map_err(|source| ProcessError::System { what: "run lsof", source })
    }

    /// The id of a socket is the PID that lsof reported.
    fn possible_holders(&self, sockets: &[u64]) -> Result<Vec<i32>, ProcessError> {
        Ok(sockets.iter().filter_map(|socket| i32::try_from(*socket).ok()).collect())
    }

    fn sockets_of(&self, pid: i32, sockets: &[u64]) -> Vec<u64> {
        sockets.iter().copied().filter(|socket| i64::try_from(*socket) == Ok(i64::from(pid))).collect()
    }

    /// For users other than root, lsof reports their own processes only. A connection detects the others.
    fn accepts(&self, target: SocketAddr) -> bool {
        TcpStream::connect_timeout(&target, CONNECT_TIMEOUT).is_ok()
    }
}

fn describe(pid: i32) -> Option<Process> {
    let info: libc::proc_bsdshortinfo = info(pid, libc::PROC_PIDT_SHORTBSDINFO)?;
    let ids: UniqueIdentifiers = self::info(pid, PROC_PIDUNIQIDENTIFIERINFO)?;
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid)));
    Some(Process {
        pid,
        start_time: ids.unique_id,
        parent: info.pbsi_ppid.cast_signed(),
        session: session.map_or(0, nix::unistd::Pid::as_raw),
        zombie: info.pbsi_status == libc::SZOMB,
    })
}

/// Returns one kind of facts of a process; `None` if there is none.
fn info<T: KernelData>(pid: i32, flavor: c_int) -> Option<T> {
    let mut info = MaybeUninit::<T>::zeroed();
    let size = c_int::try_from(size_of::<T>()).ok()?;
    #[expect(unsafe_code, reason = "nix has no libproc")]
    // SAFETY: the kernel writes at most `size` bytes; any bytes are a value of the type.
    unsafe {
        let filled = libc::proc_pidinfo(pid, flavor, 0, info.as_mut_ptr().cast(), size);
        (filled == size).then(|| info.assume_init())
    }
}

/// Returns the PIDs of all processes.
fn pids() -> io::Result<Vec<i32>> {
    let list = |pids: &mut [i32]| -> io::Result<usize> {
        let size = c_int::try_from(size_of_val(pids)).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "nix has no libproc")]
        // SAFETY: the kernel writes at most `size` bytes to an array of its own type.
        let count = unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), size) };
        Ok(usize::try_from(Errno::result(count)?).unwrap_or_default())
    };
    let mut pids = vec![0; list(&mut [])? + LIST_MARGIN];
    loop {
        let count = list(&mut pids)?;
        if count < pids.len() {
            pids.truncate(count);
            return Ok(pids);
        }
        pids.resize(count + LIST_MARGIN, 0);
    }
}

/// Returns the number of arguments, the arguments and the environment of a process, each ended by NUL
/// (`KERN_PROCARGS2`); `None` if this user may not read them.
fn arguments(pid: i32) -> Option<Vec<u8>> {
    let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
    let mut bytes: Vec<u8> = Vec::with_capacity(MAX_ARGUMENT_BYTES);
    let mut length = MAX_ARGUMENT_BYTES;
    let names = libc::c_uint::try_from(name.len()).ok()?;
    #[expect(unsafe_code, reason = "nix has no sysctl")]
    // SAFETY: the kernel writes at most `length` bytes, for which there is space, and their number to `length`;
    // nothing is set.
    unsafe {
        let buffer = bytes.as_mut_ptr().cast::<c_void>();
        let result = libc::sysctl(name.as_mut_ptr(), names, buffer, &raw mut length, std::ptr::null_mut(), 0);
        Errno::result(result).ok()?;
        bytes.set_len(length.min(MAX_ARGUMENT_BYTES));
    }
    Some(bytes)
}

/// Returns the path of the program that a process runs.
fn path(pid: i32) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = vec![0_u8; 4 * 1024];
    let size = u32::try_from(bytes.len()).ok()?;
    #[expect(unsafe_code, reason = "nix has no libproc")]
    // SAFETY: the kernel writes at most `size` bytes.
    let length = unsafe { libc::proc_pidpath(pid, bytes.as_mut_ptr().cast(), size) };
    bytes.truncate(usize::try_from(length).ok().filter(|length| *length > 0)?);
    Some(std::ffi::OsString::from_vec(bytes).into())
}

/// Returns what a process of this user uses.
fn usage(pid: i32) -> Option<libc::rusage_info_v0> {
    let mut usage = MaybeUninit::<libc::rusage_info_v0>::zeroed();
    #[expect(unsafe_code, reason = "nix has no libproc")]
    // SAFETY: the kernel writes one struct of this version, all of whose fields are numbers.
    unsafe {
        let result = libc::proc_pid_rusage(pid, libc::RUSAGE_INFO_V0, usage.as_mut_ptr().cast());
        (result == 0).then(|| usage.assume_init())
    }
}

/// `mach_timebase_info_data_t`: how many nanoseconds a tick has, as a fraction.
#[repr(C)]
struct Timebase {
    numerator: u32,
    denominator: u32,
}

#[expect(unsafe_code, reason = "libc names another crate for these")]
// SAFETY: the signatures are those of <mach/mach_time.h>.
unsafe extern "C" {
    safe fn mach_absolute_time() -> u64;
    fn mach_timebase_info(base: *mut Timebase) -> c_int;
}

/// Converts ticks of the kernel's clock, which stands still while the machine sleeps.
fn of_ticks(ticks: u64) -> Duration {
    static TIMEBASE: OnceLock<Timebase> = OnceLock::new();
    let base = TIMEBASE.get_or_init(|| {
        let mut base = Timebase { numerator: 0, denominator: 0 };
        #[expect(unsafe_code, reason = "nix has no such call")]
        // SAFETY: the call writes one struct.
        unsafe {
            mach_timebase_info(&raw mut base);
        }
        base
    });
    let nanoseconds = u128::from(ticks) * u128::from(base.numerator) / u128::from(base.denominator.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// Returns the UUID of the hardware (gethostuuid(3)), which stays the same across boots and new names.
fn machine_id() -> Option<String> {
    let mut uuid = [0_u8; 16];
    let no_wait = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "nix has no gethostuuid")]
    // SAFETY: the call writes 16 bytes, as many as there are, and only reads the timeout.
    let result = unsafe { libc::gethostuuid(uuid.as_mut_ptr(), &raw const no_wait) };
    (result == 0).then(|| format!("{:032x}", u128::from_be_bytes(uuid)))
}

/// Returns the children of a process, without inspecting any other process.
fn children(pid: i32) -> Vec<i32> {
    // Some versions of the function return the number of PIDs, others that of bytes. So the result is not used, and the
    // buffer is filled with zeros, which are no PIDs.
    let mut pids = [0 as libc::pid_t; 2048];
    let size = libc::c_int::try_from(size_of_val(&pids)).unwrap_or_default();
    #[expect(unsafe_code, reason = "nix has no libproc")]
    // SAFETY: the kernel writes at most `size` bytes to an array of its own type.
    unsafe {
        libc::proc_listchildpids(pid, pids.as_mut_ptr().cast(), size);
    }
    pids.into_iter().filter(|child| *child > 0).collect()
}

/// Returns the number of threads of a process.
fn threads_of(pid: i32) -> Option<u64> {
    let info: libc::proc_taskinfo = info(pid, libc::PROC_PIDTASKINFO)?;
    u64::try_from(info.pti_threadnum).ok()
}

/// Returns the number of open descriptors of a process.
fn open_files_of(pid: i32) -> Option<u64> {
    let one = size_of::<libc::proc_fdinfo>();
    let list = |buffer: &mut [u8]| {
        let size = libc::c_int::try_from(buffer.len()).unwrap_or(libc::c_int::MAX);
        let pointer = if buffer.is_empty() { std::ptr::null_mut() } else { buffer.as_mut_ptr().cast() };
        #[expect(unsafe_code, reason = "nix has no libproc")]
        // SAFETY: the kernel writes at most `size` bytes to the buffer, and nothing without one.
        let written = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, pointer, size) };
        usize::try_from(written).ok().filter(|written| *written > 0)
    };
    // Without a buffer it returns the size of a list that is a little longer.
    let mut buffer = vec![0; list(&mut [])?];
    Some((list(&mut buffer)? / one) as u64)
}

/// See [`Inspect::sleep_until_exit`](super::Inspect::sleep_until_exit); `kqueue(2)` reports the end of any process that
/// may be seen.
fn sleep_until_exit(pid: i32, limit: Duration) -> io::Result<()> {
    let ident = usize::try_from(pid).map_err(io::Error::other)?;
    let flags = EvFlags::EV_ADD | EvFlags::EV_ONESHOT;
    let exit = KEvent::new(ident, EventFilter::EVFILT_PROC, flags, FilterFlag::NOTE_EXIT, 0, 0);
    let mut events = [exit];
    let timeout = *TimeSpec::from(limit).as_ref();
    let count = match Kqueue::new()?.kevent(&[exit], &mut events, Some(timeout)) {
        Ok(count) => count,
        Err(Errno::EINTR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // A registration that fails is an event, too; of a process that has ended it fails.
    let failed = count > 0 && events[0].flags().contains(EvFlags::EV_ERROR);
    match i32::try_from(events[0].data()).unwrap_or_default() {
        error if failed && error != libc::ESRCH => return Err(io::Error::from_raw_os_error(error)),
        _ => {}
    }
    // The kernel reports the end a moment before others can see it.
    thread::sleep(Duration::from_millis(1));
    Ok(())
}
