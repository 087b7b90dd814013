//! The memory of the machine and its GPUs.

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// How much programs can still allocate before the system swaps.
    pub available: u64,
    /// How much of it models may use: on Apple silicon what the GPU gets.
    pub for_models: u64,
}

/// Whether something fits into the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFit {
    Fits,
    /// It needs more than is free now.
    Tight,
    /// It needs more than there is for models.
    TooLarge,
}

impl Memory {
    /// Returns whether a model that needs so many bytes fits.
    pub fn fit(&self, needed: u64) -> MemoryFit {
        if needed > self.for_models {
            MemoryFit::TooLarge
        } else if needed > self.available {
            MemoryFit::Tight
        } else {
            MemoryFit::Fits
        }
    }
}

/// The memory of the GPUs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// Of the machine, where the GPU shares it.
    pub total: u64,
    /// `None` where the system does not tell.
    pub used: Option<u64>,
}

/// Returns what macOS lets the GPU of a machine with this much memory use: two thirds, from 36 GiB on three quarters
/// (Metal: `recommendedMaxWorkingSetSize`). `limit` is what the user has set in MiB, or 0.
#[cfg(any(test, target_os = "macos"))]
pub(super) fn gpu_share(total: u64, limit: u64) -> u64 {
    const LARGE: u64 = 36 * 1024 * 1024 * 1024;
    match limit {
        0 if total <= LARGE => total / 3 * 2,
        0 => total / 4 * 3,
        limit => limit.saturating_mul(1024 * 1024).min(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_compared_with_the_memory() {
        use MemoryFit::{Fits, Tight, TooLarge};
        let memory = Memory { total: 1000, available: 100, for_models: 700 };
        let fits = [100, 101, 700, 701, u64::MAX].map(|needed| memory.fit(needed));
        assert_eq!(fits, [Fits, Tight, Tight, TooLarge, TooLarge]);
    }

    #[test]
    fn the_gpu_gets_a_part_of_the_memory() {
        const GIB: u64 = 1024 * 1024 * 1024;
        assert_eq!(gpu_share(15 * GIB, 0), 10 * GIB);
        assert_eq!(gpu_share(64 * GIB, 0), 48 * GIB);
        assert_eq!(gpu_share(64 * GIB, 57_344), 56 * GIB);
        assert_eq!(gpu_share(64 * GIB, u64::MAX), 64 * GIB);
    }
}
