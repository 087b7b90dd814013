//! The states of a service, and the one verdict over what was observed.

use serde::Serialize;

/// What a service is doing. [`classify`] alone decides it.
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
    /// Started by fusion, and gone.
    Exited,
}

impl State {
    /// Returns the word for it in `ps`.
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

    /// Returns whether a process runs.
    pub fn is_running(self) -> bool {
        !matches!(self, Self::Stopped | Self::Exited)
    }
}

/// What was observed of a service, as far as the verdict depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    /// What became of the recorded process.
    pub process: RecordedProcess,
    /// How far its start has come, if it lives.
    pub start: StartPhase,
    /// What responds at the address.
    pub response: ResponseKind,
    /// Who listens on the port.
    pub listener: ListenerKind,
}

/// What became of the process that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordedProcess {
    /// There is no record.
    None,
    /// The process, or another of its instance, lives.
    Alive,
    /// No process of its instance lives.
    Gone,
}

/// How far a start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartPhase {
    /// It was ready once.
    Finished,
    /// Not ready yet, and within its startup timeout.
    Underway,
    /// Not ready yet, and past its startup timeout.
    Overdue,
}

/// What responds at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseKind {
    /// A server of this template that can answer requests.
    Ready,
    /// A server of this template that cannot answer requests.
    NotReady,
    /// Another program.
    OtherProgram,
    /// No response, or none in time.
    None,
}

/// Who listens on a port, as far as the system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerKind {
    /// The recorded instance.
    Ours,
    /// Another process.
    Other,
    /// No process, or it cannot be told.
    Unknown,
}

/// Decides what a service is doing, given what was observed. Nothing else decides that.
pub(super) fn classify(seen: Observation) -> State {
    match (seen.process, seen.response) {
        (RecordedProcess::Alive, ResponseKind::Ready) if seen.listener != ListenerKind::Other => State::Ready,
        (RecordedProcess::Alive, _)
            if seen.listener != ListenerKind::Other && seen.start == StartPhase::Underway =>
        {
            State::Starting
        }
        (RecordedProcess::Alive, _) | (_, ResponseKind::NotReady) => State::Unhealthy,
        (RecordedProcess::None | RecordedProcess::Gone, ResponseKind::Ready) => State::External,
        (RecordedProcess::None, ResponseKind::OtherProgram | ResponseKind::None) => State::Stopped,
        (RecordedProcess::Gone, ResponseKind::OtherProgram | ResponseKind::None) => State::Exited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination of observations, with what the states mean put as conditions of their own.
    #[test]
    fn every_combination_of_observations_has_its_verdict() {
        use State::{Exited, External, Ready, Starting, Stopped, Unhealthy};
        let mut seen = 0;
        for process in [RecordedProcess::None, RecordedProcess::Alive, RecordedProcess::Gone] {
            for start in [StartPhase::Finished, StartPhase::Underway, StartPhase::Overdue] {
                for response in [
                    ResponseKind::Ready,
                    ResponseKind::NotReady,
                    ResponseKind::OtherProgram,
                    ResponseKind::None,
                ] {
                    for listener in [ListenerKind::Ours, ListenerKind::Other, ListenerKind::Unknown] {
                        let observation = Observation { process, start, response, listener };
                        let state = classify(observation);
                        let alive = process == RecordedProcess::Alive;
                        let underway = start == StartPhase::Underway;
                        let is_other = listener == ListenerKind::Other;
                        let answers = response == ResponseKind::Ready;
                        let recognised = answers || response == ResponseKind::NotReady;
                        let expected = [
                            (Ready, alive && answers && !is_other),
                            (Starting, alive && !answers && !is_other && underway),
                            (
                                Unhealthy,
                                (alive && (is_other || (!answers && !underway)))
                                    || (!alive && recognised && !answers),
                            ),
                            (External, !alive && answers),
                            (Stopped, process == RecordedProcess::None && !recognised),
                            (Exited, process == RecordedProcess::Gone && !recognised),
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
