//! The port that fusion chose for a service, kept for the next start.

use crate::core::files::{self, FileError};
use crate::core::paths::ServicePaths;

/// Maximum size of the file.
const MAX_BYTES: u64 = 16;

/// Returns the kept port; `None` if there is none, or the file holds no port.
pub(super) fn read(paths: &ServicePaths) -> Option<u16> {
    let bytes = files::read(&paths.port, MAX_BYTES).ok()??;
    let port = std::str::from_utf8(&bytes).ok()?.trim_end().parse().ok()?;
    (port > 0).then_some(port)
}

/// Keeps a port. The caller holds the service's lock.
pub(super) fn write(paths: &ServicePaths, port: u16) -> Result<(), FileError> {
    if read(paths) == Some(port) {
        return Ok(());
    }
    files::make_directory(&paths.directory)?;
    files::replace(&paths.port, format!("{port}\n").as_bytes())
}
