//! The end of a process that is no child of this one, reported by the kernel: `pidfd_open(2)`, since Linux 5.3.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// See [`Inspect::sleep_until_exit`](super::Inspect::sleep_until_exit).
pub(super) fn sleep_until_exit(pid: i32, limit: Duration) -> io::Result<()> {
    let process = match open(pid) {
        Err(Errno::ESRCH) => return Ok(()),
        process => process?,
    };
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The descriptor is close-on-exec.
fn open(pid: i32) -> Result<OwnedFd, Errno> {
    #[expect(unsafe_code, reason = "nix has no pidfd_open")]
    // SAFETY: the call takes two numbers; the descriptor that it returns belongs to nothing else.
    unsafe {
        let descriptor = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(i32::try_from(descriptor).map_err(|_| Errno::EBADF)?))
    }
}
