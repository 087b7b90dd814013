//! [`ContextUse`]: how full the context of a model is.

/// The tokens of a conversation, and how many the loaded model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextUse {
    pub used: u64,
    pub size: u64,
}

/// How full a context is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    Low,
    /// At least 80 %.
    High,
    /// At least 95 %: the next answer may not fit.
    Full,
}

impl ContextUse {
    pub fn fill(self) -> Fill {
        let (used, size) = (self.used.saturating_mul(100), self.size);
        if used >= size.saturating_mul(95) {
            Fill::Full
        } else if used >= size.saturating_mul(80) {
            Fill::High
        } else {
            Fill::Low
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_rises_at_80_and_95_percent() {
        for (used, fill) in [
            (0, Fill::Low),
            (79, Fill::Low),
            (80, Fill::High),
            (94, Fill::High),
            (95, Fill::Full),
            (300, Fill::Full),
        ] {
            assert_eq!(ContextUse { used, size: 100 }.fill(), fill, "{used}");
        }
    }
}
