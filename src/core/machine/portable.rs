//! Every platform but Linux: the sysinfo crate.

use sysinfo::System;

use super::memory::Memory;

pub(super) fn memory() -> Option<Memory> {
    let mut system = System::new();
    system.refresh_memory();
    // sysinfo returns 0 where the system does not tell.
    let memory = Memory { total: system.total_memory(), available: system.available_memory() };
    Some(memory).filter(|memory| memory.total > 0)
}
