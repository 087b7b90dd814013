//! Memory and disk space of the machine.

#[cfg(target_os = "linux")]
mod linux;
mod memory;
#[cfg(not(target_os = "linux"))]
mod portable;

use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;

pub use memory::Memory;

#[cfg(target_os = "linux")]
use linux as native;
#[cfg(not(target_os = "linux"))]
use portable as native;

/// Returns the machine's memory, or `None` where the system does not tell.
pub fn memory() -> Option<Memory> {
    native::memory()
}

/// Returns `path` if it exists, else the nearest directory above it that does.
pub fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

/// Returns how many bytes this user may still write to the file system of `path`, which need not exist yet.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let facts = statvfs(nearest_existing(path))?;
    #[allow(clippy::useless_conversion, reason = "the types differ between systems")]
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
