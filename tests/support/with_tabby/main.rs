//! fusion with one runtime more: what `src/core/runtimes.rs` would be if an imaginary `tabby-server` were in its table.
//!
//! `tests/adding_a_runtime.rs` runs it.

mod tabby;

use std::process::ExitCode;

use fusion::core::runtimes::{TABLE, Table};

/// The one entry.
const TABLE_WITH_TABBY: Table = &[TABLE[0], TABLE[1], TABLE[2], &tabby::Tabby];

fn main() -> ExitCode {
    let environment = fusion::env::Environment::from_process();
    fusion::run_with(TABLE_WITH_TABBY, std::env::args_os(), environment)
}
