//! `health`: one real generation of one token, and how long it took.

use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::launch::missing_model;
use super::ready::{self, Depth, Sight};
use super::up::UpOptions;
use super::{ManagedService, ServiceError, ServiceManager, StartedBy};

/// A generation that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Where.
    pub endpoint: Endpoint,
    /// The model that generated.
    pub model: String,
    /// From the request to the whole answer.
    pub latency: Duration,
}

impl ServiceManager<'_> {
    /// Has the service generate one token with `model`; by default the one that it has loaded, else the one that
    /// `run` uses. Whoever started it.
    pub fn health(&self, service: &ManagedService<'_>, model: Option<&str>) -> Result<Health, ServiceError> {
        let runtime = service.runtime;
        let endpoint = self.ensure_ready(service, false, &UpOptions::default())?;
        let model = model.map_or_else(|| self.own_model(service, &endpoint), str::to_owned);
        // A server may have to load the model first; but one that hangs is not waited for that long.
        let limit = service.config.server.startup_timeout;
        let sight = ready::look(runtime, &endpoint.address, Depth::Status, ready::STATUS_LIMIT);
        let begin = Instant::now();
        let sight = match sight {
            Sight::Ready(_) => ready::generate(&endpoint.address, &model, limit),
            other => other,
        };
        let latency = begin.elapsed();
        match sight {
            Sight::Ready(_) => {
                // Some servers now have this model in place of the one they had.
                if endpoint.model.as_ref().is_some_and(|loaded| *loaded != model) {
                    self.record_model(service, &endpoint, &model);
                }
                Ok(Health { endpoint, model, latency })
            }
            Sight::ModelMissing(said) => Err(missing_model(service, &model, Some(said))),
            sight => Err(ServiceError::CannotGenerate {
                runtime: runtime.name(),
                model,
                why: sight.words(),
                timed_out: matches!(sight, Sight::Silent | Sight::NotGenerated),
                started_by: endpoint.started_by,
            }),
        }
    }

    /// Asking a server that somebody else started must not make it load another model.
    fn own_model(&self, service: &ManagedService<'_>, endpoint: &Endpoint) -> String {
        let resident = match endpoint.started_by {
            StartedBy::Fusion => endpoint.model.clone(),
            StartedBy::Other => service.runtime.resident_model().map(str::to_owned),
        };
        resident.unwrap_or_else(|| self.configured_model(service, &service.config.run.model).name)
    }
}
