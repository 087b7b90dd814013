//! Why a service could not be started, stopped or looked at.

use std::path::PathBuf;
use std::time::Duration;

use super::lock::LockError;
use super::record::RecordError;
use super::{StartedBy, State};
use crate::core::address::Address;
use crate::core::files::FileError;
use crate::core::models::catalogue::ModelError;
use crate::core::process::{Ending, Listener, Pid, ProcessError};
use crate::core::programs::ProgramError;

/// Why a service could not be started, stopped or looked at.
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
    /// Somebody else has the address.
    #[error("{address} is taken")]
    AddressTaken {
        /// The runtime that wanted it.
        runtime: &'static str,
        /// The address.
        address: Address,
        /// Who has it.
        listener: Listener,
        /// What they answered, in words.
        said: String,
    },
    /// The address cannot be listened at, although nobody has it.
    #[error("nobody can listen at {address}")]
    AddressUnusable {
        /// The runtime that wanted it.
        runtime: &'static str,
        /// The address.
        address: Address,
        /// What the system said.
        source: std::io::Error,
    },
    /// The model's files are not on this machine, or the server does not know it.
    #[error("the model {model} is not there")]
    ModelMissing {
        /// The runtime.
        runtime: &'static str,
        /// The model.
        model: String,
        /// The command that fetches it.
        fetch: String,
        /// What the server said, if it was asked.
        said: Option<String>,
    },
    /// The model it would be started with is not here, or not whole.
    #[error("{error}")]
    Model {
        /// The runtime.
        runtime: &'static str,
        /// The model.
        model: String,
        /// What is wrong with it.
        error: Box<ModelError>,
    },
    /// It was started, did not become ready, and was ended again.
    #[error("{0}")]
    Failed(Box<Failed>),
    /// It runs already, and does not answer.
    #[error("{runtime} (process {pid}) runs at {address} and does not answer: {why}")]
    Unhealthy {
        /// The runtime.
        runtime: &'static str,
        /// Its leader.
        pid: Pid,
        /// Where it should answer.
        address: Address,
        /// What the last look found, in words.
        why: String,
    },
    /// It runs, and did not generate.
    #[error("{runtime} did not generate with {model}: {why}")]
    CannotGenerate {
        /// The runtime.
        runtime: &'static str,
        /// The model.
        model: String,
        /// What it said, in words.
        why: String,
        /// It said nothing in time.
        timed_out: bool,
        /// Who has what it prints.
        started_by: StartedBy,
    },
    /// Another command stopped it meanwhile, or had started it and gave it up.
    #[error("{runtime} was stopped, or given up, by another command while it started")]
    StoppedMeanwhile {
        /// The runtime.
        runtime: &'static str,
    },
    /// It runs, but not by fusion's doing.
    #[error("{runtime} at {address} was not started by fusion")]
    NotOurs {
        /// The runtime.
        runtime: &'static str,
        /// Where it answers.
        address: Address,
        /// Who it is.
        listener: Listener,
    },
    /// It does not run, and was not to be started.
    #[error("{runtime} is {}", if *state == State::Starting { "still starting" } else { "not running" })]
    NotRunning {
        /// The runtime.
        runtime: &'static str,
        /// What it is doing instead.
        state: State,
    },
    /// Not even killing ended it.
    #[error("{runtime} was killed and {} of its processes still live: {}", pids.len(), list(pids))]
    Undead {
        /// The runtime.
        runtime: &'static str,
        /// Who still lives.
        pids: Vec<Pid>,
    },
    /// The command was interrupted, and has ended what it had started.
    #[error("interrupted")]
    Interrupted {
        /// The number of the signal.
        signal: i32,
    },
}

/// A start that failed. Nothing of it is left but its log.
#[derive(Debug)]
pub struct Failed {
    /// The runtime.
    pub runtime: &'static str,
    /// The process.
    pub pid: Pid,
    /// How it failed.
    pub why: Why,
    /// Why, as its log tells.
    pub cause: Option<String>,
    /// The end of its log.
    pub tail: String,
    /// Where the log is.
    pub log: PathBuf,
}

/// How a start failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The process ended.
    Died {
        /// How, if it was a child of this command.
        ending: Option<Ending>,
        /// How long it lived, if this command started it.
        after: Option<Duration>,
    },
    /// It was not ready in time.
    TimedOut {
        /// How long it had.
        limit: Duration,
        /// What the last look found, in words.
        last: String,
    },
    /// It answers, and said that it will never be able to generate.
    Broken {
        /// What it said.
        said: String,
    },
}

impl std::fmt::Display for Failed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runtime, pid, .. } = self;
        match &self.why {
            Why::Died { ending, after } => {
                write!(formatter, "{runtime} (process {pid}) {}", ended(*ending))?;
                after.map_or(Ok(()), |after| {
                    write!(formatter, " {:.1} s after its start", after.as_secs_f64())
                })
            }
            Why::TimedOut { limit, last } => {
                let seconds = limit.as_secs_f64();
                write!(formatter, "{runtime} (process {pid}) was not ready within {seconds} s: {last}")
            }
            Why::Broken { said } => {
                write!(formatter, "{runtime} (process {pid}) started and cannot generate: {said}")
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
            format!("was ended by signal {signal}{}{name}", if name.is_empty() { "" } else { ", " })
        }
        None => "ended".to_owned(),
    }
}

fn list(pids: &[Pid]) -> String {
    pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
