//! fusion with one runtime more: what `src/core/runtimes.rs` would be if llama.cpp's `llama-server` were in its
//! table. `tests/adding_a_runtime.rs` runs it.

mod llama;

use std::process::ExitCode;

use fusion::core::runtimes::{TABLE, Table};

/// The one entry.
const TABLE_WITH_LLAMA: Table = &[TABLE[0], TABLE[1], &llama::Llama];

fn main() -> ExitCode {
    let environment = fusion::env::Environment::from_process();
    fusion::run_with(TABLE_WITH_LLAMA, std::env::args_os(), environment)
}
