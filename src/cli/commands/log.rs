//! `fusion <service> log`.

use std::io;
use std::num::IntErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use crate::app::{App, ServiceLog};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::filter::TerminalFilter;
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
/// The log holds the output of the server since its start. A terminal gets it without escape sequences and other control
/// characters; a pipe or file gets every byte unchanged.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Every start renames the previous log to .1, that one to .2, and so on, and keeps `log_keep` of them. While the server \
runs, a log larger than `log_max_size` is copied to .1 and truncated. The command also shows what was copied since the \
start.

--follow needs a running server (exit code 3 without one), continues after a restart, and ends with the server (exit \
code 0).")]
pub struct LogArgs {
    /// Show the last LINES lines, or `all` [default: all; 20 on a terminal and with --follow]
    #[arg(short = 'n', long, value_name = "LINES", value_parser = lines)]
    lines: Option<Lines>,
    /// Show new output until the server ends
    #[arg(short, long)]
    follow: bool,
    /// Print the path of the log
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

impl LogArgs {
    fn last_lines(&self, to_terminal: bool) -> u64 {
        match self.lines {
            Some(Lines(lines)) => lines,
            None if self.follow || to_terminal => DEFAULT_TAIL_LINES,
            None => u64::MAX,
        }
    }
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &LogArgs) -> Result<Exit, Failure> {
    let target = Target { app, log: app.log(service) };
    let log = target.log.path();
    if args.path {
        let mut line = log.into_os_string();
        line.push("\n");
        context.ui.result_bytes(line.as_bytes())?;
        return Ok(Exit::Done);
    }
    if args.follow && target.log.running()?.is_none() {
        return Err(target.not_running(context));
    }
    let lines = args.last_lines(context.ui.stdout_is_terminal);
    let reader = LogReader::open(&log, lines)?.ok_or_else(|| target.no_log())?;
    let mut output = LogPrinter::new(context);
    if args.follow {
        follow(context, &target, reader, &mut output)?;
    } else {
        show(context, reader, &mut output)?;
    }
    output.finish()?;
    Ok(Exit::Done)
}

/// Shows what the log holds now. What is written meanwhile is left out: otherwise a busy server would never let it end.
fn show(context: &Context, mut reader: LogReader, output: &mut LogPrinter<'_>) -> Result<(), Failure> {
    let mut remaining = reader.remaining();
    let mut block = Vec::new();
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
                note_truncation(context);
                break;
            }
        }
    }
    Ok(())
}

/// Shows the log and what is added to it, until the server ends or the reader of the output is gone.
fn follow(
    context: &Context,
    target: &Target<'_>,
    mut reader: LogReader,
    output: &mut LogPrinter<'_>,
) -> Result<(), Failure> {
    let mut block = Vec::new();
    let mut interval = MIN_POLL_INTERVAL;
    let mut checked = Instant::now();
    let mut has_ended = false;
    let mut warned = false;
    loop {
        block.clear();
        match reader.read(&mut block)? {
            ReadProgress::Read => {
                output.write(&block)?;
                interval = MIN_POLL_INTERVAL;
            }
            ReadProgress::Truncated => note_truncation(context),
            ReadProgress::UpToDate if has_ended => {
                context.ui.note(&format!("{} has ended", target.name()));
                return Ok(());
            }
            ReadProgress::UpToDate => {
                if checked.elapsed() >= LIVENESS_INTERVAL {
                    let running = target.log.running()?;
                    // A restart may have ended between the first two checks. The last output is read after this one.
                    has_ended =
                        running.is_none() && !target.log.is_changing() && target.log.running()?.is_none();
                    if let Some(pid) = running.filter(|_| !warned && target.has_lost_log()) {
                        context.ui.warning(&target.deleted(pid));
                        warned = true;
                    }
                    checked = Instant::now();
                }
                wait(&context.ui, interval)?;
                interval = (interval * 2).min(MAX_POLL_INTERVAL);
            }
        }
    }
}

fn note_truncation(context: &Context) {
    context.ui.note("the log was truncated: lines may be missing");
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

/// Standard output, filtered if it is a terminal.
struct LogPrinter<'a> {
    ui: &'a Ui,
    filter: Option<TerminalFilter>,
    text: String,
    /// Whether the last line is complete.
    complete: bool,
}

impl<'a> LogPrinter<'a> {
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
            assert_eq!(lines(text).ok(), expected.map(Lines), "{text}");
        }
    }
}
