//! `fusion <runtime> log`.

use std::io;
use std::num::IntErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::cli::terminal_filter::TerminalFilter;
use crate::cli::ui::Ui;
use crate::core::logs::{Progress, Reader, Start};
use crate::core::paths::RuntimePaths;
use crate::core::process::unix::UnixDriver;
use crate::core::process::{Liveness, Pid, ProcessDriver};
use crate::core::runtimes::Runtime;
use crate::core::services::record::Record;
use crate::core::services::{ServiceError, State, lock};

/// How many lines are shown where all would be too many.
const FEW: u64 = 20;

/// How long is slept while nothing is written: short at first, for what comes in bursts, then long enough to cost
/// nothing.
const SLEEP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// How often it is looked whether the runtime still runs.
const LIVENESS: Duration = Duration::from_millis(250);

/// Show its log
///
/// The log holds every byte that the runtime printed since it was started. A terminal shows it without escape
/// sequences and other control characters; a pipe or file gets it byte for byte.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A start puts the log of the last one aside as .1, that as .2, and so on (`log_keep` of them); while the runtime runs, \
its log is kept below `log_max_size` by moving its head to .1. The command shows what was moved since the start, too.

Following ends when the runtime does (exit code 0), goes on across a restart, and needs a running runtime (exit code \
3).")]
pub struct Args {
    /// Show the last LINES lines, or `all` [default: all; 20 on a terminal and with --follow]
    #[arg(short = 'n', long, value_name = "LINES", value_parser = lines)]
    lines: Option<Lines>,
    /// Go on showing what it prints, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Print only where the log is
    #[arg(long, conflicts_with_all = ["lines", "follow"])]
    path: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lines(u64);

fn lines(text: &str) -> Result<Lines, String> {
    match text.parse() {
        Ok(lines) => Ok(Lines(lines)),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Ok(Lines(u64::MAX)),
        Err(_) if text == "all" => Ok(Lines(u64::MAX)),
        Err(_) => Err("expected a number of lines, or `all`".to_owned()),
    }
}

impl Args {
    fn start(&self, to_terminal: bool) -> Start {
        match self.lines {
            Some(Lines(lines)) => Start::LastLines(lines),
            None if self.follow || to_terminal => Start::LastLines(FEW),
            None => Start::Beginning,
        }
    }
}

/// Runs the command.
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let target = Target { runtime, paths: context.paths.runtime(runtime.name()) };
    let log = target.log();
    if args.path {
        let mut line = log.into_os_string();
        line.push("\n");
        context.ui.result_bytes(line.as_bytes())?;
        return Ok(Exit::Done);
    }
    if args.follow && !target.is_running()? {
        return Err(target.not_running(context));
    }
    let start = args.start(context.ui.stdout_is_terminal);
    let reader = Reader::open(&log, start)?.ok_or_else(|| target.no_log(&log))?;
    let mut output = Output::new(context);
    if args.follow {
        follow(context, &target, reader, &mut output)?;
    } else {
        show(context, reader, &mut output)?;
    }
    output.finish()?;
    Ok(Exit::Done)
}

/// Shows what there is now, however much is added meanwhile.
fn show(context: &Context, mut reader: Reader, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut remaining = reader.remaining();
    let mut block = Vec::new();
    while remaining > 0 {
        block.clear();
        match reader.read(&mut block)? {
            Progress::Read => {
                block.truncate(usize::try_from(remaining).unwrap_or(usize::MAX));
                remaining -= block.len() as u64;
                output.write(&block)?;
            }
            Progress::UpToDate => break,
            Progress::Truncated => {
                tell(context, Progress::Truncated);
                break;
            }
            Progress::Overtaken => tell(context, Progress::Overtaken),
        }
    }
    Ok(())
}

/// Shows what there is and what comes, until the runtime ends or nobody reads any more.
fn follow(
    context: &Context,
    target: &Target,
    mut reader: Reader,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let mut block = Vec::new();
    let mut sleep = SLEEP.0;
    let mut looked = Instant::now();
    let mut ending = false;
    loop {
        block.clear();
        match reader.read(&mut block)? {
            Progress::Read => {
                output.write(&block)?;
                sleep = SLEEP.0;
            }
            Progress::UpToDate if ending => {
                context.ui.note(&format!("{} has ended", target.runtime.name()));
                return Ok(());
            }
            Progress::UpToDate => {
                if looked.elapsed() >= LIVENESS {
                    // What it printed last is read once more after its end.
                    ending = !target.is_running()? && !target.is_changing();
                    looked = Instant::now();
                }
                wait(sleep)?;
                sleep = (sleep * 2).min(SLEEP.1);
            }
            told => tell(context, told),
        }
    }
}

