//! How much of a model is on the GPU.

/// How much of a model is on the GPU, in the parts that its server counts: bytes or layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuParts {
    pub on_gpu: u64,
    pub all: u64,
}

impl GpuParts {
    /// Returns the share in whole percent, rounded down: 100 is all of it. `None` without parts.
    pub fn percent(self) -> Option<u64> {
        let percent = (u128::from(self.on_gpu.min(self.all)) * 100).checked_div(u128::from(self.all))?;
        u64::try_from(percent).ok()
    }

    /// Returns the parts of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let Self { on_gpu, all } = other;
        Self { on_gpu: self.on_gpu.saturating_add(on_gpu), all: self.all.saturating_add(all) }
    }
}

/// A loaded model, and how much of it is on the GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuShare {
    pub model: String,
    pub parts: GpuParts,
}

/// Returns the models that are not on the GPU as a whole, each with what is on it in percent.
pub fn on_cpu(shares: &[GpuShare]) -> impl Iterator<Item = (&str, u64)> {
    let with_part = |share: &GpuShare| share.parts.percent().filter(|percent| *percent < 100);
    shares.iter().filter_map(move |share| Some((share.model.as_str(), with_part(share)?)))
}

/// Returns where a model runs of which so much is on the GPU, in words.
pub fn where_it_runs(gpu_percent: u64) -> String {
    match gpu_percent {
        0 => "on the CPU".to_owned(),
        percent => format!("partly on the CPU: {percent}% of it is on the GPU"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_down() {
        for (on_gpu, all, percent) in [
            (0, 5, Some(0)),
            (999, 1000, Some(99)),
            (5, 5, Some(100)),
            (6, 5, Some(100)),
            (0, 0, None),
            (u64::MAX, u64::MAX, Some(100)),
        ] {
            assert_eq!(GpuParts { on_gpu, all }.percent(), percent, "{on_gpu} of {all}");
        }
    }

    #[test]
    fn models_partly_on_the_cpu_are_found() {
        let share =
            |model: &str, on_gpu, all| GpuShare { model: model.to_owned(), parts: GpuParts { on_gpu, all } };
        let shares = [share("whole", 7, 7), share("part", 5, 7), share("none", 0, 7), share("unknown", 0, 0)];
        assert_eq!(on_cpu(&shares).collect::<Vec<_>>(), [("part", 71), ("none", 0)]);
    }
}
