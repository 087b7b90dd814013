//! The trait [`ProcessDriver`] and its types: everything that the lifecycle needs of the operating system.

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::host::{Host, Place};
use super::id::ProcessId;
use crate::core::address::Address;
use crate::core::files::FileError;
use crate::core::pid::Pid;

/// The environment variable of every started process that holds its instance id, by which a process is found
/// again when fusion died between the spawn and the record.
pub const INSTANCE_VARIABLE: &str = "FUSION_INSTANCE";

/// How often the end of a process is looked for where the system cannot report it.
pub(super) const EXIT_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What is started, and how.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// The program's path; it is not looked up on `PATH` again.
    pub program: PathBuf,
    /// Passed byte for byte, never through a shell.
    pub args: Vec<OsString>,
    /// Variables of the caller's environment that it does not inherit.
    pub without: Vec<OsString>,
    /// Set on top of the caller's environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory: one that will stay.
    pub directory: PathBuf,
    /// Standard output and error are appended here; `None` discards them.
    pub log: Option<PathBuf>,
    /// The value of [`INSTANCE_VARIABLE`].
    pub instance: String,
}

/// A signal that ends processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM, then SIGCONT so that a stopped process receives it.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGKILL.
    Kill,
}

/// What the kernel says of a [`ProcessId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// That very process runs.
    Alive,
    /// It ended: no process has the PID, or a zombie, or another process.
    Dead,
    /// It runs, or ran, on another host or in another container: nothing can be told from here.
    Elsewhere,
}

/// How a child of this process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this status.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

/// What a process and its descendants use.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// How long the leader has run.
    pub uptime: Duration,
    /// Resident memory of the whole tree, in bytes.
    pub memory_bytes: u64,
    /// CPU of the whole tree since its start, averaged, in percent of one core.
    pub cpu_percent: f64,
}

/// Something that fusion started, as its record knows it.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// The value of [`INSTANCE_VARIABLE`] in its environment.
    pub id: &'a str,
    /// The process that was started; `None` when fusion died before it could be recorded.
    pub leader: Option<&'a ProcessId>,
}

/// Who listens at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// Nobody.
    Nobody,
    /// The instance that was asked about: its leader, or a process that belongs to it.
    Ours {
        /// Its PID.
        pid: Pid,
    },
    /// Another process; `program` is its name where the system tells.
    Other {
        /// Its PID.
        pid: Pid,
        /// Its program's name; it may hold any character.
        program: Option<String>,
    },
    /// Somebody whom the system does not let us see (another user).
    Hidden,
}

impl Listener {
    /// Whether it is somebody else than the instance that was asked about.
    pub fn is_other(&self) -> bool {
        matches!(self, Self::Other { .. } | Self::Hidden)
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
    /// Starts a process in its own session, isolated from the caller (see `unix`).
    fn spawn(&self, spec: &ProcessSpec) -> Result<Box<dyn Child>, ProcessError>;

    /// Returns where this process runs.
    fn host(&self) -> Result<Host, ProcessError>;

    /// Who has this PID now; `None` when nobody or a zombie.
    fn identify(&self, pid: Pid) -> Result<Option<ProcessId>, ProcessError>;

    /// Whether that very process lives.
    fn liveness(&self, process: &ProcessId) -> Result<Liveness, ProcessError> {
        Ok(match self.host()?.place_of(&process.host) {
            Place::Here if self.identify(process.pid)?.as_ref() == Some(process) => Liveness::Alive,
            Place::Here | Place::EarlierBoot => Liveness::Dead,
            Place::Elsewhere => Liveness::Elsewhere,
        })
    }

    /// Waits until that very process has ended, but at most `timeout`; returns whether it lives then.
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

    /// Every living process of an instance: those with its id in their environment, in the leader's session, or
    /// descended from one of these. Zombies are not among them, nor is the caller. Looks at every process of the
    /// machine, so it is for `down` and for healing, not for `ps`.
    fn members(&self, instance: Instance<'_>) -> Result<Vec<ProcessId>, ProcessError>;

    /// Signals one process, if it is still that very process; a process that is gone is no error.
    fn signal(&self, process: &ProcessId, signal: StopSignal) -> Result<(), ProcessError>;

    /// Signals the process group of a leader, if the leader is still that very process or its unreaped zombie;
    /// otherwise the number may be another group's, and nothing is done. Whether the group was signalled.
    fn signal_group(&self, leader: &ProcessId, signal: StopSignal) -> Result<bool, ProcessError>;

    /// Whether the process is in the group of that leader.
    fn is_in_group(&self, process: &ProcessId, leader: &ProcessId) -> bool;

    /// What the process and its descendants use; looks at no other process. `None` when it is gone.
    fn usage(&self, process: &ProcessId) -> Option<Usage>;

    /// Who answers at the address (also through a wildcard address). Looks at `ours` first, which is cheap, and
    /// then at every process of the machine. When several do (`localhost` is two addresses), one that is not ours
    /// is reported, for it may get the requests.
    fn listener(&self, address: &Address, ours: Option<Instance<'_>>) -> Result<Listener, ProcessError>;
}

/// What went wrong with a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such program.
    #[error("there is no program {program}")]
    ProgramMissing {
        /// Its path.
        program: PathBuf,
    },
    /// The program is there and cannot be run (not executable, the wrong architecture).
    #[error("cannot run {program}")]
    CannotRun {
        /// Its path.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program is there, but the interpreter (or loader) that it names is not.
    #[error("cannot run {program}: its interpreter {interpreter} is missing")]
    InterpreterMissing {
        /// Its path.
        program: PathBuf,
        /// What its first line names.
        interpreter: String,
    },
    /// The directory in which it was to run is not there.
    #[error("there is no directory {directory}")]
    DirectoryMissing {
        /// Its path.
        directory: PathBuf,
    },
    /// The log cannot be opened or is not safe to write (a symbolic link, another owner).
    #[error("cannot write the log")]
    Log(#[from] FileError),
    /// A process may not be signalled: it belongs to another user.
    #[error("cannot signal process {pid}")]
    Signal {
        /// Its PID.
        pid: Pid,
        /// What the system said.
        source: std::io::Error,
    },
    /// Signalling that process would end this one: it is this one, or one that this one was started from.
    #[error("process {pid} is the one from which this command was started")]
    Ourselves {
        /// Its PID.
        pid: Pid,
    },
    /// The host of an address cannot be resolved.
    #[error("cannot resolve the host {host}")]
    Resolve {
        /// Its name.
        host: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system would not tell.
    #[error("cannot {what}")]
    System {
        /// What was tried, as a verb.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
