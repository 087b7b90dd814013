//! Values of sysctlbyname(3).

use std::ffi::CStr;
use std::io;

use nix::errno::Errno;
use nix::libc;

/// Returns a text; an error if it is empty.
pub(in crate::core) fn text(name: &CStr) -> io::Result<String> {
    let mut text = [0_u8; 1024];
    let length = read(name, &mut text)?;
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
    let text = text.trim_end_matches('\0');
    if text.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(text.to_owned()) }
}

/// Returns a whole number of four or eight bytes.
pub(super) fn number(name: &CStr) -> Option<u64> {
    let mut bytes = [0; 8];
    match read(name, &mut bytes).ok()? {
        8 => Some(u64::from_ne_bytes(bytes)),
        4 => Some(u64::from(u32::from_ne_bytes(*bytes.first_chunk()?))),
        _ => None,
    }
}

/// Reads a value and returns its length.
fn read(name: &CStr, value: &mut [u8]) -> io::Result<usize> {
    let mut length = value.len();
    #[expect(unsafe_code, reason = "nix has no sysctl")]
    // SAFETY: the name ends with NUL; the kernel writes at most `length` bytes to `value` and their number to `length`;
    // nothing is set.
    let result = unsafe {
        libc::sysctlbyname(name.as_ptr(), value.as_mut_ptr().cast(), &raw mut length, std::ptr::null_mut(), 0)
    };
    Errno::result(result)?;
    Ok(length)
}
