//! The trait [`ProcessDriver`] and its types: everything that the lifecycle of a service needs from the operating
//! system.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::host::{Host, Place};
use super::id::ProcessId;
use super::socket::ListeningSockets;
use crate::core::address::Address;
use crate::core::files::FileError;
use crate::core::pid::Pid;

/// The environment variable that holds the instance id in every started process. It finds the process again if fusion
/// died between the spawn and the record.
pub const INSTANCE_VARIABLE: &str = "FUSION_INSTANCE";

/// How often the driver checks whether a process has ended, where the system cannot report it.
pub(super) const EXIT_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// The program's path; `PATH` is not searched.
    pub program: PathBuf,
    /// The arguments, passed byte for byte, never through a shell.
    pub args: Vec<OsString>,
    /// Variables of the caller's environment that it does not inherit.
    pub without: Vec<OsString>,
    /// The value of `HOME`, which the caller's environment may lack: Ollama panics without it.
    pub home: Option<PathBuf>,
    /// Variables that are added to the caller's environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory: one that is not removed while the process runs.
    pub directory: PathBuf,
    /// The file to which standard output and error are appended; `None` discards them.
    pub log: Option<PathBuf>,
    /// The value of [`INSTANCE_VARIABLE`].
    pub instance: String,
}

/// A signal that ends processes, or holds them until they are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM, then SIGCONT, because a stopped process does not receive SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGKILL.
    Kill,
    /// SIGSTOP: the process starts no other one until it is killed.
    Hold,
}

/// Whether the process of a [`ProcessId`] is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It runs.
    Alive,
    /// It ended: no process has the PID, or a zombie has it, or another process.
    Dead,
    /// It was started on another host or in another container, about which this host knows nothing.
    Elsewhere,
}

/// How a child of this process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// What a process and its descendants use.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// The time since the leader started.
    pub uptime: Duration,
    /// Resident memory of the whole tree, in bytes.
    pub memory_bytes: u64,
    /// CPU of the whole tree since its start, averaged, in percent of one core.
    pub cpu_percent: f64,
}

/// How much of what is limited a process and its descendants hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// `None` if the system does not report it for every process.
    pub threads: Option<u64>,
    /// Open file descriptors; `None` if the system does not report it for every process.
    pub open_files: Option<u64>,
}

/// The processes that one start of a service made, as its record identifies them.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// The value of [`INSTANCE_VARIABLE`] in its environment.
    pub id: &'a str,
    /// The process that was started; `None` if fusion died before it recorded the process.
    pub leader: Option<&'a ProcessId>,
}

/// The listener on an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Listener {
    /// No process listens.
    None,
    /// A process of the given instance.
    Ours {
        /// Its PID.
        pid: Pid,
    },
    /// Another process.
    Other {
        /// Its PID.
        pid: Pid,
        /// Its program's name, if the system tells it. May hold any character.
        program: Option<String>,
    },
    /// A process that the system does not let this user see.
    Unknown,
}

/// Who it is, for "port N is in use by ...".
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("a process that the system does not report"),
            Self::Unknown => f.write_str("a process of another user"),
            Self::Ours { pid } | Self::Other { pid, program: None } => write!(f, "pid {pid}"),
            Self::Other { pid, program: Some(program) } => write!(f, "{program} (pid {pid})"),
        }
    }
}

impl Listener {
    /// Returns whether a process listens that is not known to belong to the given instance.
    pub fn is_other(&self) -> bool {
        matches!(self, Self::Other { .. } | Self::Unknown)
    }
}

/// A handle to a process that this process started. Dropping it neither stops nor forgets the process: the driver
/// reaps it.
pub trait Child: Send {
    /// Returns its identity.
    fn id(&self) -> &ProcessId;

    /// Returns how it ended, as soon as it did; never blocks, and may be asked again.
    fn try_wait(&self) -> Result<Option<Ending>, ProcessError>;
}

/// The operating system, as far as the lifecycle needs it. `unix::UnixDriver` is the real one.
///
/// A driver owns the processes that it spawned and reaps each of them, whatever became of its handle.
pub trait ProcessDriver: Send + Sync {
    /// Makes this process the parent of what processes of its own leave behind, until as many calls of
    /// [`end_adopting`](Self::end_adopting) have followed; where the system can do that.
    fn begin_adopting(&self) {}

    /// See [`begin_adopting`](Self::begin_adopting).
    fn end_adopting(&self) {}

    /// Returns the living processes that were started since `child` and that this process has adopted. A program that
    /// puts itself into the background and overwrites its environment, as nginx and Redis do, is found in no other
    /// way.
    fn adopted(&self, _child: &ProcessId) -> Result<Vec<ProcessId>, ProcessError> {
        Ok(Vec::new())
    }

    /// Starts a process in its own session, isolated from the caller (see `unix`).
    fn spawn(&self, spec: &ProcessSpec) -> Result<Box<dyn Child>, ProcessError>;

    /// Returns how a process ended that this one spawned; `None` of others, and of what ended long ago.
    fn ending(&self, _child: &ProcessId) -> Option<Ending> {
        None
    }

    /// Returns the host on which this process runs.
    fn host(&self) -> Result<Host, ProcessError>;

    /// Returns the process that has this PID now; `None` if there is none, or only a zombie.
    fn identify(&self, pid: Pid) -> Result<Option<ProcessId>, ProcessError>;

    /// Returns whether the process is alive.
    fn liveness(&self, process: &ProcessId) -> Result<Liveness, ProcessError> {
        Ok(match self.host()?.place_of(&process.host) {
            Place::Here if self.identify(process.pid)?.as_ref() == Some(process) => Liveness::Alive,
            Place::Here | Place::EarlierBoot => Liveness::Dead,
            Place::Elsewhere => Liveness::Elsewhere,
        })
    }

