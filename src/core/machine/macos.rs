//! macOS: sysctl(3), and the statistics of the kernel.

use std::ffi::{c_int, c_uint};

use nix::libc;

use super::Mac;
use super::memory::{GpuMemory, Memory, gpu_share};
use super::sysctl;

pub(super) fn memory() -> Option<Memory> {
    let total = sysctl::number(c"hw.memsize")?;
    // In percent. What `vm_stat` calls free is not it: most of the memory that can be had is inactive or purgeable.
    let level = sysctl::number(c"kern.memorystatus_level")?.min(100);
    let for_models = if cfg!(target_arch = "aarch64") {
        gpu_share(total, sysctl::number(c"iogpu.wired_limit_mb").unwrap_or_default())
    } else {
        total
    };
    Some(Memory { total, available: total / 100 * level, for_models })
}

pub(super) fn processors() -> Option<u64> {
    sysctl::number(c"hw.activecpu")
}

/// A program for Intel processors that Apple silicon translates sees the real processor, too.
pub(super) fn mac() -> Option<Mac> {
    Some(Mac {
        has_apple_silicon: sysctl::number(c"hw.optional.arm64").is_some_and(|number| number != 0),
        version: sysctl::text(c"kern.osproductversion").ok()?,
    })
}

/// On Apple silicon, the GPU uses a part of the machine's memory. Other GPUs are not asked.
pub(super) fn gpu_memory() -> Option<GpuMemory> {
    let memory = memory().filter(|_| cfg!(target_arch = "aarch64"))?;
    Some(GpuMemory { total: memory.for_models, used: None })
}

pub(super) fn load_averages() -> Option<[f64; 3]> {
    let mut loads = [0.0; 3];
    #[expect(unsafe_code, reason = "nix has no getloadavg")]
    // SAFETY: the call writes at most three numbers.
    let count = unsafe { libc::getloadavg(loads.as_mut_ptr(), 3) };
    (count == 3).then_some(loads)
}

/// Returns a function that returns how busy all processors were since the last call, in percent.
pub(super) fn cpu_percent() -> impl FnMut() -> Option<f64> + Send {
    let mut last = cpu_ticks();
    move || {
        let now = cpu_ticks();
        let percent = busy_percent(last?, now?);
        last = now;
        percent
    }
}

/// The ticks of all processors since the boot: user, system, idle, nice. They wrap around.
type CpuTimes = [c_uint; 4];

fn busy_percent(last: CpuTimes, now: CpuTimes) -> Option<f64> {
    let passed = |state: usize| f64::from(now[state].wrapping_sub(last[state]));
    let idle = passed(usize::try_from(libc::CPU_STATE_IDLE).ok()?);
    let all: f64 = (0..now.len()).map(passed).sum();
    (all > 0.0).then(|| 100.0 * (all - idle) / all)
}

fn cpu_ticks() -> Option<CpuTimes> {
    #[expect(unsafe_code, reason = "libc names another crate for the first of them")]
    // SAFETY: the signatures are those of <mach/mach_host.h>.
    unsafe extern "C" {
        safe fn mach_host_self() -> c_uint;
        fn host_statistics(host: c_uint, flavor: c_int, info: *mut c_uint, count: *mut c_uint) -> c_int;
    }
    let mut ticks: CpuTimes = [0; 4];
    let mut count = libc::HOST_CPU_LOAD_INFO_COUNT;
    #[expect(unsafe_code, reason = "nix has no host_statistics")]
    // SAFETY: the kernel writes at most `count` numbers, as many as there are.
    let result = unsafe {
        host_statistics(mach_host_self(), libc::HOST_CPU_LOAD_INFO, ticks.as_mut_ptr(), &raw mut count)
    };
    (result == libc::KERN_SUCCESS).then_some(ticks)
}
