//! Every platform but Linux: the sysinfo crate.

use sysinfo::System;

use super::memory::{GpuMemory, Memory};

pub(super) fn memory() -> Option<Memory> {
    let mut system = System::new();
    system.refresh_memory();
    // sysinfo returns 0 where the system does not tell.
    let memory = Memory { total: system.total_memory(), available: system.available_memory() };
    Some(memory).filter(|memory| memory.total > 0)
}

pub(super) fn load_averages() -> Option<[f64; 3]> {
    let sysinfo::LoadAvg { one, five, fifteen } = System::load_average();
    Some([one, five, fifteen])
}

/// On Apple silicon, the GPU uses the machine's memory. Other GPUs are not asked.
pub(super) fn gpu_memory() -> Option<GpuMemory> {
    let is_unified = cfg!(all(target_os = "macos", target_arch = "aarch64"));
    memory().filter(|_| is_unified).map(|memory| GpuMemory { total: memory.total, used: None })
}

/// Returns a function that returns how busy all processors were since the last call, in percent.
pub(super) fn cpu_percent() -> impl FnMut() -> Option<f64> + Send {
    let mut system = System::new();
    system.refresh_cpu_usage();
    move || {
        system.refresh_cpu_usage();
        Some(f64::from(system.global_cpu_usage()).clamp(0.0, 100.0))
    }
}
