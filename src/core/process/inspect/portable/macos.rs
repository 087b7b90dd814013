//! The facts that sysinfo does not provide on macOS.

use std::io;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::time::TimeSpec;

/// Returns `kern.bootsessionuuid`, a UUID as text; xnu makes one for each boot (`bsd/kern/kern_sysctl.c`).
pub(super) fn boot_id() -> io::Result<String> {
    let mut text = [0_u8; 64];
    let mut length = text.len();
    #[expect(unsafe_code, reason = "nix has no sysctl")]
    // SAFETY: the name ends with NUL; the kernel writes at most `length` bytes to `text` and their number to `length`;
    // nothing is set.
    let result = unsafe {
        libc::sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            text.as_mut_ptr().cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    Errno::result(result)?;
    let text = text.get(..length).unwrap_or(&text);
    let id = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
    if id.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(id) }
}

/// Returns the UUID of the hardware (gethostuuid(3)), which stays the same across boots and new names.
pub(super) fn machine_id() -> Option<String> {
    let mut uuid = [0_u8; 16];
    let no_wait = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "nix has no gethostuuid")]
    // SAFETY: the call writes 16 bytes, as many as there are, and only reads the timeout.
    let result = unsafe { libc::gethostuuid(uuid.as_mut_ptr(), &raw const no_wait) };
    (result == 0).then(|| format!("{:032x}", u128::from_be_bytes(uuid)))
}

/// Returns the children of a process, without inspecting any other process.
pub(super) fn children(pid: i32) -> Vec<i32> {
    // Some versions of the function return the number of PIDs, others that of bytes. So the result is not used, and the
    // buffer is filled with zeros, which are no PIDs.
    let mut pids = [0 as libc::pid_t; 2048];
    let size = libc::c_int::try_from(size_of_val(&pids)).unwrap_or_default();
    #[expect(unsafe_code, reason = "neither nix nor sysinfo has it")]
    // SAFETY: the kernel writes at most `size` bytes to an array of its own type.
    unsafe {
        libc::proc_listchildpids(pid, pids.as_mut_ptr().cast(), size);
    }
    pids.into_iter().filter(|child| *child > 0).collect()
}

/// Returns the number of threads of a process (`proc_pidinfo`, xnu `bsd/sys/proc_info.h`).
pub(super) fn threads(pid: i32) -> Option<u64> {
    let mut info = std::mem::MaybeUninit::<libc::proc_taskinfo>::zeroed();
    let size = libc::c_int::try_from(size_of::<libc::proc_taskinfo>()).ok()?;
    #[expect(unsafe_code, reason = "neither nix nor sysinfo has it")]
    // SAFETY: the kernel writes at most `size` bytes to a value of its own type, of which all zeroes is one.
    let (written, info) = unsafe {
        let info_pointer = info.as_mut_ptr().cast();
        let written = libc::proc_pidinfo(pid, libc::PROC_PIDTASKINFO, 0, info_pointer, size);
        (written, info.assume_init())
    };
    (written == size).then(|| u64::try_from(info.pti_threadnum).ok())?
}

/// Returns the number of open descriptors of a process.
pub(super) fn open_files(pid: i32) -> Option<u64> {
    let one = size_of::<libc::proc_fdinfo>();
    let list = |buffer: &mut [u8]| {
        let size = libc::c_int::try_from(buffer.len()).unwrap_or(libc::c_int::MAX);
        let pointer = if buffer.is_empty() { std::ptr::null_mut() } else { buffer.as_mut_ptr().cast() };
        #[expect(unsafe_code, reason = "neither nix nor sysinfo has it")]
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
pub(super) fn sleep_until_exit(pid: i32, limit: Duration) -> io::Result<()> {
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
