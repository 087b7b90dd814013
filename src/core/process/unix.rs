//! The driver of the real operating system: spawns processes in sessions of their own, and signals them.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::unistd;

use super::children::Children;
use super::driver::{
    Child, EXIT_POLL_INTERVAL, Ending, Holdings, INSTANCE_VARIABLE, Instance, Listener, ProcessDriver,
    ProcessError, ProcessSpec, StopSignal, Usage,
};
use super::host::Host;
use super::id::ProcessId;
use super::inspect::{self, HolderSearch, Inspect};
use super::socket::ListeningSockets;
use crate::core::address::Address;
use crate::core::files;
use crate::core::pid::Pid;

/// The operating system. A driver owns the processes that it spawned: each method that inspects processes first reaps
/// those that have ended. One driver serves for the whole life of a process.
#[derive(Debug)]
pub struct UnixDriver {
    children: Children,
    /// How many starts adopt what their processes leave.
    adopting: AtomicUsize,
    /// The limits of open descriptors, soft and hard, that this process had at first: what it spawns has the same,
    /// however far the gateway raises its own.
    descriptors: Option<(rlim_t, rlim_t)>,
}

impl Default for UnixDriver {
    fn default() -> Self {
        Self::new()
    }
}

impl UnixDriver {
    /// Returns a driver without children.
    pub fn new() -> Self {
        Self {
            children: Children::new(),
            adopting: AtomicUsize::new(0),
            descriptors: getrlimit(Resource::RLIMIT_NOFILE).ok(),
        }
    }

