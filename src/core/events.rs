//! What happens while the core works: owned, timestamped events, and the bus that brings them to subscribers.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::core::address::Address;
use crate::core::process::{Listener, Pid};
use crate::core::timestamp::Timestamp;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// The name of the service that it concerns.
    pub service: Arc<str>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// Another command holds the service's lock.
    WaitingForLock {
        /// The holder, where it is known.
        holder: Option<Pid>,
    },
    /// The process was started and recorded.
    Started {
        /// The first process.
        pid: Pid,
    },
    /// The service is not ready yet; emitted about once a second.
    Waiting {
        /// Time since the wait began.
        #[serde(rename = "elapsed_ms", serialize_with = "milliseconds")]
        elapsed: Duration,
        /// What the last probe found, in words.
        last: String,
    },
    /// A signal to end was sent.
    Stopping {
        /// The first process.
        pid: Pid,
    },
    /// The service did not end in time and is killed.
    Killing {
        /// The first process.
        pid: Pid,
    },
    /// Other machines can reach the server, which has no authentication.
    Exposed {
        /// Where it listens.
        #[serde(serialize_with = "host_and_port")]
        address: Address,
    },
    /// The service runs as it was started; the configuration has changed since.
    ConfigurationChanged,
    /// The service is down, and another process listens on its port already.
    PortInUse {
        /// Where it listened.
        #[serde(serialize_with = "host_and_port")]
        address: Address,
        /// Who listens now.
        #[serde(skip)]
        listener: Listener,
    },
    /// A process died and left others behind, which are stopped before the service is started again.
    Orphaned,
    /// A server that fusion did not start answers, and did not generate with its own model.
    ExternalWithoutModel {
        /// What it said.
        said: String,
    },
    /// The server has loaded another model, and the record does not say so.
    ModelNotRecorded {
        /// The model that it has now.
        model: String,
        /// Why.
        error: String,
    },
    /// The file of the record holds none and is ignored.
    RecordIgnored {
        /// What is wrong with it.
        error: String,
    },
    /// The program is being installed.
    Installing {
        /// What is asked of the package index, or of Homebrew.
        what: String,
        /// The program that installs it.
        with: String,
        /// Where to; `None` where that program decides.
        directory: Option<PathBuf>,
    },
    /// The installed program is started once, to see that it works.
    CheckingInstallation,
    /// The program was installed for a start.
    Installed {
        /// Its version, where fusion has installed it itself.
        version: Option<String>,
        /// Its directory, or the program.
        path: PathBuf,
    },
    /// A model is being downloaded: a stage without a measure, in the words of the tool or server.
    DownloadStage {
        /// The model.
        model: String,
        /// What is done now.
        stage: String,
    },
    /// A model is being downloaded: bytes have arrived.
    Downloaded {
        /// The model.
        model: String,
        /// Bytes until now.
        bytes: u64,
        /// Bytes in all, where that is known. May grow.
        total: Option<u64>,
    },
    /// The download of a model has ended, with success or without.
    DownloadEnded {
        /// The model.
        model: String,
    },
    /// A request makes the server load another model in place of the one it has.
    ModelReplaced {
        /// The model that it had.
        loaded: String,
        /// The model that it loads.
        model: String,
    },
    /// The service is not running, and is started for a request.
    StartedOnDemand {
        /// Another command has begun to start it already.
        is_starting: bool,
    },
    /// The log was deleted, and the server writes to it still.
    LogDeleted {
        /// Where it was.
        log: PathBuf,
    },
    /// Nothing rotates the log.
    LogNotRotated {
        /// Why.
        error: String,
    },
    /// The system does not tell who listens on the port.
    ListenerUnknown {
        /// Where.
        #[serde(serialize_with = "host_and_port")]
        address: Address,
        /// Why.
        error: String,
    },
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn host_and_port<S: Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

/// Returns an error and everything that caused it, in one line.
pub fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

/// Learns of every event. Called on the thread where it happened, so it returns soon.
pub trait Subscriber: Send + Sync {
    /// Called for each event, in the order in which they are emitted.
    fn event(&self, event: &Event);
}

/// Brings events to all subscribers. Cloning it gives another handle to the same bus.
#[derive(Clone, Default)]
pub struct EventBus(Arc<Mutex<Vec<Weak<dyn Subscriber>>>>);

impl EventBus {
    /// Returns a bus without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `subscriber` learn of every event from now on, for as long as somewhere a strong reference to it is kept.
    pub fn subscribe(&self, subscriber: &Arc<impl Subscriber + 'static>) {
        let subscriber = Arc::downgrade(subscriber);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
    }

    /// Emits an event of the service called `service`.
    pub fn emit(&self, service: &Arc<str>, kind: EventKind) {
        let event = Event { at: Timestamp::from(SystemTime::now()), service: Arc::clone(service), kind };
        // Called without the lock, for a subscriber may emit, subscribe, or take its time.
        for subscriber in self.subscribers() {
            subscriber.event(&event);
        }
    }

    fn subscribers(&self) -> Vec<Arc<dyn Subscriber>> {
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let living: Vec<_> = subscribers.iter().filter_map(Weak::upgrade).collect();
        if living.len() < subscribers.len() {
            subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        }
        living
    }
}

impl std::fmt::Debug for EventBus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("EventBus").field(&self.subscribers().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<Event>>);

    impl Subscriber for Seen {
        fn event(&self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    fn kinds(seen: &Seen) -> Vec<EventKind> {
        seen.0.lock().unwrap().iter().map(|event| event.kind.clone()).collect()
    }

    #[test]
    fn every_subscriber_learns_of_every_event() {
        let bus = EventBus::new();
        let (one, other) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
        let name: Arc<str> = "some".into();
        bus.subscribe(&one);
        bus.emit(&name, EventKind::Orphaned);
        bus.subscribe(&other);
        bus.clone().emit(&name, EventKind::ConfigurationChanged);
        assert_eq!(kinds(&one), [EventKind::Orphaned, EventKind::ConfigurationChanged]);
        assert_eq!(kinds(&other), [EventKind::ConfigurationChanged]);
    }

    #[test]
    fn a_dropped_subscriber_is_forgotten() {
        let bus = EventBus::new();
        let seen = Arc::new(Seen::default());
        bus.subscribe(&seen);
        drop(seen);
        bus.emit(&"some".into(), EventKind::Orphaned);
        assert_eq!(format!("{bus:?}"), "EventBus(0)");
    }

    #[test]
    fn an_event_is_json_with_time_service_and_type() {
        let at: Timestamp = "2026-11-24T05:48:00Z".parse().unwrap();
        let json = |kind| serde_json::to_string(&Event { at, service: "coder".into(), kind }).unwrap();
        let head = r#"{"at":"2026-11-24T05:48:00Z","service":"coder","type":"#;
        let pid = Pid::try_from(4242).unwrap();
        assert_eq!(json(EventKind::Started { pid }), format!(r#"{head}"started","pid":4242}}"#));
        let waiting =
            EventKind::Waiting { elapsed: Duration::from_millis(1500), last: "HTTP 503".to_owned() };
        assert_eq!(json(waiting), format!(r#"{head}"waiting","elapsed_ms":1500,"last":"HTTP 503"}}"#));
        let address = Address { host: "0.0.0.0".to_owned(), port: 8080 };
        assert_eq!(
            json(EventKind::Exposed { address }),
            format!(r#"{head}"exposed","address":"0.0.0.0:8080"}}"#)
        );
    }
}
