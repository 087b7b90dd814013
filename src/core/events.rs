//! Events: owned, timestamped facts about what the core does, and the bus that delivers them to subscribers.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::core::address::Address;
use crate::core::process::{Listener, Pid};
use crate::core::timestamp::Timestamp;

/// One event of a service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    pub at: Timestamp,
    pub service: Arc<str>,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What a user may not know about a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum VariableNotice {
    /// The server used its default in place of the value.
    Refused { name: String, value: String },
    /// The configuration sets a variable that the server does not know.
    Unknown { name: String, nearest: Option<String> },
    /// The caller's shell names another server to the programs of the runtime's makers.
    Shell { name: String, value: String },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// Another command holds the service's lock.
    WaitingForLock {
        /// The pid of the holder, if known.
        holder: Option<Pid>,
    },
    /// The process was started and recorded.
    Started {
        /// The pid of its first process.
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
    /// SIGTERM was sent.
    Stopping {
        /// The pid of its first process.
        pid: Pid,
    },
    /// The service did not end in time and is killed.
    Killing {
        /// The pid of its first process.
        pid: Pid,
    },
    /// Other machines can reach the server, which has no authentication.
    Exposed {
        #[serde(serialize_with = "host_and_port")]
        address: Address,
    },
    /// The configuration has changed since the start of the running service.
    ConfigurationChanged {
        /// Its changed parts; empty if they are not known.
        parts: Vec<String>,
    },
    /// The gateway has read the configuration file again.
    ConfigChanged {
        /// Whether the file is valid, and so in use.
        ok: bool,
        /// What is wrong with it.
        message: Option<String>,
    },
    /// The command that asks the server to stop failed; signals stop it.
    StopCommandFailed { command: String, why: String },
    /// Another service is configured at the same address.
    AddressShared {
        #[serde(serialize_with = "host_and_port")]
        address: Address,
        other: Arc<str>,
    },
    /// The service was stopped, and another process already listens on its port.
    PortInUse {
        #[serde(serialize_with = "host_and_port")]
        address: Address,
        listener: Listener,
    },
    /// A process died and left others running, which fusion stops before it starts the service again.
    Orphaned,
    /// A server that fusion did not start responds, and did not generate with its own model.
    ExternalWithoutModel {
        /// The message of the server.
        message: String,
    },
    /// The server has loaded another model, and the record could not be updated.
    ModelNotRecorded {
        /// The model that is loaded now.
        model: String,
        error: String,
    },
    /// The record is damaged, and fusion ignores it.
    RecordIgnored { error: String },
    Installing {
        /// The requirement for the package index, or the Homebrew formula.
        what: String,
        /// The installing program.
        with: String,
        /// The directory; `None` if the installing program chooses it.
        directory: Option<PathBuf>,
    },
    /// fusion starts the installed program once to check that it works.
    CheckingInstallation,
    /// Meanwhile, macOS may offer to install developer tools, which are not needed.
    DeveloperToolsOffered,
    /// The program was installed for a start.
    Installed {
        /// Its version, if fusion installed it itself.
        version: Option<String>,
        /// Its directory, or the program.
        path: PathBuf,
    },
    /// The stage of a model's download that has no measure, in the words of the tool or server.
    DownloadStage { model: String, stage: String },
    /// Bytes of a model's download have arrived.
    Downloaded {
        model: String,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all, if known. May grow.
        total: Option<u64>,
    },
    /// The download of a model has ended, successfully or not.
    DownloadEnded { model: String },
    /// A request makes the server replace its loaded model.
    ModelReplaced {
        /// The model that was loaded.
        loaded: String,
        /// The model that the server loads.
        model: String,
    },
    /// A model is loaded that needs more memory than is free.
    MemoryTight {
        model: String,
        /// What it needs, in bytes.
        needed: u64,
        /// What is free, or all there is if that is less than it needs, in bytes.
        free: u64,
    },
    /// A variable of the server's environment does not do what the user expects.
    Variable { notice: VariableNotice },
    /// The server inherits these variables of the caller.
    HandedOn { names: Vec<String> },
    /// A model is loaded of which a part, or all, is on the CPU.
    OnCpu {
        model: String,
        /// What is on the GPU.
        gpu_percent: u64,
    },
    /// It is not known whether a model of the service is on the GPU, which the user requires.
    GpuUnknown {
        /// Whether a loaded model would tell.
        tells: bool,
    },
    /// The service is not running, and fusion starts it for a request.
    StartedOnDemand {
        /// Whether another command is already starting it.
        is_starting: bool,
    },
    /// The log was deleted while the server writes to it.
    LogDeleted {
        /// The path of the deleted log.
        log: PathBuf,
    },
    /// No rotator limits the size of the log.
    LogNotRotated { error: String },
    /// The system does not report the listener on the port.
    ListenerUnknown {
        #[serde(serialize_with = "host_and_port")]
        address: Address,
        error: String,
    },
    /// The machine may sleep although the configuration forbids it while the service answers.
    NotKeptAwake { error: String },
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn host_and_port<S: Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

/// Returns an error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Receives every event, on the thread that emits it. It must return soon.
pub trait Subscriber: Send + Sync {
    /// Takes one event. Events arrive in the order in which they are emitted.
    fn event(&self, event: &Event);
}

/// Delivers events to all subscribers. A clone is another handle to the same bus.
#[derive(Clone, Default)]
pub struct EventBus(Arc<Mutex<Vec<Weak<dyn Subscriber>>>>);

impl EventBus {
    pub fn new() -> Self {
        Self::default()
    }

    /// Delivers every event from now on to `subscriber`, until its last strong reference is dropped.
    pub fn subscribe(&self, subscriber: &Arc<impl Subscriber + 'static>) {
        let subscriber = Arc::downgrade(subscriber);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
    }

    /// Emits an event of the service called `service`.
    pub fn emit(&self, service: &Arc<str>, kind: EventKind) {
        let event = Event { at: Timestamp::from(SystemTime::now()), service: Arc::clone(service), kind };
        // The lock is released, because a subscriber may emit, subscribe, or take long.
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
    struct Recorder(Mutex<Vec<Event>>);

    impl Subscriber for Recorder {
        fn event(&self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    fn kinds(seen: &Recorder) -> Vec<EventKind> {
        seen.0.lock().unwrap().iter().map(|event| event.kind.clone()).collect()
    }

    #[test]
    fn subscribers_receive_every_event() {
        let bus = EventBus::new();
        let (one, other) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
        let name: Arc<str> = "some".into();
        bus.subscribe(&one);
        bus.emit(&name, EventKind::Orphaned);
        bus.subscribe(&other);
        bus.clone().emit(&name, EventKind::ConfigurationChanged { parts: Vec::new() });
        assert_eq!(kinds(&one), [EventKind::Orphaned, EventKind::ConfigurationChanged { parts: Vec::new() }]);
        assert_eq!(kinds(&other), [EventKind::ConfigurationChanged { parts: Vec::new() }]);
    }

    #[test]
    fn dropped_subscriber_is_removed() {
        let bus = EventBus::new();
        let seen = Arc::new(Recorder::default());
        bus.subscribe(&seen);
        drop(seen);
        bus.emit(&"some".into(), EventKind::Orphaned);
        assert_eq!(format!("{bus:?}"), "EventBus(0)");
    }

    #[test]
    fn event_json_has_time_service_type() {
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