    /// Waits until the process has ended, for at most `timeout`; returns whether it is alive then.
    fn wait_for_exit(&self, process: &ProcessId, timeout: Duration) -> Result<Liveness, ProcessError> {
        let start = Instant::now();
        loop {
            let liveness = self.liveness(process)?;
            let left = timeout.saturating_sub(start.elapsed());
            if liveness != Liveness::Alive || left.is_zero() {
                return Ok(liveness);
            }
            self.sleep_until_exit(process.pid, left);
        }
    }

    /// Sleeps until the process with this PID ends, but at most `limit`. May return early.
    fn sleep_until_exit(&self, _pid: Pid, limit: Duration) {
        thread::sleep(limit.min(EXIT_POLL_INTERVAL));
    }

    /// Returns the living processes of an instance: those with its id in their environment, in the leader's session, or
    /// descended from one of these; neither zombies nor the caller. Inspects every process of the machine, so it is
    /// for `down` and for recovery, not for `ps`.
    fn members(&self, instance: Instance<'_>) -> Result<Vec<ProcessId>, ProcessError>;

    /// Returns the instance id in the environment of the process; `None` if it has none or the system hides it.
    fn instance_id(&self, pid: Pid) -> Option<String>;

    /// Returns the leader of a session that writes to this log: its standard output or error is that file. It leads the
    /// session of `member`; without one, any but that of the caller, which inspects every process of the machine.
    fn leader_with_log(&self, _member: Option<Pid>, _log: &Path) -> Option<ProcessId> {
        None
    }

    /// Returns a living process that writes to this log: its standard output or error is that file. Inspects every
    /// process of the machine.
    fn writer(&self, _log: &Path) -> Option<ProcessId> {
        None
    }

    /// Signals the process; does nothing if it has ended.
    fn signal(&self, process: &ProcessId, signal: StopSignal) -> Result<(), ProcessError>;

    /// Signals the process group of a leader that is alive or a zombie, and returns whether it did. Once the leader is
    /// reaped, its PID may be the number of another group.
    fn signal_group(&self, leader: &ProcessId, signal: StopSignal) -> Result<bool, ProcessError>;

    /// Returns whether the process is in the group of that leader.
    fn is_in_group(&self, process: &ProcessId, leader: &ProcessId) -> bool;

    /// Returns what the process and its descendants use; `None` if it has ended. Inspects no other process.
    fn usage(&self, process: &ProcessId) -> Option<Usage>;

    /// Returns the threads and open files of the process and its descendants. Takes longer than
    /// [`usage`](Self::usage) for processes with many files. Inspects no other process.
    fn holdings(&self, _process: &ProcessId) -> Holdings {
        Holdings::default()
    }

    /// Returns the listener on the address, which may be bound to a wildcard address. Inspects `ours` first, which is
    /// cheap, and then every process of the machine. Where several listen (`localhost` is two addresses), one that is
    /// not ours is returned, because it may get the requests.
    fn listener(&self, address: &Address, ours: Option<Instance<'_>>) -> Result<Listener, ProcessError>;

    /// Returns a descendant of `first` in another session that holds the socket which gets the connections to the address.
    /// Inspects no other process.
    fn background_listener(&self, _: &Address, _first: &ProcessId) -> Option<Pid> {
        None
    }

    /// Returns all listening sockets; `None` if the system does not tell. [`listener_among`](Self::listener_among) finds
    /// the holders of those on `ports` by one search, which takes a second at most.
    fn listening(&self, _ports: &[u16]) -> Option<ListeningSockets> {
        None
    }

    /// Like [`listener`](Self::listener). Cheap where many services share one list of sockets.
    fn listener_among(
        &self,
        _: &ListeningSockets,
        address: &Address,
        ours: Option<Instance<'_>>,
    ) -> Result<Listener, ProcessError> {
        self.listener(address, ours)
    }

    /// Returns which of a leader and its descendants holds the sockets that get the connections to the address; `None` if
    /// only [`listener`](Self::listener) can tell. Cheap where many services share one list of sockets. The leader was
    /// seen alive after the list was made, so no other process that gets its PID can hold one of these sockets.
    fn own_listener(&self, _: &ListeningSockets, _: &Address, _leader: Pid) -> Option<Pid> {
        None
    }
}

/// Why the operating system did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program does not exist.
    #[error("there is no program {program}")]
    ProgramMissing {
        /// Its path.
        program: PathBuf,
    },
    /// The program exists and cannot be run (not executable, the wrong architecture).
    #[error("cannot run {program}")]
    CannotRun {
        /// Its path.
        program: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The program exists, but its interpreter or loader does not.
    #[error("cannot run {program}: its interpreter {interpreter} is missing")]
    InterpreterMissing {
        /// Its path.
        program: PathBuf,
        /// The path in its first line.
        interpreter: String,
    },
    /// The working directory does not exist.
    #[error("there is no directory {directory}")]
    DirectoryMissing {
        /// Its path.
        directory: PathBuf,
    },
    /// The log cannot be opened or is not safe to write (a symbolic link, another owner).
    #[error("cannot write the log")]
    Log(#[from] FileError),
    /// The process belongs to another user.
    #[error("cannot signal pid {pid}")]
    Signal {
        /// Its PID.
        pid: Pid,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The process is this one or an ancestor of it, and a signal to it would end this one.
    #[error("pid {pid} is the process from which this command was started")]
    Ourselves {
        /// Its PID.
        pid: Pid,
    },
    /// The host of an address cannot be resolved.
    #[error("cannot resolve the host {host}")]
    Resolve {
        /// Its name.
        host: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// The action, as a verb.
        what: &'static str,
        /// The error of the system.
        source: std::io::Error,
    },
}
