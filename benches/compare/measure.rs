//! Runs programs and measures what they cost.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// What one run of a program cost.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// From before the start to after the end.
    pub(crate) wall: Duration,
    /// User and system time of the program.
    pub(crate) cpu: Duration,
}

/// Runs the program to its end without input; its output is discarded.
pub(crate) fn cost(command: &mut Command) -> Result<Cost> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (before, start) = (children_cpu()?, Instant::now());
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    let wall = start.elapsed();
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(Cost { wall, cpu: children_cpu()?.saturating_sub(before) })
}

/// What all children that were waited for have used.
fn children() -> Result<Usage> {
    Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?)
}

/// User and system time of all children that were waited for.
pub(crate) fn children_cpu() -> Result<Duration> {
    let duration = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    let usage = children()?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

/// Runs the programs in turn, `rounds` times after one unmeasured round; returns the costs of each.
pub(crate) fn in_turn(rounds: usize, commands: &mut [Command]) -> Result<Vec<Vec<Cost>>> {
    let mut costs = vec![Vec::with_capacity(rounds); commands.len()];
    for round in 0..=rounds {
        for (command, costs) in commands.iter_mut().zip(&mut costs) {
            let cost = cost(command)?;
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    Ok(costs)
}

/// The pieces in which the program's output arrives, each with the moment of its arrival.
pub(crate) fn arrivals(command: &mut Command) -> Result<Vec<(Instant, Vec<u8>)>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().context("no pipe")?;
    let (mut pieces, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let length = output.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        pieces.push((Instant::now(), buffer[..length].to_vec()));
    }
    let status = child.wait()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(pieces)
}

/// The largest resident set of the program, in megabytes. The kernel reports the largest of all children that a process
/// ever had, so a process of its own (`compare --memory`) measures it.
pub(crate) fn memory(command: &Command) -> Result<f64> {
    let mut measuring = Command::new(std::env::current_exe()?);
    measuring.arg("--memory").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        measuring.env(name, value.unwrap_or_default());
    }
    let output = measuring.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{measuring:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().parse::<f64>()? / 1e6)
}

/// Plays the measuring process of [`memory`]: prints the bytes.
pub(crate) fn print_memory(program: &str, arguments: impl Iterator<Item = String>) -> Result<()> {
    cost(Command::new(program).args(arguments))?;
    // Bytes on macOS, kilobytes elsewhere (getrusage(2)).
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    println!("{}", children()?.max_rss().unsigned_abs() * unit);
    Ok(())
}

/// The middle value; an error without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Result<f64> {
    quantile(values, 0.5)
}

/// The value below which `share` of all values lie; an error without values.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> Result<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into few values"
    )]
    let index = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(index).copied().context("nothing was measured")
}
