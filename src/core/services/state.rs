//! The states of a service, and the only function that derives a state from an observation.

use serde::Serialize;

/// The state of a service. Only [`classify`] derives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not running.
    Stopped,
    /// Started and not ready yet.
    Starting,
    /// Started by fusion and ready.
    Ready,
    /// Alive and not able to respond to requests.
    Unhealthy,
    /// Ready, and not started by fusion.
    External,
    /// Started by fusion and ended.
    Exited,
}

impl State {
    pub const ALL: [Self; 6] =
        [Self::Stopped, Self::Starting, Self::Ready, Self::Unhealthy, Self::External, Self::Exited];

    /// Returns its name in `ps`.
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

    pub fn is_running(self) -> bool {
        !matches!(self, Self::Stopped | Self::Exited)
    }
}

/// The facts from which a state is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    pub process: RecordedProcess,
    pub start: StartPhase,
    pub response: ResponseKind,
    pub listener: ListenerKind,
}

/// Which processes of the record are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordedProcess {
    None,
    /// The recorded process, or another of its instance, is alive.
    Alive,
    /// No process of its instance is alive.
    Gone,
}

/// The phase of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartPhase {
    /// It was ready before.
    Finished,
    /// It is not ready yet, within its startup timeout.
    Underway,
    /// It is not ready yet, past its startup timeout.
    Overdue,
}

/// What responds at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseKind {
    /// A server of this template that is ready.
    Ready,
    /// A server of this template that is not ready.
    NotReady,
    OtherProgram,
    /// No response within the timeout.
    None,
}

/// What listens on a port, as far as the system reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerKind {
    Ours,
    Other,
    /// No process, or one that the system hides.
    Unknown,
}

/// Derives the state of a service from what was observed.
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

    /// Compares every combination of observations with a second, independent definition of the states.
    #[test]
    fn every_observation_has_one_state() {
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
                        let responds = response == ResponseKind::Ready;
                        let recognised = responds || response == ResponseKind::NotReady;
                        let expected = [
                            (Ready, alive && responds && !is_other),
                            (Starting, alive && !responds && !is_other && underway),
                            (
                                Unhealthy,
                                (alive && (is_other || (!responds && !underway)))
                                    || (!alive && recognised && !responds),
                            ),
                            (External, !alive && responds),
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