    /// Returns the kernel's view, after reaping the driver's own children.
    fn inspect(&self) -> &'static dyn Inspect {
        self.children.reap();
        inspect::native()
    }

    /// Returns the first of these processes that lives and whose standard output or error is this log.
    fn writer_among(&self, pids: &[i32], log: &Path) -> Option<ProcessId> {
        let log = fs::symlink_metadata(log).ok()?;
        pids.iter().find_map(|pid| {
            let is_log = |output| inspect::native().file_of(*pid, output) == Some((log.dev(), log.ino()));
            let id = if is_log(1) || is_log(2) { Pid::try_from(i64::from(*pid)).ok()? } else { return None };
            self.identify(id).ok()?
        })
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ProcessError {
    move |source| ProcessError::System { what, source }
}

/// Says whether orphans of this process's descendants become its children. Only Linux has that.
#[cfg(target_os = "linux")]
fn adopt_orphans(adopts: bool) {
    // Where it is refused, programs that put themselves into the background are found by their instance id alone.
    let _ = nix::sys::prctl::set_child_subreaper(adopts);
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans(_: bool) {}

impl ProcessDriver for UnixDriver {
    fn begin_adopting(&self) {
        if self.adopting.fetch_add(1, Ordering::SeqCst) == 0 {
            adopt_orphans(true);
        }
    }

    fn end_adopting(&self) {
        if self.adopting.fetch_sub(1, Ordering::SeqCst) == 1 {
            adopt_orphans(false);
        }
    }

    fn adopted(&self, child: &ProcessId) -> Result<Vec<ProcessId>, ProcessError> {
        let adopted = inspect::children_since(self.inspect(), child, |pid| !self.children.has(pid))?;
        for process in &adopted {
            self.children.reap_adopted(process.pid.as_raw());
        }
        Ok(adopted)
    }

    fn spawn(&self, spec: &ProcessSpec) -> Result<Box<dyn Child>, ProcessError> {
        let (stdout, stderr) = output(spec.log.as_deref())?;
        let mut command = Command::new(&spec.program);
        command.args(&spec.args);
        for variable in &spec.without {
            command.env_remove(variable);
        }
        if let Some(home) = &spec.home {
            command.env("HOME", home);
        }
        command
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .env(INSTANCE_VARIABLE, &spec.instance)
            .current_dir(&spec.directory)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        isolate(&mut command);
        if let Some(limits) = self.descriptors {
            limit_descriptors(&mut command, limits);
        }
        keep_children_for_waiting()?;
        let mut child = command.spawn().map_err(|error| spawn_error(spec, error))?;
        match identity(self.inspect(), &mut child) {
            Ok(id) => Ok(self.children.adopt(id, child)),
            Err(error) => {
                // A process without an identity cannot be stopped later. It is an unreaped child, so it still has its
                // PID.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    fn ending(&self, child: &ProcessId) -> Option<Ending> {
        self.children.reap();
        self.children.ending(child)
    }

    fn host(&self) -> Result<Host, ProcessError> {
        inspect::native().host()
    }

    fn identify(&self, pid: Pid) -> Result<Option<ProcessId>, ProcessError> {
        inspect::identify(self.inspect(), pid)
    }

    fn sleep_until_exit(&self, pid: Pid, limit: Duration) {
        if inspect::native().sleep_until_exit(pid.as_raw(), limit).is_err() {
            thread::sleep(limit.min(EXIT_POLL_INTERVAL));
        }
    }

    fn members(&self, instance: Instance<'_>) -> Result<Vec<ProcessId>, ProcessError> {
        inspect::members(self.inspect(), instance)
    }

    fn instance_id(&self, pid: Pid) -> Option<String> {
        inspect::native().instance(pid.as_raw())
    }

    fn leader_with_log(&self, member: Option<Pid>, log: &Path) -> Option<ProcessId> {
        let mut sessions: Vec<i32> = match member {
            Some(member) => vec![self.inspect().process(member.as_raw()).ok()??.session],
            None => self.inspect().processes().ok()?.iter().map(|process| process.session).collect(),
        };
        let own = unistd::getsid(None).ok()?.as_raw();
        sessions.retain(|session| *session != own);
        self.writer_among(&sessions, log)
    }

    fn writer(&self, log: &Path) -> Option<ProcessId> {
        let everyone = self.inspect().processes().ok()?;
        let pids: Vec<i32> = everyone.iter().map(|process| process.pid).collect();
        self.writer_among(&pids, log)
    }

    fn signal(&self, process: &ProcessId, signal: StopSignal) -> Result<(), ProcessError> {
        refuse_ourselves(process.pid)?;
        match self.identify(process.pid)? {
            Some(now) if now == *process => send(process.pid, process.pid.as_raw(), signal),
            _ => Ok(()),
        }
    }

    fn signal_group(&self, leader: &ProcessId, signal: StopSignal) -> Result<bool, ProcessError> {
        refuse_ourselves(leader.pid)?;
        let native = self.inspect();
        let now = native.process(leader.pid.as_raw())?;
        // `spawn` makes each process the leader of a session, and so of a group. Others may have no group of their own.
        let leads = now.is_some_and(|now| now.session == now.pid);
        if !leads || !inspect::is_same(native, leader)? {
            return Ok(false);
        }
        match send(leader.pid, -leader.pid.as_raw(), signal) {
            // The answer of macOS for a group in which all processes have ended.
            Err(ProcessError::Signal { .. }) if self.identify(leader.pid)?.is_none() => Ok(false),
            result => result.map(|()| true),
        }
    }

    fn is_in_group(&self, process: &ProcessId, leader: &ProcessId) -> bool {
        let group = unistd::getpgid(Some(unistd::Pid::from_raw(process.pid.as_raw())));
        group.is_ok_and(|group| group.as_raw() == leader.pid.as_raw())
    }

    fn usage(&self, process: &ProcessId) -> Option<Usage> {
        inspect::usage(self.inspect(), process)
    }

    fn holdings(&self, process: &ProcessId) -> Holdings {
        inspect::holdings(self.inspect(), process)
    }

    fn listener(&self, address: &Address, ours: Option<Instance<'_>>) -> Result<Listener, ProcessError> {
        inspect::listener(self.inspect(), None, address, ours)
    }

    fn background_listener(&self, address: &Address, first: &ProcessId) -> Option<Pid> {
        inspect::background_listener(self.inspect(), address, first.pid)
    }

    fn listening(&self, ports: &[u16]) -> Option<ListeningSockets> {
        let native = inspect::native();
        let sockets = native.listening(None).ok()?;
        let searched = sockets.iter().filter(|socket| ports.contains(&socket.port));
        let search = HolderSearch::of(native, searched.cloned()).within(SEARCH_TIME);
        Some(ListeningSockets { sockets, ports: ports.to_vec(), search })
    }

    fn listener_among(
        &self,
        sockets: &ListeningSockets,
        address: &Address,
        ours: Option<Instance<'_>>,
    ) -> Result<Listener, ProcessError> {
        inspect::listener(self.inspect(), Some(sockets), address, ours)
    }

    fn own_listener(&self, sockets: &ListeningSockets, address: &Address, leader: Pid) -> Option<Pid> {
        inspect::own_listener(inspect::native(), sockets, address, leader)
    }
}

/// How long the search for the holders of listed sockets takes at most: as long as each server may take to respond.
const SEARCH_TIME: Duration = Duration::from_secs(1);

/// Opens standard output and error, which append to one log in the order in which they are written.
fn output(log: Option<&Path>) -> Result<(Stdio, Stdio), ProcessError> {
    let Some(log) = log else { return Ok((Stdio::null(), Stdio::null())) };
    let file = files::open(log, OpenOptions::new().append(true).create(true))?;
    let second = file.try_clone().map_err(system("duplicate the log's descriptor"))?;
    Ok((OwnedFd::from(file).into(), OwnedFd::from(second).into()))
}

/// Resets SIGCHLD. While it is ignored, which is inherited, the kernel reaps all children itself: how they ended is
/// lost, and their PIDs are free at once.
fn keep_children_for_waiting() -> Result<(), ProcessError> {
    #[expect(unsafe_code, reason = "signal dispositions have no safe interface")]
    // SAFETY: the default action installs no handler, so there is no code that a signal could run.
    let reset = unsafe { nix::sys::signal::sigaction(Signal::SIGCHLD, &default_action()) };
    reset.map(|_| ()).map_err(|error| system("reset SIGCHLD")(error.into()))
}

fn default_action() -> SigAction {
    SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty())
}

/// Returns the identity of a child that is not reaped yet, so no other process can have its PID.
fn identity(inspect: &dyn Inspect, child: &mut std::process::Child) -> Result<ProcessId, ProcessError> {
    let number = i64::from(child.id());
    let pid = Pid::try_from(number).map_err(|error| system("start a process")(io::Error::other(error)))?;
    let host = inspect.host()?;
    let start_time = match inspect.process(pid.as_raw())? {
        Some(process) => process.start_time,
        // It ended at once, and this system hides zombies. No living process has the start time 0.
        None if child.try_wait().map_err(system("wait for the process"))?.is_some() => 0,
        None => return Err(system("inspect the process that was started")(io::ErrorKind::NotFound.into())),
    };
    Ok(ProcessId { pid, start_time, host })
}

/// Isolates the child from this process between fork and exec: a session of its own, default signal dispositions, and
/// no descriptor beyond the standard streams.
pub fn isolate(command: &mut Command) {
    let last_descriptor = last_descriptor();
    let prepare = move || {
        unistd::setsid()?;
        reset_signals()?;
        close_on_exec(last_descriptor);
        Ok(())
    };
    #[expect(unsafe_code, reason = "the standard library has no safe way to run code between fork and exec")]
    // SAFETY: after fork only async-signal-safe functions may be called. `prepare` calls setsid, sigaction,
    // pthread_sigmask, close_range and fcntl, which are, and neither allocates nor locks; an error is a bare number.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Sets the limits of open descriptors of the child.
fn limit_descriptors(command: &mut Command, (soft, hard): (rlim_t, rlim_t)) {
    let set = move || Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?);
    #[expect(unsafe_code, reason = "the standard library has no safe way to run code between fork and exec")]
    // SAFETY: after fork only async-signal-safe functions may be called. setrlimit is one system call; an error is a bare
    // number.
    unsafe {
        command.pre_exec(set);
    }
}

/// Resets all signals to their default dispositions, and unblocks them. Both are inherited: `nohup` or a careless
/// parent would make servers ignore SIGHUP, SIGTERM or SIGPIPE.
fn reset_signals() -> io::Result<()> {
    for number in 1..=LAST_SIGNAL {
        #[expect(unsafe_code, reason = "nix does not know the real-time signals")]
        // SAFETY: SIG_DFL is a valid disposition and runs no code of ours. The call refuses numbers that are no signal,
        // SIGKILL, SIGSTOP, and the two signals that the C library uses for its threads; all of that is intended.
        unsafe {
            libc::signal(number, libc::SIG_DFL);
        }
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// The last real-time signal of Linux; BSD and macOS end at 31.
const LAST_SIGNAL: i32 = 64;

/// Marks every descriptor from 3 up for closing on exec. To close them here would cut the pipe that reports a failed
/// exec.
fn close_on_exec(last: i32) {
    #[cfg(target_os = "linux")]
    {
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        #[expect(unsafe_code, reason = "nix has no close_range")]
        // SAFETY: the system call takes three numbers and touches no memory of ours. (The function of that name is
        // missing from C libraries older than the system call.)
        let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
        if done == 0 {
            return;
        }
    }
    for descriptor in 3..=last {
        #[expect(
            unsafe_code,
            reason = "nix wants a borrowed descriptor, and these are numbers that may be closed"
        )]
        // SAFETY: F_SETFD takes a number and touches no memory; a descriptor that is not open is refused.
        unsafe {
            libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// Returns the highest open descriptor. Runs before the fork, because reading a directory is not allowed after it.
fn last_descriptor() -> i32 {
    let entries = std::fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    let open = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // Without /dev/fd: the default limit of macOS.
    open.max().unwrap_or(10_240)
}

/// Returns why a spawn failed: ENOENT alone may mean the directory, the program or its interpreter.
fn spawn_error(spec: &ProcessSpec, source: io::Error) -> ProcessError {
    let program = spec.program.clone();
    if !spec.directory.is_dir() {
        return ProcessError::DirectoryMissing { directory: spec.directory.clone() };
    }
    let code = source.raw_os_error().unwrap_or_default();
    if [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::E2BIG].contains(&code) {
        return ProcessError::System { what: "start a process", source };
    }
    if source.kind() != io::ErrorKind::NotFound {
        return ProcessError::CannotRun { program, source };
    }
    if !program.exists() {
        return ProcessError::ProgramMissing { program };
    }
    match interpreter(&program) {
        Some(interpreter) => ProcessError::InterpreterMissing { program, interpreter },
        None => ProcessError::CannotRun { program, source },
    }
}

/// Returns the path that follows `#!` in the first line of a script.
fn interpreter(program: &Path) -> Option<String> {
    let mut start = Vec::new();
    std::fs::File::open(program).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    line.split_ascii_whitespace().next().map(str::to_owned)
}

fn refuse_ourselves(pid: Pid) -> Result<(), ProcessError> {
    if inspect::ourselves(inspect::native()).contains(&pid.as_raw()) {
        return Err(ProcessError::Ourselves { pid });
    }
    Ok(())
}

/// Sends the signal to `target`, a PID or the negative number of a group; succeeds if that has ended.
///
/// The caller has just checked which process has the number. For another process to get it before the signal, the
/// kernel would have to give out all other PIDs first.
fn send(pid: Pid, target: i32, signal: StopSignal) -> Result<(), ProcessError> {
    let target = unistd::Pid::from_raw(target);
    let first = match signal {
        StopSignal::Terminate => Signal::SIGTERM,
        StopSignal::Interrupt => Signal::SIGINT,
        StopSignal::Kill => Signal::SIGKILL,
        StopSignal::Hold => Signal::SIGSTOP,
    };
    match nix::sys::signal::kill(target, first) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(ProcessError::Signal { pid, source: error.into() }),
    }
    if signal == StopSignal::Terminate {
        // After SIGTERM, so a stopped process ends instead of running on. It fails if the process has ended.
        let _ = nix::sys::signal::kill(target, Signal::SIGCONT);
    }
    Ok(())
}
