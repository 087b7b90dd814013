//! Linux: `/proc/meminfo` (`proc_meminfo(5)`).

use super::memory::Memory;

pub(super) fn memory() -> Option<Memory> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    Some(Memory { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_parsed() {
        let text = "MemTotal:       24687616 kB\nMemFree:        100 kB\nMemAvailable:   2000 kB\n";
        assert_eq!(parse(text), Some(Memory { total: 24_687_616 * 1024, available: 2000 * 1024 }));
        assert_eq!(parse("MemTotal: many kB\nMemAvailable: 1 kB\n"), None);
        assert_eq!(parse(""), None);
    }
}
