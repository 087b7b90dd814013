//! Memory, disk space, CPU, load and GPU memory of the machine.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod memory;
#[cfg(target_os = "macos")]
pub(super) mod sysctl;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

pub use memory::{GpuMemory, Memory, MemoryFit};

#[cfg(target_os = "linux")]
use linux as native;
#[cfg(target_os = "macos")]
use macos as native;

/// A Mac, as far as packages depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mac {
    pub has_apple_silicon: bool,
    /// The version of macOS.
    pub version: String,
}

/// Returns the machine's memory, or `None` where the system does not tell.
pub fn memory() -> Option<Memory> {
    native::memory()
}

/// Returns the kind of Mac that this machine is; `None` if it is none.
pub fn mac() -> Option<Mac> {
    native::mac()
}

/// Returns the load averages over 1, 5 and 15 minutes, or `None` where the system does not tell.
pub fn load_averages() -> Option<[f64; 3]> {
    native::load_averages()
}

/// Returns the memory of all GPUs together, or `None` where the system does not tell.
pub fn gpu_memory() -> Option<GpuMemory> {
    native::gpu_memory()
}

/// Returns the number of processors. `available_parallelism` has 9 kB of code for the quotas of containers.
pub fn processors() -> Option<u64> {
    native::processors()
}

/// Measures how busy the machine is between two readings.
pub struct CpuMeter {
    percent: Box<dyn FnMut() -> Option<f64> + Send>,
    read: Instant,
}

/// A shorter measurement would depend on the clock ticks of the kernel.
const MIN_CPU_INTERVAL: Duration = Duration::from_millis(200);

impl CpuMeter {
    /// Begins to measure.
    pub fn start() -> Self {
        Self { percent: Box::new(native::cpu_percent()), read: Instant::now() }
    }

    /// Returns how busy all processors were since the last reading, in percent. Waits until that is long enough ago.
    pub fn percent(&mut self) -> Option<f64> {
        std::thread::sleep(MIN_CPU_INTERVAL.saturating_sub(self.read.elapsed()));
        self.read = Instant::now();
        (self.percent)()
    }
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

/// Returns whether this user can write no block more to the file system of `path`.
pub fn is_full(path: &Path) -> bool {
    free_space(path).is_ok_and(|free| free < BLOCK_BYTES)
}

/// What a file takes at least on most file systems.
const BLOCK_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_processor_is_measured() {
        let mut meter = CpuMeter::start();
        let begin = Instant::now();
        while begin.elapsed() < MIN_CPU_INTERVAL {
            std::hint::spin_loop();
        }
        let percent = meter.percent().unwrap();
        // One of the processors was busy, less what the others had of it.
        assert!(percent > 0.0 && percent <= 100.0, "{percent}");
        assert!(load_averages().is_none_or(|loads| loads.iter().all(|load| *load >= 0.0)));
        assert!(processors().unwrap() > 0);
    }

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
