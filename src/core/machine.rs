//! What the machine has: memory and disk space.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;

use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;

#[cfg(target_os = "linux")]
use linux as native;
#[cfg(not(target_os = "linux"))]
use portable as native;

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What programs can still have without others being swapped out.
    pub available: u64,
}

/// The machine's memory; `None` when the system does not tell.
pub fn memory() -> Option<Memory> {
    native::memory()
}

/// What there is of `path`: itself, or the nearest directory in which it could be made.
pub fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

/// Bytes that this user may still write on the file system of `path`, which need not exist yet.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let facts = statvfs(nearest_existing(path))?;
    // The types differ between systems.
    #[allow(clippy::useless_conversion)]
    Ok(u64::from(facts.blocks_available()).saturating_mul(u64::from(facts.fragment_size())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_disk_space() {
        let memory = memory().unwrap();
        assert!(memory.total >= memory.available && memory.available > 0, "{memory:?}");
        let directory = tempfile::tempdir().unwrap();
        let here = free_space(directory.path()).unwrap();
        assert!(here > 0);
        assert!(free_space(&directory.path().join("not/there/yet")).unwrap() > 0);
    }
}
