//! Finds the endpoint of a service, for commands that send requests to it.

use std::time::Duration;

use super::error::ServiceError;
use super::lock::ServiceLock;
use super::manager::ServiceManager;
use super::observe::{PROBE_TIMEOUT, recorded_endpoint};
use super::port::PortUse;
use super::probe::{self, Depth};
use super::record::Record;
use super::service::{Endpoint, ManagedService, StartedBy, UpOptions};
use super::state::{ListenerKind, Observation, RecordedProcess, StartPhase, State, classify};
use crate::core::address::Address;
use crate::core::events::{EventBus, EventKind, chain};
use crate::core::process::{Ending, Listener, Liveness};

/// What a record and the kernel tell of a living service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Whether the gateway started it.
    pub on_demand: bool,
    /// Whether it has been ready.
    pub is_ready: bool,
    /// The memory of its processes.
    pub memory_bytes: Option<u64>,
}

/// What became of a server that fusion started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEnd {
    /// Another command stopped it.
    Stopped,
    /// Another command stopped it and started it again.
    Restarted,
    /// It ended by itself, or was killed.
    Died,
}

/// How long a server may take to end after it has closed its connections.
const END_TIME: Duration = Duration::from_millis(100);

/// How long another command may take to stop the server.
const STOP_TIME: Duration = Duration::from_secs(5);

