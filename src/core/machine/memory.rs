//! The memory of the machine and its GPUs.

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// How much programs can still allocate before the system swaps.
    pub available: u64,
}

/// The memory of the GPUs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// Of the machine, where the GPU shares it.
    pub total: u64,
    /// `None` where the system does not tell.
    pub used: Option<u64>,
}
