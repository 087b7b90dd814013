//! `fusion <service> log` and `fusion log`.

mod printer;

use std::io;
use std::num::IntErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use self::printer::LogPrinter;
use crate::app::{App, ServiceLog};
use crate::cli::commands::several::{NOTHING_RUNS, SelectionArgs, named, nothing_selected};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::ui::Ui;
use crate::core::logs::{LogReader, ReadProgress};
use crate::core::process::Pid;
use crate::core::services::{ManagedService, State};

/// How many lines are shown on a terminal and with `--follow`.
const DEFAULT_TAIL_LINES: u64 = 20;

/// While nothing is written, the interval grows from the first to the second: output comes in bursts.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(5);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How often the process is checked while nothing is written.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(250);

/// Show the log of the server
///
/// The log holds the output of the server since its start. A terminal gets it without escape sequences and other
/// control characters; a pipe or file gets every byte unchanged.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Every start renames the previous log to .1, that one to .2, and so on, and keeps `log_keep` of them. While the server \
runs, a log larger than `log_max_size` is copied to .1 and truncated. The command also shows what was copied since the \
start.

--follow needs a running server (exit code 3 without one), continues after a restart, and ends with the server (exit \
code 0).")]
pub struct LogArgs {
    #[command(flatten)]
    flags: LogFlags,
}

/// Show the logs of several services
///
/// Of several logs, each line begins with the name of its service.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without names: every running service that fusion started.")]
pub struct AllLogArgs {
    #[command(flatten)]
    which: SelectionArgs,
    #[command(flatten)]
    flags: LogFlags,
}

#[derive(Debug, clap::Args)]
struct LogFlags {
    /// Show the last LINES lines, or `all` [default: all; 20 on a terminal and with --follow]
    #[arg(short = 'n', long, value_name = "LINES", value_parser = lines)]
    lines: Option<u64>,
    /// Show new output until the server ends
    #[arg(short, long)]
    follow: bool,
    /// Print the path of the log
    #[arg(long, conflicts_with_all = ["lines", "follow"])]
    path: bool,
}

fn lines(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(lines) => Ok(lines),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Ok(u64::MAX),
        Err(_) if text == "all" => Ok(u64::MAX),
        Err(_) => Err("expected a number of lines, or `all`".to_owned()),
    }
}

impl LogFlags {
    fn last_lines(&self, to_terminal: bool) -> u64 {
        match self.lines {
            Some(lines) => lines,
            None if self.follow || to_terminal => DEFAULT_TAIL_LINES,
            None => u64::MAX,
        }
    }
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &LogArgs) -> Result<Exit, Failure> {
    print(context, app, &[service], &args.flags)
}

/// Runs the command for several services.
pub fn run_all(context: &Context, app: &App, args: &AllLogArgs) -> Result<Exit, Failure> {
    let selection = args.which.selection();
    let mut services = app.select_with_gateway(&selection)?;
    if selection.names.is_empty() {
        services = app.started_by_fusion(services);
        if services.is_empty() {
            return Err(Failure::new(Exit::NotRunning, NOTHING_RUNS)
                .hint("name the service whose last log you want: fusion log NAME"));
        }
    }
    if services.is_empty() {
        Err(nothing_selected(&selection))
    } else {
        print(context, app, &services, &args.flags)
    }
}

/// Prints the logs of the services, or their paths. Of several, it goes on after a failure and returns the exit code of
/// the first one.
fn print(
    context: &Context,
    app: &App,
    services: &[&ManagedService],
    flags: &LogFlags,
) -> Result<Exit, Failure> {
    let widest = services.iter().map(|service| service.name.len()).max().unwrap_or_default();
    let prefix = |name: &str| (services.len() > 1).then(|| format!("{name:widest$} | "));
    let lines = flags.last_lines(context.ui.stdout_is_terminal);
    let (mut shown, mut exit) = (Vec::new(), Exit::Done);
    for service in services {
        let target = Target { app, log: app.log(service) };
        if flags.path {
            print_path(context, &target.log.path())?;
            continue;
        }
        match target.open(context, lines, flags.follow) {
            Ok(reader) => {
                shown.push(ShownLog::new(target, reader, LogPrinter::new(context, prefix(&service.name))));
            }
            Err(failure) if services.len() == 1 => return Err(failure),
            Err(failure) => exit = exit.or(context.ui.failure(&named(service, &failure))),
        }
    }
    if flags.follow {
        follow(context, shown)?;
    } else {
        show(context, shown)?;
    }
    Ok(exit)
}

fn print_path(context: &Context, log: &Path) -> Result<(), Failure> {
    let mut line = log.as_os_str().to_owned();
    line.push("\n");
    context.ui.result_bytes(line.as_bytes())
}

/// A log that is shown.
struct ShownLog<'a> {
    target: Target<'a>,
    reader: LogReader,
    output: LogPrinter<'a>,
    /// When its process was last seen alive.
    checked: Instant,
    has_ended: bool,
    /// Whether the loss of the log was reported.
    warned: bool,
}

/// The result of one poll of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogPoll {
    Output,
    Nothing,
    /// There is no more output: the server has ended.
    End,
}

impl<'a> ShownLog<'a> {
    fn new(target: Target<'a>, reader: LogReader, output: LogPrinter<'a>) -> Self {
        Self { target, reader, output, checked: Instant::now(), has_ended: false, warned: false }
    }

