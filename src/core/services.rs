//! A runtime as a managed service: its states, the one verdict over them, and the commands that change it.
//!
//! Every command reads what was recorded, looks at the kernel and at the address, and lets [`classify`] decide what
//! that means. `up`, `down` and `restart` do so under the runtime's lock; `ps` takes no lock and writes nothing.

mod down;
mod endpoint;
mod error;
#[cfg(all(test, feature = "test-fakes"))]
mod faults;
mod health;
mod launch;
pub mod lock;
mod observe;
pub mod ready;
pub mod record;
mod status;
mod up;
mod wait;

use std::time::Duration;

use serde::Serialize;

pub use self::down::{Down, DownOptions};
pub use self::endpoint::Endpoint;
pub use self::error::{Failed, ServiceError, Why};
pub use self::health::Health;
use self::lock::{Lock, LockError};
pub use self::status::{Exited, Status};
pub use self::up::{Up, UpKind, UpOptions};
use crate::core::config::{Config, ServiceSettings};
use crate::core::events::EventSink;
use crate::core::paths::{Paths, RuntimePaths};
use crate::core::process::ProcessDriver;
use crate::core::runtimes::Runtime;
use crate::env::Environment;

/// What a runtime is doing. The only place where this is decided is [`classify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not running.
    Stopped,
    /// Started and not ready yet.
    Starting,
    /// Started by fusion and answering.
    Ready,
    /// Alive and not answering.
    Unhealthy,
    /// Answering, and not started by fusion.
    External,
    /// It was started by fusion and is gone.
    Exited,
}

impl State {
    /// As in `ps`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::External => "external",
            Self::Exited => "exited",
        }
    }
}

/// Who started what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StartedBy {
    /// fusion, in this configuration directory.
    Fusion,
    /// Somebody else.
    Other,
}

/// What was seen of a runtime, as far as the verdict depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// What became of the recorded process.
    pub process: Recorded,
    /// How far its start has come, if it lives.
    pub start: Start,
    /// What answers at the address.
    pub answer: Answered,
    /// Who listens at the address.
    pub listener: Owner,
}

/// What became of the process that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// There is no record.
    Nothing,
    /// The process, or another of its instance, lives.
    Alive,
    /// None of its instance lives.
    Gone,
}

/// How far a start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It was ready once.
    Finished,
    /// Not ready yet, and within its time.
    Underway,
    /// Not ready yet, and past its time.
    Overdue,
}

/// What answers at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// This kind of runtime, able to answer requests.
    Ready,
    /// This kind of runtime, unable to answer requests.
    NotReady,
    /// Something else.
    SomethingElse,
    /// Nothing, or nothing in time.
    Nothing,
}

/// Who listens at an address, as far as the system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The recorded instance.
    Ours,
    /// Somebody else.
    Other,
    /// Nobody, or it cannot be told.
    Unknown,
}

/// The verdict: what a runtime is doing, given what was seen. Nothing else decides that.
pub fn classify(seen: Observation) -> State {
    match (seen.process, seen.answer) {
        (Recorded::Alive, Answered::Ready) if seen.listener != Owner::Other => State::Ready,
        (Recorded::Alive, _) if seen.listener != Owner::Other && seen.start == Start::Underway => {
            State::Starting
        }
        (Recorded::Alive, _) | (_, Answered::NotReady) => State::Unhealthy,
        (Recorded::Nothing | Recorded::Gone, Answered::Ready) => State::External,
        (Recorded::Nothing, Answered::SomethingElse | Answered::Nothing) => State::Stopped,
        (Recorded::Gone, Answered::SomethingElse | Answered::Nothing) => State::Exited,
    }
}

/// One runtime, what the configuration says of it, and its files.
#[derive(Clone)]
pub struct ManagedService<'a> {
    /// Which runtime.
    pub runtime: &'static dyn Runtime,
    /// What the configuration says of it.
    pub config: &'a ServiceSettings,
    /// Where its files lie.
    pub files: RuntimePaths,
}

