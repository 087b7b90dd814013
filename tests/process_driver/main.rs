//! The real process driver against real processes: isolation of what is started, identities, signals, listeners.

mod actor;
mod children;
mod endings;
mod identity;
mod isolation;
mod listeners;
mod members;
mod stage;
mod state;
#[path = "../support/mod.rs"]
mod support;
