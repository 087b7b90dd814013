//! What the kernel says of processes: who they are, who belongs together, what they use, who listens.
//!
//! [`Inspect`] is the seam between platforms: `linux` reads `/proc`, `portable` asks the sysinfo crate and `lsof`.
//! What follows from the facts is decided once for all platforms: `identity`, `members`, `usage`, `listener`.

mod facts;
mod identity;
#[cfg(target_os = "linux")]
mod linux;
mod listener;
mod members;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod usage;
#[cfg(test)]
mod work_of_ps;

pub(super) use facts::Inspect;
pub(super) use identity::{identify, is_same, ourselves};
pub(super) use listener::listener;
pub(super) use members::members;
pub(super) use usage::usage;

/// Returns the platform's own.
pub(super) fn native() -> &'static dyn Inspect {
    #[cfg(target_os = "linux")]
    return &linux::Linux;
    #[cfg(not(target_os = "linux"))]
    return &portable::Portable;
}
