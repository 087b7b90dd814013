//! Running programs in turn, and what they cost.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// What one run of a program cost.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// From before the start to after the end.
    pub(crate) wall: Duration,
    /// User and system time of the program.
    pub(crate) cpu: Duration,
}

/// Runs the program to its end, its output thrown away.
pub(crate) fn cost(command: &mut Command) -> Cost {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (before, start) = (children_cpu(), Instant::now());
    let status = command.status().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let wall = start.elapsed();
    assert!(status.success(), "{command:?} ended with {status}");
    Cost { wall, cpu: children_cpu().saturating_sub(before) }
}

fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("own usage");
    let duration = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), 0)
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
    };
    duration(usage.user_time()) + duration(usage.system_time())
}

/// Runs the programs in turn, `rounds` times, after one unmeasured round; gives the costs of each.
pub(crate) fn in_turn(rounds: usize, commands: &mut [Command]) -> Vec<Vec<Cost>> {
    let mut costs = vec![Vec::with_capacity(rounds); commands.len()];
    for round in 0..=rounds {
        for (command, costs) in commands.iter_mut().zip(&mut costs) {
            let cost = cost(command);
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    costs
}

/// For each piece of the program's output that arrives, when it did and how long it was.
pub(crate) fn arrivals(command: &mut Command) -> Vec<(Instant, Vec<u8>)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a program");
    let mut output = child.stdout.take().expect("a pipe");
    let (mut pieces, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let length = output.read(&mut buffer).expect("a pipe");
        if length == 0 {
            break;
        }
        pieces.push((Instant::now(), buffer[..length].to_vec()));
    }
    assert!(child.wait().expect("a child").success(), "{command:?} failed");
    pieces
}

/// The most memory that the program held at once, in bytes. Measured by a process of its own (`compare --memory`),
/// because the kernel reports the largest of all children that a process ever had.
pub(crate) fn memory(command: &Command) -> u64 {
    let mut measuring = Command::new(std::env::current_exe().expect("own path"));
    measuring.arg("--memory").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        measuring.env(name, value.unwrap_or_default());
    }
    let output = measuring.stderr(Stdio::inherit()).output().expect("own program runs");
    assert!(output.status.success(), "{measuring:?} failed");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number of bytes")
}

/// The measuring process of [`memory`].
pub(crate) fn print_memory(program: &str, arguments: impl Iterator<Item = String>) {
    cost(Command::new(program).args(arguments));
    let largest = getrusage(UsageWho::RUSAGE_CHILDREN).expect("own usage").max_rss();
    // Bytes on macOS, kilobytes elsewhere (getrusage(2)).
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    println!("{}", largest.unsigned_abs() * unit);
}

/// The middle value.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which `share` of all values lie.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    assert!(!sorted.is_empty(), "nothing was measured");
    sorted.sort_by(f64::total_cmp);
    // An index into measurements, of which there are few.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = (share * (sorted.len() - 1) as f64).round() as usize;
    sorted[index]
}

/// The median of the ratios of what was measured in the same round.
pub(crate) fn ratio(of: &[Cost], to: &[Cost], what: fn(&Cost) -> Duration) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| what(of).as_secs_f64() / what(to).as_secs_f64()))
}

/// The median in milliseconds.
pub(crate) fn milliseconds(costs: &[Cost]) -> f64 {
    median(costs.iter().map(|cost| cost.wall.as_secs_f64() * 1000.0))
}
