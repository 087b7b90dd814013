//! Why a program was not installed or not removed.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

use crate::core::files::FileError;
use crate::core::process::{Pid, ProcessError};
use crate::core::programs::InstallationError;
use crate::core::services::lock::ServiceLockError;
use crate::core::services::record::{Elsewhere, RecordError};

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// fusion has no method for this program.
    #[error("fusion does not know how to install {program}")]
    NoMethod { program: String },
    /// Installing needs the user: the makers' own way changes the system.
    #[error("{service} is not installed, and there is no brew on PATH to install it with")]
    ByHand {
        service: Arc<str>,
        /// The command or page of its makers.
        manual: &'static str,
    },
    /// Another way than Homebrew has installed the program.
    #[error("Homebrew did not install {program}")]
    NotOfHomebrew { program: PathBuf },
    /// The package is not made for this Mac.
    #[error("{package} needs {needed}, and this is {found}")]
    Machine { package: &'static str, needed: String, found: String },
    /// Homebrew has installed the program, but not on `PATH`.
    #[error("brew has installed {program}, and it is not on PATH")]
    NotOnPath { program: &'static str },
    /// There is no suitable Python.
    #[error("neither uv nor Python {}.{} or newer is on PATH", oldest.0, oldest.1)]
    NoPython {
        /// The oldest supported version.
        oldest: (u32, u32),
    },
    /// The Python is too old for the package.
    #[error("{path} is Python {}.{}, and {}.{} or newer is needed", found.0, found.1, oldest.0, oldest.1)]
    PythonTooOld {
        /// Its path.
        path: PathBuf,
        found: (u32, u32),
        /// The oldest supported version.
        oldest: (u32, u32),
    },
    /// The Python lacks the modules that make environments.
    #[error("{path} has no venv module")]
    NoVenv {
        /// Its path.
        path: PathBuf,
    },
    /// The disk has too little free space.
    #[error("{directory} has {} MB free, and {} MB are needed", available / 1_000_000, needed / 1_000_000)]
    NoSpace {
        directory: PathBuf,
        /// Bytes that this user may still write there.
        available: u64,
        /// Bytes that the installation needs.
        needed: u64,
    },
    /// The free space of the disk is unknown.
    #[error("cannot tell how much space {directory} has")]
    Disk { directory: PathBuf, source: std::io::Error },
    #[error("cannot run {program}")]
    Run { program: PathBuf, source: std::io::Error },
    /// An installing program failed.
    #[error("`{command}` failed with {status}")]
    Failed {
        command: String,
        status: ExitStatus,
        /// The end of its output, unless that was shown.
        output: String,
    },
    /// The installed program does not start.
    #[error("{program} was installed and does not start: {reason}")]
    DoesNotStart {
        program: PathBuf,
        reason: String,
        /// The end of its output.
        output: String,
    },
    /// The installation was cancelled.
    #[error("interrupted")]
    Cancelled,
    /// A server runs from the installation that would be replaced or removed.
    #[error("{service} is running from this installation (pid {pid})")]
    InUse { service: Arc<str>, pid: Pid },
    /// A server on another host may run from the installation that would be replaced or removed.
    #[error(
        "{service} was started from this installation {elsewhere}, which is another machine or container"
    )]
    InUseElsewhere { service: Arc<str>, elsewhere: Elsewhere },
    /// The new installation is unusable.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: std::io::Error },
    #[error("cannot encode the manifest")]
    Encode(#[source] serde_json::Error),
    #[error(transparent)]
    File(#[from] FileError),
    /// Another command is changing the service.
    #[error(transparent)]
    Lock(#[from] ServiceLockError),
    /// The record of the service is unreadable.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The processes of the service are unknown.
    #[error(transparent)]
    Process(#[from] ProcessError),
}
