//! Why a service could not be started, stopped or observed.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::lock::ServiceLockError;
use super::record::{Elsewhere, Record, RecordError};
use super::service::{ManagedService, StartedBy};
use super::state::State;
use crate::core::address::Address;
use crate::core::cancel::Cancelled;
use crate::core::files::FileError;
use crate::core::models::catalogue::ModelError;
use crate::core::process::{Ending, Listener, Pid, ProcessError};
use crate::core::programs::ProgramError;

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Lock(#[from] ServiceLockError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Log(#[from] FileError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("port {} is in use by {listener}", address.port)]
    PortInUse {
        service: Arc<str>,
        address: Address,
        /// The table of the configuration that holds its port.
        table: Box<str>,
        /// A port on which it could listen, if one is known.
        spare: Option<u16>,
        listener: Listener,
        /// The response of that process, in words.
        message: Box<str>,
    },
    /// Another service of fusion runs at the address.
    #[error("{other} (pid {pid}) runs at {address}")]
    AddressTaken {
        service: Arc<str>,
        address: Address,
        table: Box<str>,
        /// A port on which it could listen, if one is known.
        spare: Option<u16>,
        other: Arc<str>,
        pid: Pid,
    },
    /// The configuration has no table of the service any longer.
    #[error("{service} is not in the configuration any longer")]
    NotConfigured { service: Arc<str> },
    /// A server that is no model server does not answer as it should.
    #[error("{service} at {address} is not healthy: {why}")]
    NotHealthy {
        service: Arc<str>,
        address: Address,
        /// What the probe found, in words.
        why: String,
        /// Whether the server sent no response in time.
        timed_out: bool,
        started_by: StartedBy,
    },
    /// Listening on the address failed, although no process uses it.
    #[error("cannot listen on {address}")]
    CannotListen { service: Arc<str>, address: Address, table: Box<str>, source: std::io::Error },
    /// The configuration says no port, and none that may be chosen is free.
    #[error("{}", no_port(range.as_ref()))]
    NoPort {
        service: Arc<str>,
        /// The ports that its template offers; `None` if it offers none.
        range: Option<RangeInclusive<u16>>,
    },
    /// A placeholder of the configuration stands for something that is not known.
    #[error("{placeholder} in {text:?} has no value for {service}")]
    PlaceholderUnknown { service: Arc<str>, placeholder: &'static str, text: String },
    /// The working directory of an instance is no directory.
    #[error(
        "the working directory of {service}, {path}, {}",
        if *exists { "is not a directory" } else { "does not exist" }
    )]
    NoWorkingDir { service: Arc<str>, path: PathBuf, exists: bool },
    /// The model's files are not on this machine, or the server does not know the model.
    #[error("the model {model} is not on this machine")]
    ModelMissing {
        service: Arc<str>,
        model: String,
        /// The command that downloads it.
        pull: String,
        /// The message of the server, if a request was sent.
        message: Option<String>,
    },
    /// The model for the start is missing or incomplete.
    #[error("{error}")]
    Model { service: Arc<str>, model: String, error: Box<ModelError> },
    /// The service was started, did not become ready, and was stopped.
    #[error("{0}")]
    Failed(Box<StartFailure>),
    /// The service is running and does not respond.
    #[error("{service} (pid {pid}) is running at {address} and does not respond: {why}")]
    Unhealthy {
        service: Arc<str>,
        pid: Pid,
        address: Address,
        /// What the last probe found, in words.
        why: String,
    },
    /// The server is running and did not generate.
    #[error("{service} did not generate with {model}: {why}")]
    CannotGenerate {
        service: Arc<str>,
        model: String,
        /// The message of the server.
        why: String,
        /// Whether the server sent no response in time.
        timed_out: bool,
        started_by: StartedBy,
    },
    /// Another command stopped the service during its start, or started it and gave up.
    #[error("{service} was stopped by another command while it started")]
    StoppedMeanwhile { service: Arc<str> },
    #[error("{service} at {address} is a process that fusion did not start")]
    External { service: Arc<str>, address: Address, listener: Listener },
    /// The service was started on another host or in another container, which shares the directory of the record.
    #[error("{service} was started {elsewhere}, which is another machine or container")]
    Elsewhere { service: Arc<str>, elsewhere: Elsewhere, record: PathBuf },
    /// The service is not running, and the command does not start it.
    #[error("{service} is {}", if *state == State::Starting { "still starting" } else { "not running" })]
    NotRunning { service: Arc<str>, state: State },
    /// Processes are alive after SIGKILL.
    #[error("{service} was killed and {} of its processes are still alive: {}", pids.len(), list(pids))]
    StillAlive { service: Arc<str>, pids: Vec<Pid> },
    /// The work was cancelled, and what it had started was stopped.
    #[error("interrupted")]
    Cancelled(Cancelled),
}

impl ServiceError {
    /// Returns the error for a model that `service` does not have; `message` is the message of the server, if there is
    /// one.
    pub fn missing_model(service: &ManagedService, model: &str, message: Option<String>) -> Self {
        let pull = service.pull_command(model);
        Self::ModelMissing { service: service.name.clone(), model: model.to_owned(), pull, message }
    }

    /// Returns the error for a service that was started elsewhere.
    pub fn elsewhere(service: &ManagedService, record: &Record) -> Self {
        let (service, file) = (service.name.clone(), service.files.state.clone());
        Self::Elsewhere { service, elsewhere: record.elsewhere(), record: file }
    }
}

impl From<Cancelled> for ServiceError {
    fn from(reason: Cancelled) -> Self {
        Self::Cancelled(reason)
    }
}

/// A failed start. Only its log remains.
#[derive(Debug)]
pub struct StartFailure {
    pub service: Arc<str>,
    pub pid: Pid,
    pub kind: StartFailureKind,
    /// The cause, as the log shows it.
    pub cause: Option<String>,
    /// The last lines of the log.
    pub tail: String,
    pub log: PathBuf,
    /// The directory of the log, if nothing more can be written there.
    pub full_disk: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartFailureKind {
    Died {
        /// The ending, if the process was a child of this one.
        ending: Option<Ending>,
        /// Its life time, if this process started it.
        after: Option<Duration>,
    },
    TimedOut {
        timeout: Duration,
        /// What the last probe found, in words.
        last: String,
    },
    /// It responds, and its message says that it can never generate.
    Broken { message: String },
}

impl StartFailureKind {
    /// Returns whether the process met an instruction that this processor does not have.
    pub fn is_illegal_instruction(&self) -> bool {
        let illegal = Ending::Signal(nix::sys::signal::Signal::SIGILL as i32);
        matches!(self, Self::Died { ending: Some(ending), .. } if *ending == illegal)
    }
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
            StartFailureKind::Broken { message } => {
                write!(formatter, "{service} (pid {pid}) started and cannot generate: {message}")
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

fn no_port(range: Option<&RangeInclusive<u16>>) -> String {
    match range {
        Some(range) if range.start() == range.end() => {
            format!("port {} is configured for another service, and the template has no other", range.start())
        }
        Some(range) => format!("every port from {} to {} is in use", range.start(), range.end()),
        None => "the template has neither `default_port` nor `port_range`".to_owned(),
    }
}

fn list(pids: &[Pid]) -> String {
    pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
