//! Why a program was not installed or not removed.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

use crate::core::files::FileError;
use crate::core::process::{Pid, ProcessError};
use crate::core::programs::InstallationError;
use crate::core::services::lock::LockError;
use crate::core::services::record::RecordError;

/// Why something was not installed or not removed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Nobody told fusion how.
    #[error("fusion does not know how to install {program}")]
    NoMethod {
        /// The program.
        program: String,
    },
    /// Its makers' way is for the user to decide.
    #[error("{service} is not installed, and there is no brew on PATH to install it with")]
    ByHand {
        /// The service.
        service: Arc<str>,
        /// The command or page of its makers.
        elsewhere: &'static str,
    },
    /// Homebrew has installed it, in a place that is not looked at.
    #[error("brew has installed {program}, and it is not on PATH")]
    NotOnPath {
        /// The program.
        program: &'static str,
    },
    /// No Python at all.
    #[error("neither uv nor Python {}.{} or newer is on PATH", oldest.0, oldest.1)]
    NoPython {
        /// The oldest that will do.
        oldest: (u32, u32),
    },
    /// A Python that the package does not run on.
    #[error("{path} is Python {}.{}, and {}.{} or newer is needed", found.0, found.1, oldest.0, oldest.1)]
    PythonTooOld {
        /// The one that was found.
        path: PathBuf,
        /// Its version.
        found: (u32, u32),
        /// The oldest that will do.
        oldest: (u32, u32),
    },
    /// A Python without the modules that make environments.
    #[error("{path} has no venv module")]
    NoVenv {
        /// The one that was found.
        path: PathBuf,
    },
    /// The disk is too full to begin.
    #[error("{directory} has {} MB free, and {} MB are needed", available / 1_000_000, needed / 1_000_000)]
    NoSpace {
        /// Where it was to go.
        directory: PathBuf,
        /// Bytes that this user may still write there.
        available: u64,
        /// Bytes.
        needed: u64,
    },
    /// The disk cannot be looked at.
    #[error("cannot tell how much space {directory} has")]
    Disk {
        /// Where it was to go.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// Its path.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program that installs failed.
    #[error("`{command}` failed with {status}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed, unless that was shown.
        said: String,
    },
    /// What was installed does not work.
    #[error("{program} was installed and does not start: {reason}")]
    DoesNotStart {
        /// Its path.
        program: PathBuf,
        /// What happened.
        reason: String,
        /// The end of what it printed.
        said: String,
    },
    /// A signal asked fusion to end.
    #[error("interrupted")]
    Cancelled,
    /// What is to be replaced or removed runs.
    #[error("{service} is running from this installation (pid {pid})")]
    InUse {
        /// The service.
        service: Arc<str>,
        /// Its process.
        pid: Pid,
    },
    /// What was installed is not where it was put.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// A directory cannot be removed.
    #[error("cannot remove {path}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manifest cannot be written as JSON.
    #[error("cannot encode the manifest")]
    Encode(#[source] serde_json::Error),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody else is changing the runtime.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What was started cannot be told.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What runs cannot be told.
    #[error(transparent)]
    Process(#[from] ProcessError),
}