impl ServiceManager<'_> {
    /// Returns the record of the service. One that has put itself into the background is represented by the process there
    /// as soon as its first one has ended.
    pub fn record_of(&self, service: &ManagedService) -> Result<Option<Record>, ServiceError> {
        let mut record = Record::read(&service.files.state)?;
        if let Some(record) = record.as_mut().filter(|record| record.background.is_some()) {
            record.process = self.living_process(record)?.or(record.process.take());
        }
        Ok(record)
    }

    /// Returns whether the service was ready once and its process is gone, although no command has stopped it.
    fn has_ended(&self, service: &ManagedService) -> bool {
        let Ok(Some(Record { process: Some(process), ready: true, .. })) = self.record_of(service) else {
            return false;
        };
        self.driver.liveness(&process).is_ok_and(|liveness| liveness == Liveness::Dead)
    }

    /// Returns whether the service has ended by itself, and not with exit status 0 as far as this process knows. The
    /// status is told only to the process that started it.
    pub fn has_failed(&self, service: &ManagedService) -> bool {
        let status = || {
            let record = self.record_of(service).ok().flatten()?;
            self.driver.ending(record.process.as_ref()?)
        };
        self.has_ended(service) && status() != Some(Ending::Code(0))
    }

    /// Returns the options of a start by the gateway. A service that has ended by itself keeps the mark of its first
    /// start.
    pub fn options_of_gateway(&self, service: &ManagedService) -> UpOptions {
        let ended = self.record_of(service).ok().flatten().filter(|_| self.has_ended(service));
        let restarts = ended.as_ref().map_or(0, |record| record.restarts + 1);
        UpOptions { on_demand: ended.is_none_or(|record| record.on_demand), restarts, ..UpOptions::default() }
    }

    /// Returns the footprint of a service that fusion started and that is alive. Sends no request.
    pub fn footprint(&self, service: &ManagedService) -> Option<Footprint> {
        let record = self.record_of(service).ok().flatten()?;
        let process = record.process.as_ref()?;
        if self.driver.liveness(process).ok()? != Liveness::Alive {
            return None;
        }
        let memory_bytes = self.driver.usage(process).map(|usage| usage.memory_bytes);
        Some(Footprint { on_demand: record.on_demand, is_ready: record.ready, memory_bytes })
    }

    /// Returns the memory of the server that another program runs at the address of the service, if the system tells it.
    pub fn memory_of_external(&self, service: &ManagedService) -> Option<u64> {
        let Listener::Other { pid, .. } = self.driver.listener(&service.address()?, None).ok()? else {
            return None;
        };
        let process = self.driver.identify(pid).ok()??;
        self.driver.usage(&process).map(|usage| usage.memory_bytes)
    }

    /// Returns what became of the server at `endpoint`; `None` if it runs. Waits for a command that is stopping it.
    pub fn end_of(&self, service: &ManagedService, endpoint: &Endpoint) -> Option<ServerEnd> {
        let pid = endpoint.pid?;
        self.driver.sleep_until_exit(pid, END_TIME);
        // Without events: the user waits for no command.
        let lock =
            ServiceLock::acquire(&service.name, &service.files, STOP_TIME, self.cancel, &EventBus::new());
        let record = self.record_of(service).ok()?;
        drop(lock);
        match record.map(|record| record.process) {
            None => Some(ServerEnd::Stopped),
            Some(Some(process)) if process.pid == pid => {
                (self.driver.liveness(&process).ok()? != Liveness::Alive).then_some(ServerEnd::Died)
            }
            Some(_) => Some(ServerEnd::Restarted),
        }
    }

    /// Returns the endpoint of the service; `None` if one request shows that it is not running.
    ///
    /// For a service that was ready before and is alive, reads only the record and asks the kernel: the caller's own
    /// request shows whether it responds. Callers use the returned address rather than the configured one, and send
    /// the name in [`Endpoint::model`].
    pub fn find_endpoint(&self, service: &ManagedService) -> Result<Option<Endpoint>, ServiceError> {
        match self.running(service)? {
            Some(endpoint) => Ok(Some(endpoint)),
            None => self.running_externally(service),
        }
    }

    /// Returns the endpoint, for a command that starts nothing. Fails when the service does not respond, with
    /// [`ServiceError::NotRunning`] when it is not running.
    pub fn require_endpoint(&self, service: &ManagedService) -> Result<Endpoint, ServiceError> {
        if let Some(endpoint) = self.running(service)? {
            return Ok(endpoint);
        }
        let observed = self.observe(service, Depth::default(), PROBE_TIMEOUT)?;
        if let (Some(record), State::Stopped) = (observed.recorded.elsewhere(), observed.state) {
            return Err(ServiceError::elsewhere(service, record));
        }
        match (observed.state, &observed.recorded.record, &observed.recorded.process) {
            (State::Ready, Some(record), Some(process)) => Ok(recorded_endpoint(record, process.pid)),
            (State::External, ..) => {
                observed.external_endpoint().ok_or_else(|| not_running(service, State::External))
            }
            (State::Unhealthy, Some(record), Some(process)) if PortUse::of(&observed) != PortUse::InUse => {
                Err(ServiceError::Unhealthy {
                    service: service.name.clone(),
                    pid: process.pid,
                    why: observed.probe.words(),
                    address: record.address.clone(),
                })
            }
            (State::Unhealthy, ..) => Err(self.in_use(service, observed)),
            (State::Stopped | State::Exited, ..) if PortUse::of(&observed) == PortUse::InUse => {
                Err(self.in_use(service, observed))
            }
            (state, ..) => Err(not_running(service, state)),
        }
    }

    /// Returns the endpoint if fusion started the service, it was ready before, and it is alive. Reads the record and
    /// asks the kernel; sends no request.
    pub fn running(&self, service: &ManagedService) -> Result<Option<Endpoint>, ServiceError> {
        let Ok(Some(record)) = self.record_of(service) else { return Ok(None) };
        let Some(process) = record.process.as_ref().filter(|_| record.ready) else { return Ok(None) };
        let is_alive = self.driver.liveness(process)? == Liveness::Alive;
        Ok(is_alive.then(|| recorded_endpoint(&record, process.pid)))
    }

    /// Returns whether fusion has started the service and it is not ready yet. Reads the record and asks the kernel.
    /// Fails if only another host knows whether the service runs.
    pub fn is_starting(&self, service: &ManagedService) -> Result<bool, ServiceError> {
        match self.record_of(service) {
            Ok(Some(record)) if self.is_elsewhere(&record)? => Err(ServiceError::elsewhere(service, &record)),
            Ok(Some(Record { process: Some(process), ready: false, .. })) => {
                Ok(self.driver.liveness(&process)? == Liveness::Alive)
            }
            _ => Ok(false),
        }
    }

    /// Returns the endpoint if nothing runs that fusion has started here, and a server of this template responds. Sends one
    /// request, and does not search for the process. Fails if only another host knows whether the service runs.
    fn running_externally(&self, service: &ManagedService) -> Result<Option<Endpoint>, ServiceError> {
        let elsewhere = match self.record_of(service) {
            Ok(None) => None,
            Ok(Some(record)) if self.is_elsewhere(&record)? => Some(record),
            Ok(Some(Record { process: Some(process), .. }))
                if self.driver.liveness(&process)? == Liveness::Dead =>
            {
                None
            }
            _ => return Ok(None),
        };
        let external = service.address().and_then(|address| Self::responding(service, &address));
        // What another service of fusion runs is never a server of this one.
        let external =
            external.filter(|endpoint| self.other_service_at(service, &endpoint.address).is_none());
        match (external, elsewhere) {
            (None, Some(record)) => Err(ServiceError::elsewhere(service, &record)),
            (external, _) => Ok(external),
        }
    }

    fn responding(service: &ManagedService, address: &Address) -> Option<Endpoint> {
        let probe = probe::probe(&service.template, address, Depth::default(), PROBE_TIMEOUT)
            .without_process(&service.template);
        let state = classify(Observation {
            process: RecordedProcess::None,
            start: StartPhase::Underway,
            response: probe.response(),
            listener: ListenerKind::Unknown,
        });
        let endpoint =
            || Endpoint { address: address.clone(), pid: None, model: None, started_by: StartedBy::Other };
        (state == State::External).then(endpoint)
    }

    /// Records `model` as the loaded model of the server at `endpoint`, if fusion started it. An event reports a
    /// failure, which affects only the output of `ps`.
    pub fn record_model(&self, service: &ManagedService, endpoint: &Endpoint, model: &str) {
        if let Err(error) = self.try_to_record_model(service, endpoint, model) {
            let (model, error) = (model.to_owned(), chain(&error));
            self.emit(service, EventKind::ModelNotRecorded { model, error });
        }
    }

    fn try_to_record_model(
        &self,
        service: &ManagedService,
        endpoint: &Endpoint,
        model: &str,
    ) -> Result<(), ServiceError> {
        let _lock = self.lock(service)?;
        match self.record_of(service)? {
            Some(mut record)
                if endpoint.started_by == StartedBy::Fusion
                    && record.process.as_ref().map(|process| process.pid) == endpoint.pid =>
            {
                record.model = Some(model.to_owned());
                Ok(record.write(&service.files)?)
            }
            _ => Ok(()),
        }
    }
}

fn not_running(service: &ManagedService, state: State) -> ServiceError {
    ServiceError::NotRunning { service: service.name.clone(), state }
}
