//! Measures what fusion costs, as ratios to `curl` and to programs that do only the necessary: `cargo bench`.
//!
//! A full run writes its table and its chart into `docs/`; `cargo bench -- --quick` makes few rounds and writes
//! nothing. No duration is asserted: the aims stand beside the figures. `docs/performance.md` explains what is
//! measured.

#![allow(clippy::print_stdout, reason = "the figures are the result")]

mod agents;
mod chart;
mod crowd;
mod fleet;
mod marks;
mod measure;
mod measurements;
mod programs;
mod release;
mod report;
mod row;
mod server;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use programs::Programs;
use report::Report;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    let mut next = || arguments.next().with_context(|| format!("{role} needs another argument"));
    match role.as_str() {
        "--memory" => measure::print_memory(&next()?, arguments),
        "--threads" => crowd::play_threads(next()?.parse()?),
        "--descriptors" => crowd::play_descriptors(next()?.parse()?),
        "--serve" => {
            let (address, delay, stamp) = (next()?, next()?, next()?);
            server::play_service(&address, Duration::from_millis(delay.parse()?), Path::new(&stamp))
        }
        _ => compare(std::env::args().any(|argument| argument == "--quick")),
    }
}

fn compare(quick: bool) -> Result<()> {
    let rounds = |full: usize| if quick { full.div_ceil(20) } else { full };
    // A hosted macOS machine allows fewer processes and threads.
    let crowds = !(quick && cfg!(target_os = "macos"));
    let programs = Programs::build()?;
    let mut report = Report::new();
    measurements::start_up(&programs, &mut report, rounds(200))?;
    measurements::one_token(&programs, &mut report, rounds(200))?;
    measurements::many_tokens(&programs, &mut report, rounds(20))?;
    measurements::delay(&programs, &mut report, rounds(20))?;
    agents::launch(&programs, &mut report, rounds(100))?;
    agents::first_prompt(&programs, &mut report, rounds(100))?;
    measurements::services(&programs, &mut report, rounds(200), rounds(10), crowds)?;
    measurements::external(&programs, &mut report, rounds(200), crowds)?;
    agents::top(&programs, &mut report, if quick { 1 } else { 20 })?;
    if crowds {
        fleet::fleet(&programs, &mut report, rounds(100), rounds(20))?;
    }
    if !crowds {
        println!(
            "\nnot measured: fifty services, ps beside 1,000 processes, 3,000 threads and 8,000 descriptors"
        );
    }
    if !programs.has_curl() {
        println!("\ncurl is not installed: the comparisons with it are missing");
    }
    if !quick && programs.has_curl() && crowds {
        report.publish(Path::new(env!("CARGO_MANIFEST_DIR")), &programs)?;
    }
    Ok(())
}
