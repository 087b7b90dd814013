//! Where a service answers, for those who want to use it.

use super::observe::{LOOK_LIMIT, Observed};
use super::ready::{self, Depth};
use super::record::Record;
use super::up::{UpOptions, taken};
use super::{
    ManagedService, Observation, Owner, Recorded, ServiceError, ServiceManager, Start, StartedBy, State,
    classify,
};
use crate::core::address::Address;
use crate::core::events::Event;
use crate::core::process::{Liveness, Pid};

/// Where a runtime answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address: the recorded one, whatever the configuration says now.
    pub address: Address,
    /// Its process, where the system tells.
    pub pid: Option<Pid>,
    /// The model that fusion last had the server load, exactly as requests must name it; `None` for servers that are
    /// started without one, and for those that somebody else started.
    pub model: Option<String>,
    /// Who started it.
    pub started_by: StartedBy,
}

impl ServiceManager<'_> {
    /// Where the service answers, for a command that wants to use it; started first if need be and `auto_up`.
    ///
    /// One that was ready once and lives costs reading the record and one look at the kernel: no request is made, so
    /// the caller's own request shows whether it still answers. Follow the address that is returned, not the
    /// configuration, and send [`Endpoint::model`]'s name where the same model is meant. `options.model` is the
    /// model to start with; compare it with what is returned. Without `auto_up`, what does not run is
    /// [`ServiceError::NotRunning`]. Nothing is printed; [`Event::Started`] and what follows tell of a start.
    pub fn ensure_ready(
        &self,
        service: &ManagedService<'_>,
        auto_up: bool,
        options: &UpOptions,
    ) -> Result<Endpoint, ServiceError> {
        if let Some(endpoint) = self.running(service)? {
            return Ok(endpoint);
        }
        if auto_up {
            return match Self::running_elsewhere(service) {
                Some(endpoint) => Ok(endpoint),
                None => Ok(self.up(service, options)?.endpoint),
            };
        }
        let observed = self.observe(service, LOOK_LIMIT)?;
        match (observed.state, &observed.past.record, &observed.past.process) {
            (State::Ready, Some(record), Some(process)) => Ok(endpoint(record, process.pid)),
            (State::External, ..) => Ok(external(&observed)),
            (State::Unhealthy, _, Some(process)) if !observed.listener.is_other() => {
                Err(ServiceError::Unhealthy {
                    runtime: service.runtime.name(),
                    pid: process.pid,
                    why: observed.sight.words(),
                    address: observed.address,
                })
            }
            (State::Unhealthy, ..) => Err(taken(service, observed)),
            (state, ..) => Err(ServiceError::NotRunning { runtime: service.runtime.name(), state }),
        }
    }

    /// Where the service answers, if fusion started it, it was ready once, and it lives. Looks at the record and the
    /// kernel, and makes no request.
    pub fn running(&self, service: &ManagedService<'_>) -> Result<Option<Endpoint>, ServiceError> {
        let Ok(Some(record)) = Record::read(&service.files.state) else { return Ok(None) };
        match &record.process {
            Some(process) if record.ready && self.driver.liveness(process)? == Liveness::Alive => {
                Ok(Some(endpoint(&record, process.pid)))
            }
            _ => Ok(None),
        }
    }

    /// Whether fusion has started it, it lives, and it was not ready yet. Looks at the record and the kernel only.
    pub fn is_starting(&self, service: &ManagedService<'_>) -> Result<bool, ServiceError> {
        match Record::read(&service.files.state) {
            Ok(Some(Record { process: Some(process), ready: false, .. })) => {
                Ok(self.driver.liveness(&process)? == Liveness::Alive)
            }
            _ => Ok(false),
        }
    }

    /// Where the service answers, if fusion has started nothing and somebody else has. Makes one request, and does not
    /// look for the process.
    fn running_elsewhere(service: &ManagedService<'_>) -> Option<Endpoint> {
        if !matches!(Record::read(&service.files.state), Ok(None)) {
            return None;
        }
        let address = &service.config.server.address;
        let sight = ready::look(service.runtime, address, Depth::Status, LOOK_LIMIT);
        let state = classify(Observation {
            process: Recorded::Nothing,
            start: Start::Underway,
            answer: sight.answered(),
            listener: Owner::Unknown,
        });
        let endpoint =
            || Endpoint { address: address.clone(), pid: None, model: None, started_by: StartedBy::Other };
        (state == State::External).then(endpoint)
    }

    /// Remembers that the server at `endpoint`, if fusion started it, loads `model` in place of the one it had: some
    /// do so for whoever names another one. When that fails, only what `ps` says is wrong, and an event tells.
    pub fn record_model(&self, service: &ManagedService<'_>, endpoint: &Endpoint, model: &str) {
        if let Err(error) = self.try_to_record_model(service, endpoint, model) {
            self.events.event(&Event::ModelUnrecorded { model, error: &error });
        }
    }

    fn try_to_record_model(
        &self,
        service: &ManagedService<'_>,
        endpoint: &Endpoint,
        model: &str,
    ) -> Result<(), ServiceError> {
        let _lock = self.lock(service)?;
        match Record::read(&service.files.state)? {
            Some(mut record) if record.process.as_ref().map(|process| process.pid) == endpoint.pid => {
                record.model = Some(model.to_owned());
                Ok(record.write(&service.files)?)
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn endpoint(record: &Record, pid: Pid) -> Endpoint {
    Endpoint {
        address: record.address.clone(),
        pid: Some(pid),
        model: record.model.clone(),
        started_by: StartedBy::Fusion,
    }
}

pub(super) fn external(observed: &Observed) -> Endpoint {
    Endpoint {
        address: observed.address.clone(),
        pid: observed.listener_pid(),
        model: None,
        started_by: StartedBy::Other,
    }
}