/// Starts, stops and watches services.
#[derive(Clone, Copy)]
pub struct ServiceManager<'a> {
    /// The operating system.
    pub driver: &'a dyn ProcessDriver,
    /// Who is told of what happens.
    pub events: &'a dyn EventSink,
    /// The number of the signal by which this command is to end, once there was one. A command that is interrupted
    /// ends what it started, and reports [`ServiceError::Interrupted`].
    pub interrupted: &'a (dyn Fn() -> Option<i32> + Sync),
    /// The whole configuration.
    pub config: &'a Config,
    /// Where everything lies.
    pub paths: &'a Paths,
    /// `PATH`, and where models may lie.
    pub environment: &'a Environment,
}

impl<'a> ServiceManager<'a> {
    /// The service that this runtime is.
    pub fn service(&self, runtime: &'static dyn Runtime) -> ManagedService<'a> {
        ManagedService {
            runtime,
            config: self.config.runtime(runtime),
            files: self.paths.runtime(runtime.name()),
        }
    }

    /// The right to change a service. An installation keeps it for minutes; for anybody else nothing takes long but
    /// ending the service.
    fn lock(&self, service: &ManagedService<'_>) -> Result<Lock, ServiceError> {
        self.lock_within(service, service.config.server.stop_timeout)
    }

    /// The same, where ending the service may take `lawful`.
    fn lock_within(&self, service: &ManagedService<'_>, lawful: Duration) -> Result<Lock, ServiceError> {
        let interrupted = || (self.interrupted)().is_some();
        let name = service.runtime.name();
        let limit = lawful.saturating_add(LOCK_PATIENCE);
        match Lock::acquire(name, &service.files, limit, &interrupted, self.events) {
            Err(LockError::Interrupted) => {
                Err(ServiceError::Interrupted { signal: (self.interrupted)().unwrap_or_default() })
            }
            other => Ok(other?),
        }
    }

    /// An error once this command is to end.
    fn heed(&self) -> Result<(), ServiceError> {
        (self.interrupted)().map_or(Ok(()), |signal| Err(ServiceError::Interrupted { signal }))
    }

    /// The same, for what must be done because of an interruption.
    fn undisturbed(&self) -> Self {
        Self { interrupted: &|| None, ..*self }
    }
}

/// How long a command waits for the lock beyond what ending the service may lawfully take.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination of observations, with what the states mean put as conditions of their own.
    #[test]
    fn every_combination_of_observations_has_its_verdict() {
        use State::{Exited, External, Ready, Starting, Stopped, Unhealthy};
        let mut seen = 0;
        for process in [Recorded::Nothing, Recorded::Alive, Recorded::Gone] {
            for start in [Start::Finished, Start::Underway, Start::Overdue] {
                for answer in
                    [Answered::Ready, Answered::NotReady, Answered::SomethingElse, Answered::Nothing]
                {
                    for listener in [Owner::Ours, Owner::Other, Owner::Unknown] {
                        let observation = Observation { process, start, answer, listener };
                        let state = classify(observation);
                        let alive = process == Recorded::Alive;
                        let underway = start == Start::Underway;
                        let intruder = listener == Owner::Other;
                        let answers = answer == Answered::Ready;
                        let kind_answers = answers || answer == Answered::NotReady;
                        let expected = [
                            (Ready, alive && answers && !intruder),
                            (Starting, alive && !answers && !intruder && underway),
                            (
                                Unhealthy,
                                (alive && (intruder || (!answers && !underway)))
                                    || (!alive && kind_answers && !answers),
                            ),
                            (External, !alive && answers),
                            (Stopped, process == Recorded::Nothing && !kind_answers),
                            (Exited, process == Recorded::Gone && !kind_answers),
                        ];
                        for (candidate, holds) in expected {
                            assert_eq!(state == candidate, holds, "{observation:?} is {state:?}");
                        }
                        seen += 1;
                    }
                }
            }
        }
        assert_eq!(seen, 3 * 3 * 4 * 3);
    }
}
