//! Observes a service: reads its record, asks the kernel, probes its address, and derives its state.
//!
//! Writes nothing.

use std::time::{Duration, Instant, SystemTime};

use super::error::ServiceError;
use super::lock;
use super::manager::ServiceManager;
use super::probe::{self, Depth, ProbeResult};
use super::record::{InstanceId, Record, RecordError};
use super::service::{Endpoint, ManagedService, StartedBy};
use super::state::{ListenerKind, Observation, RecordedProcess, ResponseKind, StartPhase, State, classify};
use crate::core::address::Address;
use crate::core::events::{EventKind, chain};
use crate::core::files::FileError;
use crate::core::parallel;
use crate::core::process::{Instance, Listener, Liveness, Pid, Place, ProcessId};

/// The record of a service, and which of its processes are alive.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    /// The record, if it exists and is readable.
    pub(super) record: Option<Record>,
    /// The process that represents the service: the recorded one, or another of its instance that outlived it.
    pub(super) process: Option<ProcessId>,
    /// The living processes of the instance if the recorded one has ended.
    pub(super) orphans: Vec<ProcessId>,
    /// Whether another command is starting the service: it has written the intent and not yet the process.
    pub(super) is_spawning: bool,
    /// Whether the service was started on another host or in another container. The record then says nothing about
    /// this one, and is neither changed nor removed.
    pub(super) is_elsewhere: bool,
    /// Whether the record was lost, and `record` is made from the process that still listens.
    pub(super) is_adopted: bool,
}

/// The result of one observation of a service.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) recorded: Recorded,
    /// The recorded address if the service is alive, else where it would listen, if that is known.
    pub(super) address: Option<Address>,
    /// The result of the probe of that address.
    pub(super) probe: ProbeResult,
    /// The listener on that address, as far as the system reports it.
    pub(super) listener: Listener,
    pub(super) state: State,
}

impl Recorded {
    pub(super) fn none() -> Self {
        Self {
            record: None,
            process: None,
            orphans: Vec::new(),
            is_spawning: false,
            is_elsewhere: false,
            is_adopted: false,
        }
    }

    /// Returns the record of a start on this host.
    pub(super) fn here(&self) -> Option<&Record> {
        self.record.as_ref().filter(|_| !self.is_elsewhere)
    }

    /// Returns the record of a start elsewhere.
    pub(super) fn elsewhere(&self) -> Option<&Record> {
        self.record.as_ref().filter(|_| self.is_elsewhere)
    }

    fn instance(&self) -> Option<Instance<'_>> {
        self.here().map(Record::as_instance)
    }

    fn kind(&self) -> RecordedProcess {
        match self.here() {
            None => RecordedProcess::None,
            Some(_) if self.process.is_some() || self.is_spawning => RecordedProcess::Alive,
            // The start failed after the intent was written.
            Some(record) if record.process.is_none() => RecordedProcess::None,
            Some(_) => RecordedProcess::Gone,
        }
    }
}

impl Observed {
    /// Returns the endpoint of an external server; `None` where no server can be.
    pub(super) fn external_endpoint(&self) -> Option<Endpoint> {
        let pid = match self.listener {
            Listener::Ours { pid } | Listener::Other { pid, .. } => Some(pid),
            Listener::None | Listener::Unknown => None,
        };
        Some(Endpoint { address: self.address.clone()?, pid, model: None, started_by: StartedBy::Other })
    }
}

/// Returns the endpoint of a recorded server whose process is `pid`.
pub(super) fn recorded_endpoint(record: &Record, pid: Pid) -> Endpoint {
    Endpoint {
        address: record.address.clone(),
        pid: Some(pid),
        model: record.model.clone(),
        started_by: StartedBy::Fusion,
    }
}

/// Timeout of each request of an observation, except for `ps`.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How late the system may show the instance id of a process that was spawned just before fusion was killed.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Whether the caller holds the service's lock, so no other command changes the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locked {
    Yes,
    No,
}

