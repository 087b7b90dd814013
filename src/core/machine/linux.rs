//! Linux: `/proc/meminfo`, `/proc/stat`, `/proc/loadavg` (proc(5)), and the memory that the driver of AMD's GPUs
//! reports.

use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

use super::Mac;
use super::memory::{GpuMemory, Memory};

use crate::core::numbers::parse_float;

pub(super) fn memory() -> Option<Memory> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    let total = bytes("MemTotal")?;
    Some(Memory { total, available: bytes("MemAvailable")?, for_models: total })
}

pub(super) fn load_averages() -> Option<[f64; 3]> {
    parse_loads(&std::fs::read_to_string("/proc/loadavg").ok()?)
}

fn parse_loads(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split_ascii_whitespace().map(parse_float);
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

pub(super) fn processors() -> Option<u64> {
    u64::try_from(sysconf(SysconfVar::_NPROCESSORS_ONLN).ok()??).ok()
}

pub(super) fn mac() -> Option<Mac> {
    None
}

pub(super) fn gpu_memory() -> Option<GpuMemory> {
    gpu_memory_in(Path::new("/sys/class/drm"))
}

/// Adds the memory of every card whose driver reports it, as amdgpu does: the kernel documents `mem_info_vram_total`
/// and `mem_info_vram_used` in `Documentation/gpu/amdgpu/driver-misc.rst`.
fn gpu_memory_in(directory: &Path) -> Option<GpuMemory> {
    let cards = directory.read_dir().ok()?.filter_map(|card| Some(card.ok()?.path()));
    // Connectors are directories such as `card0-DP-1`, which have the device of their card, too.
    let is_card = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("card"));
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let of_card = |card: &Path| {
        let read = |name: &str| {
            let text = std::fs::read_to_string(card.join("device").join(name)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        Some(GpuMemory { total: read("mem_info_vram_total")?, used: read("mem_info_vram_used") })
    };
    let all = cards.filter(|card| is_card(card)).filter_map(|card| of_card(&card));
    all.reduce(|sum, card| GpuMemory {
        total: sum.total.saturating_add(card.total),
        used: sum.used.zip(card.used).map(|(used, more)| used.saturating_add(more)),
    })
}

/// The clock ticks of all processors since the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// Returns a function that returns how busy all processors were since the last call, in percent.
pub(super) fn cpu_percent() -> impl FnMut() -> Option<f64> + Send {
    let now = || parse_ticks(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
    let mut last = now();
    move || {
        let before = std::mem::replace(&mut last, now());
        percent_between(before?, last?)
    }
}

/// Parses the first line: user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of user and nice.
fn parse_ticks(text: &str) -> Option<Ticks> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let numbers: Option<Vec<u64>> =
        line.split_ascii_whitespace().take(8).map(|word| word.parse().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.len() >= 4)?;
    let all = numbers.iter().sum::<u64>();
    let idle = numbers.get(3).copied()?.saturating_add(numbers.get(4).copied().unwrap_or_default());
    Some(Ticks { busy: all.saturating_sub(idle), all })
}

fn percent_between(before: Ticks, after: Ticks) -> Option<f64> {
    let all = after.all.checked_sub(before.all).filter(|all| *all > 0)?;
    // The time of waiting for a disk may go back.
    let busy = after.busy.saturating_sub(before.busy).min(all);
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    Some(100.0 * busy as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_ticks_are_all_but_idle_ones() {
        let before = parse_ticks("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1\n").unwrap();
        assert_eq!(before, Ticks { busy: 150, all: 1000 });
        let after = parse_ticks("cpu  200 0 100 900 100 0 0 0 7 7\n").unwrap();
        assert_eq!(percent_between(before, after), Some(50.0));
        assert_eq!(percent_between(after, after), None);
        assert_eq!(percent_between(after, before), None);
        assert_eq!(parse_ticks("cpu  1 2 3\n"), None);
        assert_eq!(parse_ticks("cpu0 1 2 3 4\n"), None);
        assert_eq!(parse_ticks(""), None);
    }

    #[test]
    fn load_averages_are_parsed() {
        assert_eq!(parse_loads("0.52 0.58 12.59 3/602 29876\n"), Some([0.52, 0.58, 12.59]));
        assert_eq!(parse_loads("0.52 0.58"), None);
        assert_eq!(parse_loads("x"), None);
    }

    #[test]
    fn memory_of_every_card_is_added() {
        let directory = tempfile::tempdir().unwrap();
        let card = |name: &str, total: &str, used: &str| {
            let device = directory.path().join(name).join("device");
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("mem_info_vram_total"), total).unwrap();
            std::fs::write(device.join("mem_info_vram_used"), used).unwrap();
        };
        assert_eq!(gpu_memory_in(directory.path()), None);
        std::fs::create_dir_all(directory.path().join("card7/device")).unwrap();
        assert_eq!(gpu_memory_in(directory.path()), None);
        card("card0", "1000\n", "10\n");
        card("card0-DP-1", "1000\n", "10\n");
        card("card1", "500\n", "5\n");
        assert_eq!(gpu_memory_in(directory.path()), Some(GpuMemory { total: 1500, used: Some(15) }));
        card("card2", "1\n", "");
        assert_eq!(gpu_memory_in(directory.path()), Some(GpuMemory { total: 1501, used: None }));
        assert_eq!(gpu_memory_in(&directory.path().join("none")), None);
    }

    #[test]
    fn meminfo_is_parsed() {
        let text = "MemTotal:       24687616 kB\nMemFree:        100 kB\nMemAvailable:   2000 kB\n";
        let total = 24_687_616 * 1024;
        assert_eq!(parse(text), Some(Memory { total, available: 2000 * 1024, for_models: total }));
        assert_eq!(parse("MemTotal: many kB\nMemAvailable: 1 kB\n"), None);
        assert_eq!(parse(""), None);
    }
}
