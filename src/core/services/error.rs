//! Why a service could not be started, stopped or observed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::lock::LockError;
use super::record::RecordError;
use super::service::{ManagedService, StartedBy};
use super::state::State;
use crate::core::address::Address;
use crate::core::cancel::Cancelled;
use crate::core::files::FileError;
use crate::core::models::catalogue::ModelError;
use crate::core::process::{Ending, Listener, Pid, ProcessError};
use crate::core::programs::ProgramError;

/// Why a service could not be started, stopped or observed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The operating system refused.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] FileError),
    /// There is no program to start.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Another process listens on the port.
    #[error("port {} is in use", address.port)]
    PortInUse {
        service: Arc<str>,
        address: Address,
        listener: Listener,
        /// What it responded, in words.
        said: String,
    },
    /// The address cannot be listened on, although no process has it.
    #[error("cannot listen on {address}")]
    CannotListen { service: Arc<str>, address: Address, source: std::io::Error },
    /// The model's files are not on this machine, or the server does not know it.
    #[error("the model {model} is not on this machine")]
    ModelMissing {
        service: Arc<str>,
        model: String,
        /// The command that downloads it.
        pull: String,
        /// What the server said, if it was asked.
        said: Option<String>,
    },
    /// The model it would be started with is not here, or not whole.
    #[error("{error}")]
    Model { service: Arc<str>, model: String, error: Box<ModelError> },
    /// It was started, did not become ready, and was stopped again.
    #[error("{0}")]
    Failed(Box<StartFailure>),
    /// It runs already, and does not answer.
    #[error("{service} (pid {pid}) runs at {address} and does not answer: {why}")]
    Unhealthy {
        service: Arc<str>,
        pid: Pid,
        address: Address,
        /// What the last probe found, in words.
        why: String,
    },
    /// It runs, and did not generate.
    #[error("{service} did not generate with {model}: {why}")]
    CannotGenerate {
        service: Arc<str>,
        model: String,
        /// What it said, in words.
        why: String,
        /// It said nothing in time.
        timed_out: bool,
        started_by: StartedBy,
    },
    /// Another command stopped it during the start, or had started it and gave up.
    #[error("{service} was stopped by another command while it started")]
    StoppedMeanwhile { service: Arc<str> },
    /// fusion did not start what runs.
    #[error("{service} at {address} is a process that fusion did not start")]
    External { service: Arc<str>, address: Address, listener: Listener },
    /// It does not run, and was not to be started.
    #[error("{service} is {}", if *state == State::Starting { "still starting" } else { "not running" })]
    NotRunning { service: Arc<str>, state: State },
    /// Processes live on after SIGKILL.
    #[error("{service} was killed and {} of its processes are still alive: {}", pids.len(), list(pids))]
    StillAlive { service: Arc<str>, pids: Vec<Pid> },
    /// The work was cancelled, and what it had started is stopped.
    #[error("interrupted")]
    Cancelled(Cancelled),
}

impl ServiceError {
    /// Returns the error that `service` does not have `model`; `said` is what the server said, if it was asked.
    pub fn missing_model(service: &ManagedService, model: &str, said: Option<String>) -> Self {
        let pull = service.runtime().map_or_else(String::new, |runtime| runtime.pull_command(model));
        Self::ModelMissing { service: service.name.clone(), model: model.to_owned(), pull, said }
    }
}

impl From<Cancelled> for ServiceError {
    fn from(reason: Cancelled) -> Self {
        Self::Cancelled(reason)
    }
}

/// A start that failed. Its log is all that is left of it.
#[derive(Debug)]
pub struct StartFailure {
    pub service: Arc<str>,
    pub pid: Pid,
    pub kind: StartFailureKind,
    /// Why, as its log tells.
    pub cause: Option<String>,
    /// The end of its log.
    pub tail: String,
    /// Where the log is.
    pub log: PathBuf,
}

/// How a start failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartFailureKind {
    /// The process ended.
    Died {
        /// How, if it was a child of this process.
        ending: Option<Ending>,
        /// How long it lived, if this process started it.
        after: Option<Duration>,
    },
    /// It was not ready in time.
    TimedOut {
        timeout: Duration,
        /// What the last probe found, in words.
        last: String,
    },
    /// It responds, and said that it will never be able to generate.
    Broken { said: String },
}

impl std::fmt::Display for StartFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, pid, .. } = self;
        match &self.kind {
            StartFailureKind::Died { ending, after } => {
                write!(formatter, "{service} (pid {pid}) {}", ended(*ending))?;
                after.map_or(Ok(()), |after| {
                    write!(formatter, " {:.1} s after its start", after.as_secs_f64())
                })
            }
            StartFailureKind::TimedOut { timeout, last } => {
                let seconds = timeout.as_secs_f64();
                write!(formatter, "{service} (pid {pid}) was not ready within {seconds} s: {last}")
            }
            StartFailureKind::Broken { said } => {
                write!(formatter, "{service} (pid {pid}) started and cannot generate: {said}")
            }
        }
    }
}

fn ended(ending: Option<Ending>) -> String {
    match ending {
        Some(Ending::Code(code)) => format!("exited with status {code}"),
        Some(Ending::Signal(signal)) => {
            let name =
                nix::sys::signal::Signal::try_from(signal).map_or("", nix::sys::signal::Signal::as_str);
            format!("was killed by signal {signal}{}{name}", if name.is_empty() { "" } else { ", " })
        }
        None => "ended".to_owned(),
    }
}

fn list(pids: &[Pid]) -> String {
    pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
