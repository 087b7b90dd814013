//! The machine's memory.

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// How much programs can still allocate before the system swaps.
    pub available: u64,
}
