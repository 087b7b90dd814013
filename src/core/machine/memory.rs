//! The machine's memory.

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// How much programs can still get without others being swapped out.
    pub available: u64,
}
