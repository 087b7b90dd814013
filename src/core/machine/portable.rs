//! Every platform but Linux: the sysinfo crate.

use sysinfo::System;

use super::memory::Memory;

pub(super) fn memory() -> Option<Memory> {
    let mut system = System::new();
    system.refresh_memory();
    // It says 0 when the system does not tell.
    let memory = Memory { total: system.total_memory(), available: system.available_memory() };
    Some(memory).filter(|memory| memory.total > 0)
}
