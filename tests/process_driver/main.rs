//! The real process driver against real processes: isolation, identities, signals, listeners, reaping.

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
