//! What the core tells its observers while it works; the front end turns it into words.

use std::error::Error;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::process::{Listener, Pid};

/// One thing that happened, in the order in which it happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Another command holds the runtime's lock; its PID where it is known.
    WaitingForLock {
        /// The runtime.
        runtime: &'a str,
        /// Who holds it.
        holder: Option<Pid>,
    },
    /// The process was started and recorded.
    Started {
        /// The runtime.
        runtime: &'a str,
        /// Its leader.
        pid: Pid,
    },
    /// Still not ready; sent about once a second.
    Waiting {
        /// The runtime.
        runtime: &'a str,
        /// How long it has been.
        elapsed: Duration,
        /// What the last probe found, in words.
        last: &'a str,
    },
    /// A signal to end was sent.
    Stopping {
        /// The runtime.
        runtime: &'a str,
        /// Its leader.
        pid: Pid,
    },
    /// It did not end in time and is killed.
    Killing {
        /// The runtime.
        runtime: &'a str,
        /// Its leader.
        pid: Pid,
    },
    /// Others on the network can reach it, and it asks nobody who they are.
    Exposed {
        /// The runtime.
        runtime: &'a str,
        /// Where it listens.
        address: &'a Address,
    },
    /// It runs as it was started; the configuration has been changed since.
    ConfigurationChanged {
        /// The runtime.
        runtime: &'a str,
    },
    /// It is down, and somebody else took its address at once.
    AddressTakenOver {
        /// The runtime.
        runtime: &'a str,
        /// Where it listened.
        address: &'a Address,
        /// Who listens now.
        listener: &'a Listener,
    },
    /// What a process had left behind when it died is ended before it is started anew.
    Orphaned {
        /// The runtime.
        runtime: &'a str,
    },
    /// Somebody else's server answers, and did not generate with its own model: it may have been started without one.
    WithoutModel {
        /// The runtime.
        runtime: &'a str,
        /// What it said.
        said: &'a str,
    },
    /// The server has loaded another model, and `ps` will not know.
    ModelUnrecorded {
        /// The model that it has now.
        model: &'a str,
        /// Why it is not recorded.
        error: &'a dyn Error,
    },
    /// The file of a record holds none, and it is gone on as if there were no file.
    RecordIgnored {
        /// What is wrong with it.
        error: &'a dyn Error,
    },
    /// Nothing keeps the log within bounds.
    LogUnbounded {
        /// The runtime.
        runtime: &'a str,
        /// Why.
        error: &'a dyn Error,
    },
    /// The system does not tell who answers at an address.
    ListenerUnknown {
        /// The address.
        address: &'a Address,
        /// Why.
        error: &'a dyn Error,
    },
}

/// An observer of [`Event`]s.
pub trait EventSink: Sync {
    /// Called as soon as the event happened.
    fn event(&self, event: &Event<'_>);
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl EventSink for Silent {
    fn event(&self, _event: &Event<'_>) {}
}