fn tell(context: &Context, progress: Progress) {
    match progress {
        Progress::Truncated => context.ui.note("the log was truncated"),
        Progress::Overtaken => {
            context.ui.warning("some lines are missing: the log was rotated faster than it was read");
        }
        Progress::Read | Progress::UpToDate => {}
    }
}

/// Whose log it is. What was recorded at the start counts, whatever the configuration says now.
struct Target {
    runtime: &'static dyn Runtime,
    paths: RuntimePaths,
}

impl Target {
    fn record(&self) -> Result<Option<Record>, Failure> {
        Ok(Record::read(&self.paths.state).map_err(ServiceError::from)?)
    }

    fn log(&self) -> PathBuf {
        let recorded = self.record().ok().flatten().and_then(|record| record.log);
        recorded.unwrap_or_else(|| self.paths.log.clone())
    }

    /// The process that was started, if it lives.
    fn running(&self) -> Result<Option<Pid>, Failure> {
        let Some(process) = self.record()?.and_then(|record| record.process) else { return Ok(None) };
        let liveness = UnixDriver::new().liveness(&process).map_err(ServiceError::from)?;
        Ok((liveness == Liveness::Alive).then_some(process.pid))
    }

    fn is_running(&self) -> Result<bool, Failure> {
        Ok(self.running()?.is_some())
    }

    /// Whether another command is starting or stopping it: a restart is not its end.
    fn is_changing(&self) -> bool {
        lock::is_held(&self.paths).unwrap_or(false)
    }

    fn not_running(&self, context: &Context) -> Failure {
        let name = self.runtime.name();
        let status = context.config().ok().and_then(|config| {
            context.with_services(&config, |manager| manager.status(&manager.service(self.runtime))).ok()
        });
        match status.filter(|status| status.state == State::External) {
            Some(status) => Failure::new(
                Exit::Failed,
                format!(
                    "fusion did not start {name} at {}, and does not have what it prints",
                    status.address
                ),
            )
            .hint("look where it was started"),
            None => Failure::new(Exit::NotRunning, format!("{name} is not running")).hint(self.start_it()),
        }
    }

    fn no_log(&self, log: &Path) -> Failure {
        let name = self.runtime.name();
        match self.running() {
            Ok(Some(pid)) => Failure::new(
                Exit::Failed,
                format!("{} was deleted while {name} (pid {pid}) writes to it", log.display()),
            )
            .hint(format!("to begin a new log: fusion {name} restart")),
            _ => Failure::new(Exit::Failed, format!("{name} has no log yet: fusion has not started it"))
                .hint(self.start_it()),
        }
    }

    fn start_it(&self) -> String {
        format!("start it: fusion {} up", self.runtime.name())
    }
}

/// Standard output: filtered when it is a terminal.
struct Output<'a> {
    ui: &'a Ui,
    filter: Option<TerminalFilter>,
    text: String,
    /// Whether the last line is complete.
    complete: bool,
}

impl<'a> Output<'a> {
    fn new(context: &'a Context) -> Self {
        let filter = context.ui.stdout_is_terminal.then(TerminalFilter::default);
        Self { ui: &context.ui, filter, text: String::new(), complete: true }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(filter) = &mut self.filter else { return self.ui.result_bytes(bytes) };
        self.text.clear();
        filter.push(bytes, &mut self.text);
        self.complete = self.text.chars().next_back().map_or(self.complete, |last| last == '\n');
        self.ui.result(&self.text)
    }

    /// On a terminal, completes the last line.
    fn finish(mut self) -> Result<(), Failure> {
        let Some(filter) = &mut self.filter else { return Ok(()) };
        self.text.clear();
        filter.finish(&mut self.text);
        if !self.complete || !self.text.is_empty() {
            self.text.push('\n');
        }
        self.ui.result(&self.text)
    }
}

/// Sleeps; fails quietly as soon as nobody reads any more, even if nothing is written.
fn wait(time: Duration) -> Result<(), Failure> {
    let stdout = io::stdout();
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    // That it can be written is asked only because macOS tells nothing of a closed pipe to who asks for nothing; the
    // sleep below paces the answer.
    let mut polled = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    let began = Instant::now();
    let found = nix::poll::poll(&mut polled, timeout);
    let events = polled[0].revents().unwrap_or(PollFlags::empty());
    if found.is_ok() && events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) {
        return Err(Failure::output(&io::ErrorKind::BrokenPipe.into()));
    }
    std::thread::sleep(time.saturating_sub(began.elapsed()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_a_number_or_all() {
        for (text, expected) in [
            ("0", Some(0)),
            ("20", Some(20)),
            ("all", Some(u64::MAX)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("-1", None),
            ("x", None),
            ("", None),
            ("1.5", None),
        ] {
            assert_eq!(lines(text).ok(), expected.map(Lines), "{text}");
        }
    }
}
