//! A runtime as a managed service: its states, the one verdict over them, and the commands that change it.

pub mod lock;
pub mod ready;
pub mod record;

use serde::Serialize;

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
