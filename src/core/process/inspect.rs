//! The kernel's view of processes: identities, instances, usage, listeners.
//!
//! [`Inspect`] is the seam between platforms: `linux` reads `/proc`, `macos` asks libproc and `lsof`;
//! `like_macos` hides on Linux what macOS hides.
//! All conclusions from the facts are platform-independent: `identity`, `members`, `usage`, `listener`.

#[cfg(test)]
mod cost_of_ps;
mod facts;
mod identity;
#[cfg(all(target_os = "linux", any(test, feature = "like-macos")))]
mod like_macos;
#[cfg(target_os = "linux")]
mod linux;
mod listener;
#[cfg(any(test, target_os = "macos"))]
#[cfg_attr(not(target_os = "macos"), expect(dead_code, reason = "only its parser is tested elsewhere"))]
mod lsof;
#[cfg(target_os = "macos")]
mod macos;
mod members;
mod search;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod usage;

pub(super) use facts::Inspect;
pub(super) use identity::{identify, is_same, ourselves};
pub(super) use listener::{background_listener, listener, own_listener};
pub(super) use members::{children_since, members};
pub(super) use search::HolderSearch;
pub(super) use usage::{holdings, usage};

/// Returns the implementation for this platform.
pub(super) fn native() -> &'static dyn Inspect {
    #[cfg(all(target_os = "linux", not(feature = "like-macos")))]
    return &linux::Linux;
    #[cfg(all(target_os = "linux", feature = "like-macos"))]
    return &like_macos::LikeMacos;
    #[cfg(target_os = "macos")]
    return &macos::MacOs;
}