    /// Shows what was added to the log since the last poll.
    fn poll(&mut self, context: &Context, block: &mut Vec<u8>) -> Result<LogPoll, Failure> {
        block.clear();
        match self.reader.read(block)? {
            ReadProgress::Read => {
                self.output.write(block)?;
                return Ok(LogPoll::Output);
            }
            ReadProgress::Truncated => self.target.note_truncation(context),
            ReadProgress::UpToDate if self.has_ended => {
                context.ui.note(&format!("{} has ended", self.target.name()));
                return Ok(LogPoll::End);
            }
            ReadProgress::UpToDate if self.checked.elapsed() >= LIVENESS_INTERVAL => self.check(context)?,
            ReadProgress::UpToDate => {}
        }
        Ok(LogPoll::Nothing)
    }

    /// Checks whether the server is alive, and its log where it was.
    fn check(&mut self, context: &Context) -> Result<(), Failure> {
        let target = &self.target;
        let running = target.log.running()?;
        // A restart may have ended between the first two checks. The last output is read after this one.
        self.has_ended = running.is_none() && !target.log.is_changing() && target.log.running()?.is_none();
        if let Some(pid) = running.filter(|_| !self.warned && target.has_lost_log()) {
            context.ui.warning(&target.deleted(pid));
            self.warned = true;
        }
        self.checked = Instant::now();
        Ok(())
    }
}

/// Shows what the logs hold now. What is written meanwhile is left out: otherwise a busy server would never let it end.
fn show(context: &Context, logs: Vec<ShownLog<'_>>) -> Result<(), Failure> {
    let mut block = Vec::new();
    for ShownLog { target, mut reader, mut output, .. } in logs {
        let mut remaining = reader.remaining();
        while remaining > 0 {
            block.clear();
            match reader.read(&mut block)? {
                ReadProgress::Read => {
                    block.truncate(usize::try_from(remaining).unwrap_or(usize::MAX));
                    remaining -= block.len() as u64;
                    output.write(&block)?;
                }
                ReadProgress::UpToDate => break,
                ReadProgress::Truncated => {
                    target.note_truncation(context);
                    break;
                }
            }
        }
        output.finish()?;
    }
    Ok(())
}

/// Shows the logs and what is added to them, until every server has ended or the reader of the output is gone.
fn follow(context: &Context, mut logs: Vec<ShownLog<'_>>) -> Result<(), Failure> {
    let mut block = Vec::new();
    let mut interval = MIN_POLL_INTERVAL;
    while !logs.is_empty() {
        let mut going_on = Vec::new();
        let mut is_quiet = true;
        for mut log in logs {
            match log.poll(context, &mut block)? {
                LogPoll::End => {
                    log.output.finish()?;
                    continue;
                }
                poll => is_quiet &= poll == LogPoll::Nothing,
            }
            going_on.push(log);
        }
        logs = going_on;
        if is_quiet && !logs.is_empty() {
            wait(&context.ui, interval)?;
            interval = (interval * 2).min(MAX_POLL_INTERVAL);
        } else {
            interval = MIN_POLL_INTERVAL;
        }
    }
    Ok(())
}

/// The log that is shown, and the errors for one that is missing.
struct Target<'a> {
    app: &'a App,
    log: ServiceLog<'a>,
}

impl Target<'_> {
    fn name(&self) -> &str {
        &self.log.service.name
    }

    /// Opens the log at its last lines; to be followed, its server must be running.
    fn open(&self, context: &Context, lines: u64, to_follow: bool) -> Result<LogReader, Failure> {
        if to_follow && self.log.running()?.is_none() {
            return Err(self.not_running(context));
        }
        LogReader::open(&self.log.path(), lines)?.ok_or_else(|| self.no_log())
    }

    fn note_truncation(&self, context: &Context) {
        context.ui.note(&format!("the log of {} was truncated: lines may be missing", self.name()));
    }

    fn not_running(&self, context: &Context) -> Failure {
        let name = self.name();
        let status = self.app.manager(&context.cancel).status(self.log.service).ok();
        match status.filter(|status| status.state == State::External) {
            Some(status) => Failure::new(
                Exit::Failed,
                match &status.address {
                    Some(address) => format!("fusion did not start {name} at {address} and has no log of it"),
                    None => format!("fusion did not start {name} and has no log of it"),
                },
            )
            .hint(format!("see the terminal or the program that started {name}")),
            None => Failure::new(Exit::NotRunning, format!("{name} is not running")).hint(self.start_hint()),
        }
    }

    fn no_log(&self) -> Failure {
        let name = self.name();
        match self.log.running() {
            Ok(Some(pid)) => Failure::new(Exit::Failed, self.deleted(pid))
                .hint(format!("start a new log: fusion {name} restart")),
            _ => Failure::new(Exit::Failed, format!("{name} has no log yet: fusion has not started it"))
                .hint(self.start_hint()),
        }
    }

    /// Returns whether the log is missing at its path. A start creates it while it holds the lock.
    fn has_lost_log(&self) -> bool {
        !self.log.path().exists() && !self.log.is_changing()
    }

    fn deleted(&self, pid: Pid) -> String {
        let (log, name) = (self.log.path(), self.name());
        format!("{} was deleted while {name} (pid {pid}) writes to it", log.display())
    }

    fn start_hint(&self) -> String {
        format!("start the server: fusion {} up", self.name())
    }
}

/// Sleeps; fails quietly once the reader of standard output is gone, even if nothing is written.
fn wait(ui: &Ui, time: Duration) -> Result<(), Failure> {
    if ui.output().reader_is_gone(PollTimeout::ZERO) {
        return Err(Failure::output(&io::ErrorKind::BrokenPipe.into()));
    }
    std::thread::sleep(time);
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
            assert_eq!(lines(text).ok(), expected, "{text}");
        }
    }
}
