//! The processes of the machine, as the tests see them.

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::libc;
use nix::sys::signal::{self, SigHandler, Signal};
use nix::unistd::Pid;

/// Returns every living process with this variable in its environment, without zombies. macOS does not show the
/// environment of its own programs (`sh`, `sleep`), so only ours, like the fake runtime, can be found.
pub fn with_variable(name: &str, value: &str) -> Vec<i32> {
    let wanted = format!("{name}={value}");
    if cfg!(target_os = "linux") { from_proc(&wanted) } else { from_ps(&wanted) }
}

fn from_proc(wanted: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) && !is_zombie(*pid)
    })
    .collect()
}

fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// `ps` shows the environment of the user's own processes.
fn from_ps(wanted: &str) -> Vec<i32> {
    let output = Command::new("ps").args(["-axwwE", "-o", "pid=,stat=,command="]).output().expect("ps");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| line.split_whitespace().any(|word| word == wanted));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let pid = words.next()?.parse().ok()?;
            (!words.next()?.starts_with('Z')).then_some(pid)
        })
        .collect()
}

/// The PID of the test itself.
pub fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Whether a process with this PID lives. A zombie does not.
pub fn lives(pid: i32) -> bool {
    if cfg!(target_os = "linux") {
        !is_zombie(pid)
    } else {
        let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().expect("ps");
        let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        !state.is_empty() && !state.starts_with('Z')
    }
}

/// Its PID, parent, state and command line.
pub fn describe(pid: i32) -> String {
    let output =
        Command::new("ps").args(["-ww", "-o", "pid=,ppid=,stat=,command=", "-p", &pid.to_string()]).output();
    output
        .map_or_else(|_| pid.to_string(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The words of its command line, none of which may have a space.
pub fn arguments(pid: i32) -> Vec<String> {
    let output =
        Command::new("ps").args(["-ww", "-o", "command=", "-p", &pid.to_string()]).output().expect("ps");
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

/// Sends SIGKILL. A process that has ended is no error.
pub fn kill(pid: i32) {
    send(pid, Signal::SIGKILL);
}

/// Sends a signal. A process that has ended is no error.
pub fn send(pid: i32, signal: Signal) {
    let _ = signal::kill(Pid::from_raw(pid), signal);
}

/// Those that a test may have inherited as ignored, from `nohup` or from a shell that started it in the background.
const OFTEN_IGNORED: [Signal; 4] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTERM];

/// Has the program start with the default actions of signals. Does nothing if the test ignores none: a program without
/// code of ours between fork and exec starts by `posix_spawn`, which does not copy the page tables of the test.
pub fn reset_signals(command: &mut Command) {
    if !OFTEN_IGNORED.into_iter().any(is_ignored) {
        return;
    }
    let reset = || {
        for ignored in OFTEN_IGNORED {
            #[expect(unsafe_code, reason = "signal dispositions have no safe interface")]
            // SAFETY: the default action installs no handler, and sigaction is async-signal-safe.
            unsafe {
                signal::signal(ignored, SigHandler::SigDfl)?;
            }
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "the standard library has no safe way to run code between fork and exec")]
    // SAFETY: after fork only async-signal-safe functions may be called: `reset` calls signal, which is one, and
    // neither allocates nor locks.
    unsafe {
        command.pre_exec(reset);
    }
}

fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    #[expect(unsafe_code, reason = "nix cannot ask for an action without a change of it")]
    // SAFETY: without a new action, sigaction only writes the present one. Zeros are one, too.
    let action = unsafe {
        libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}