impl ServiceManager<'_> {
    /// Observes a service without its lock. Each request has `timeout`.
    pub(super) fn observe(
        &self,
        service: &ManagedService,
        depth: Depth<'_>,
        timeout: Duration,
    ) -> Result<Observed, ServiceError> {
        let recorded = self.recorded(service, Locked::No)?;
        Ok(self.observe_recorded(service, recorded, depth, timeout))
    }

    /// Observes the address of a service whose record is known. A process of the service that listens there although
    /// the record does not name it is found again.
    pub(super) fn observe_recorded(
        &self,
        service: &ManagedService,
        recorded: Recorded,
        depth: Depth<'_>,
        timeout: Duration,
    ) -> Observed {
        let observed = self.observe_address(service, recorded, depth, timeout);
        match self.adopted(service, &observed) {
            Some(adopted) => self.observe_address(service, adopted, depth, timeout),
            None => observed,
        }
    }

    /// Returns the record of a process of the service that listens without one, as far as it is still known.
    fn adopted(&self, service: &ManagedService, observed: &Observed) -> Option<Recorded> {
        let (Listener::Other { pid, .. }, Some(address), RecordedProcess::None | RecordedProcess::Gone) =
            (&observed.listener, &observed.address, observed.recorded.kind())
        else {
            return None;
        };
        if observed.recorded.is_elsewhere {
            return None;
        }
        let mark = self.mark_of(service).ok()?;
        let (id, process) = if let Some(id) = self.driver.instance_id(*pid) {
            let id = InstanceId::try_from(id).ok().filter(|id| id.is_marked(&mark))?;
            let members = self.driver.members(Instance { id: id.as_str(), leader: None }).ok()?;
            (id, members.into_iter().min_by_key(|member| member.start_time)?)
        } else {
            // Its environment may be hidden or overwritten. Only what fusion starts leads a session and writes there.
            let leader = self.driver.leader_with_log(Some(*pid), &service.files.log)?;
            let intent = observed.recorded.here().filter(|record| record.process.is_none());
            (
                intent
                    .map_or_else(|| InstanceId::random(&mark), |record| Ok(record.instance.clone()))
                    .ok()?,
                leader,
            )
        };
        let now = SystemTime::now();
        let started_at = self.driver.usage(&process).and_then(|usage| now.checked_sub(usage.uptime));
        let log = &service.files.log;
        let record = Record {
            process: Some(process.clone()),
            template: Some(service.template.name().to_owned()),
            runtime: service.runtime().map(|runtime| runtime.name().to_owned()),
            log: log.to_str().is_some().then(|| log.clone()),
            ..Record::of(id, address, started_at.unwrap_or(now))
        };
        Some(Recorded { record: Some(record), process: Some(process), is_adopted: true, ..Recorded::none() })
    }

    fn observe_address(
        &self,
        service: &ManagedService,
        recorded: Recorded,
        depth: Depth<'_>,
        timeout: Duration,
    ) -> Observed {
        let process = recorded.kind();
        let alive = recorded.record.as_ref().filter(|_| process == RecordedProcess::Alive);
        let address = alive.map_or_else(|| service.address(), |record| Some(record.address.clone()));
        let must_generate = |record: &&Record| !record.ready && service.template.ready_needs_generation();
        let generation = alive.filter(must_generate).and_then(|record| record.model.as_deref());
        let depth = Depth { generation, ..depth };
        let (probe, listener) = match &address {
            Some(address) => self.responder(service, address, &recorded, depth, timeout),
            None => (ProbeResult::NoConnection("it has no port yet".to_owned()), Listener::None),
        };
        let probe = if alive.is_some() { probe } else { probe.without_process(&service.template) };
        // What another service of fusion runs is never a server of this one.
        let is_others = process != RecordedProcess::Alive
            && !matches!(probe.response(), ResponseKind::None)
            && address.as_ref().is_some_and(|address| self.other_service_at(service, address).is_some());
        let probe = match probe {
            ProbeResult::OtherProgram(_) => probe,
            _ if is_others => ProbeResult::OtherProgram("another service of fusion runs there".to_owned()),
            probe => probe,
        };
        let state = classify(Observation {
            process,
            start: self.start_phase(service, &recorded),
            response: probe.response(),
            listener: listener_kind(&listener),
        });
        Observed { recorded, address, probe, listener, state }
    }

    /// Probes the address, and returns who listens there.
    fn responder(
        &self,
        service: &ManagedService,
        address: &Address,
        recorded: &Recorded,
        depth: Depth<'_>,
        timeout: Duration,
    ) -> (ProbeResult, Listener) {
        let probe = || probe::probe(&service.template, address, depth, timeout);
        let listener = || self.listener_at(address, recorded);
        let others = self.sockets.filter(|_| recorded.kind() != RecordedProcess::Alive);
        let is_listed = others.map(|sockets| sockets.has(address.port));
        let (probe, found) = match is_listed {
            // The search for a process that fusion did not start takes as long as the probe.
            Some(true) => parallel::both(probe, || Some(listener())),
            Some(false) => (probe::refusal(&service.template, address, timeout).unwrap_or_else(probe), None),
            None => (probe(), None),
        };
        let listener = match probe {
            ProbeResult::NoConnection(_) => Listener::None,
            // An unknown listener does not contradict the response.
            _ => found.unwrap_or_else(listener),
        };
        (probe, listener)
    }

    fn listener_at(&self, address: &Address, recorded: &Recorded) -> Listener {
        let own = self.sockets.zip(recorded.process.as_ref());
        if let Some(pid) =
            own.and_then(|(sockets, process)| self.driver.own_listener(sockets, address, process.pid))
        {
            return Listener::Ours { pid };
        }
        let instance = recorded.instance();
        let found = match self.sockets {
            Some(sockets) => self.driver.listener_among(sockets, address, instance),
            None => self.driver.listener(address, instance),
        };
        found.unwrap_or(Listener::None)
    }

    /// Reads the record while the caller holds the lock. Waits for a process of an unfinished intent to become
    /// visible.
    pub(super) fn settled_record(&self, service: &ManagedService) -> Result<Recorded, ServiceError> {
        let begin = Instant::now();
        loop {
            let recorded = self.recorded(service, Locked::Yes)?;
            let is_intent = recorded.record.as_ref().is_some_and(|record| record.process.is_none());
            if !is_intent || recorded.process.is_some() || begin.elapsed() >= SETTLE_TIME {
                return Ok(recorded);
            }
            std::thread::sleep(SETTLE_TIME / 10);
        }
    }

    /// Returns whether the record is of another host or container.
    pub(super) fn is_elsewhere(&self, record: &Record) -> Result<bool, ServiceError> {
        match record.host() {
            Some(host) => Ok(self.driver.host()?.place_of(host) == Place::Elsewhere),
            None => Ok(false),
        }
    }

    /// Reads the record, and looks up its processes.
    fn recorded(&self, service: &ManagedService, locked: Locked) -> Result<Recorded, ServiceError> {
        let mut record = match Record::read(&service.files.state) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(Recorded::none()),
            Err(error @ (RecordError::Damaged { .. } | RecordError::File(FileError::TooLarge { .. }))) => {
                self.emit(service, EventKind::RecordIgnored { error: chain(&error) });
                return Ok(Recorded::none());
            }
            Err(error) => return Err(error.into()),
        };
        if self.is_elsewhere(&record)? {
            return Ok(Recorded { record: Some(record), is_elsewhere: true, ..Recorded::none() });
        }
        if let Some(process) = self.living_process(&record)? {
            // One in the background leads the instance as soon as the first one has ended.
            let record = Record { process: Some(process.clone()), ..record };
            return Ok(Recorded { record: Some(record), process: Some(process), ..Recorded::none() });
        }
        let members = self.driver.members(record.as_instance())?;
        let mut process = members.iter().min_by_key(|member| member.start_time).cloned();
        let mut is_adopted = false;
        if record.process.is_none() && process.is_none() {
            // Where the system hides its environment, the log that it writes shows what became of an intent.
            process = self.driver.leader_with_log(None, &service.files.log);
            is_adopted = process.is_some();
            record.process.clone_from(&process);
        }
        Ok(Recorded {
            orphans: if record.process.is_some() { members } else { Vec::new() },
            is_spawning: record.process.is_none()
                && process.is_none()
                && locked == Locked::No
                && lock::is_held(&service.files)?,
            is_elsewhere: false,
            is_adopted,
            process,
            record: Some(record),
        })
    }

    /// Returns the recorded process that is alive: the first one, or the one in the background.
    pub(super) fn living_process(&self, record: &Record) -> Result<Option<ProcessId>, ServiceError> {
        for process in record.process.iter().chain(&record.background) {
            if self.driver.liveness(process)? == Liveness::Alive {
                return Ok(Some(process.clone()));
            }
        }
        Ok(None)
    }

    fn start_phase(&self, service: &ManagedService, recorded: &Recorded) -> StartPhase {
        let record = recorded.record.as_ref();
        if record.is_some_and(|record| record.ready) {
            return StartPhase::Finished;
        }
        let configured = service.server().startup_timeout;
        let timeout = record.map_or(configured, |record| record.startup_timeout(configured));
        let usage = recorded.process.as_ref().and_then(|process| self.driver.usage(process));
        match usage {
            Some(usage) if usage.uptime >= timeout => StartPhase::Overdue,
            _ => StartPhase::Underway,
        }
    }
}

fn listener_kind(listener: &Listener) -> ListenerKind {
    match listener {
        Listener::Ours { .. } => ListenerKind::Ours,
        Listener::None => ListenerKind::Unknown,
        Listener::Other { .. } | Listener::Unknown => ListenerKind::Other,
    }
}
