//! `health`: generates one token and measures how long that takes.

use std::time::{Duration, Instant};

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::observe::recorded_endpoint;
use super::port::PortUse;
use super::probe::{self, Depth, ProbeResult};
use super::service::{Endpoint, Health, ManagedService, StartedBy};
use super::state::State;

/// The longest time for the response of a program; its template may say a shorter one.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3600);

impl ServiceManager<'_> {
    /// Generates one token with `model` at the endpoint of a service that is a runtime.
    pub fn health(
        &self,
        service: &ManagedService,
        endpoint: Endpoint,
        model: String,
    ) -> Result<Health, ServiceError> {
        let address = &endpoint.address;
        let probe = probe::probe(&service.template, address, Depth::default(), probe::STATUS_TIMEOUT);
        let begin = Instant::now();
        let probe = match probe {
            // The server may have to load the model first, so only the status probe finds a server that hangs.
            ProbeResult::Ready(_) => probe::generate(address, &model, service.server().startup_timeout),
            other => other,
        };
        let latency = begin.elapsed();
        match probe {
            ProbeResult::Ready(_) => {
                // Some servers replace their loaded model with the one of the request.
                if endpoint.model.as_ref().is_some_and(|loaded| *loaded != model) {
                    self.record_model(service, &endpoint, &model);
                }
                Ok(Health { endpoint, model: Some(model), latency })
            }
            ProbeResult::ModelMissing(message) => {
                Err(ServiceError::missing_model(service, &model, Some(message)))
            }
            probe => Err(ServiceError::CannotGenerate {
                service: service.name.clone(),
                model,
                why: probe.words(),
                timed_out: matches!(probe, ProbeResult::NoResponse | ProbeResult::NotGenerated),
                started_by: endpoint.started_by,
            }),
        }
    }

    /// Asks a program for its health as its template says.
    pub fn health_of_program(&self, service: &ManagedService) -> Result<Health, ServiceError> {
        let begin = Instant::now();
        let observed = self.observe(service, Depth::default(), HEALTH_TIMEOUT)?;
        let latency = begin.elapsed();
        let process = observed.recorded.process.as_ref();
        match (observed.state, &observed.recorded.record, process, &observed.address) {
            (State::Ready, Some(record), Some(process), _) => {
                Ok(Health { endpoint: recorded_endpoint(record, process.pid), model: None, latency })
            }
            (State::External, ..) => match observed.external_endpoint() {
                Some(endpoint) => Ok(Health { endpoint, model: None, latency }),
                None => Err(self.in_use(service, observed)),
            },
            (State::Unhealthy, _, Some(_), Some(address)) if !observed.listener.is_other() => {
                Err(ServiceError::NotHealthy {
                    service: service.name.clone(),
                    address: address.clone(),
                    why: observed.probe.words(),
                    timed_out: observed.probe == ProbeResult::NoResponse,
                    started_by: StartedBy::Fusion,
                })
            }
            (State::Unhealthy, ..) => Err(self.in_use(service, observed)),
            _ if PortUse::of(&observed) == PortUse::InUse => Err(self.in_use(service, observed)),
            (state, ..) => Err(match observed.recorded.elsewhere() {
                Some(record) => ServiceError::elsewhere(service, record),
                None => ServiceError::NotRunning { service: service.name.clone(), state },
            }),
        }
    }
}
