//! The kernel's view of processes: identities, instances, usage, listeners.
//!
//! [`Inspect`] is the seam between platforms: `linux` reads `/proc`, `portable` asks the sysinfo crate and `lsof`.
//! All conclusions from the facts are platform-independent: `identity`, `members`, `usage`, `listener`.

#[cfg(test)]
mod cost_of_ps;
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

pub(super) use facts::Inspect;
pub(super) use identity::{identify, is_same, ourselves};
pub(super) use listener::listener;
pub(super) use members::members;
pub(super) use usage::{holdings, usage};

/// Returns the implementation for this platform.
pub(super) fn native() -> &'static dyn Inspect {
    #[cfg(target_os = "linux")]
    return &linux::Linux;
    #[cfg(not(target_os = "linux"))]
    return &portable::Portable;
}
