//! `health`: generates one token and measures how long that takes.

use std::time::Instant;

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::probe::{self, Depth, ProbeResult};
use super::service::{Endpoint, Health, ManagedService, StartedBy};

impl ServiceManager<'_> {
    /// Generates one token with `model`; by default with the loaded model, else with the one that `run` uses. Also
    /// checks a server that fusion did not start.
    pub fn health(&self, service: &ManagedService, model: Option<&str>) -> Result<Health, ServiceError> {
        let endpoint = self.require_endpoint(service)?;
        let model = model.map_or_else(|| self.own_model(service, &endpoint), str::to_owned);
        let address = &endpoint.address;
        let probe = probe::probe(&service.template, address, Depth::Status, probe::STATUS_TIMEOUT);
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
                Ok(Health { endpoint, model, latency })
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

    /// Returns the model for the request; one that does not make an external server load another model.
    fn own_model(&self, service: &ManagedService, endpoint: &Endpoint) -> String {
        let runtime = service.runtime();
        let resident = match endpoint.started_by {
            StartedBy::Fusion => endpoint.model.clone(),
            StartedBy::Other => {
                runtime.and_then(super::super::runtimes::Runtime::resident_model).map(str::to_owned)
            }
        };
        let configured = &service.settings.run.model;
        resident.unwrap_or_else(|| match runtime {
            Some(runtime) => self.configured_model(service, runtime, configured).name,
            None => configured.clone(),
        })
    }
}
