//! The metrics of the services, for `GET /api/metrics`, the events and Prometheus.

use std::sync::Arc;
use std::time::Instant;

use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::body::ResponseBody;
use super::meter::Counters;
use super::prometheus::{self, Sample};
use super::rejection::Rejection;
use super::respond::json_of;
use super::state::{Gateway, Setup};
use crate::app::metrics::{MachineMetrics, MetricsView, ServiceMetrics};
use crate::app::views::{milliseconds, tenths};
use crate::core::services::{ManagedService, Status};

/// Returns the metrics of the services that run.
pub(super) fn rows(
    gateway: &Gateway,
    setup: &Setup,
    statuses: &[(&ManagedService, Status)],
) -> Vec<ServiceMetrics> {
    let running = statuses.iter().filter(|(_, status)| status.state.is_running());
    running.map(|(service, status)| row(gateway, setup, service, status)).collect()
}

fn row(gateway: &Gateway, setup: &Setup, service: &ManagedService, status: &Status) -> ServiceMetrics {
    let counters = gateway.counts.of(&service.name);
    ServiceMetrics {
        in_flight: Some(gateway.seats.in_flight(&service.name) as u64),
        tokens_per_second: counters.tokens_per_second.map(tenths),
        first_token_ms: counters.first_token.map(milliseconds),
        context_used: counters.context_used,
        idle_left_s: idle_left(gateway, setup, service),
        ..setup.app.measure(service, status)
    }
}

/// Returns the seconds until the idle stop of the service.
fn idle_left(gateway: &Gateway, setup: &Setup, service: &ManagedService) -> Option<u64> {
    let timeout = super::keeper::idle_timeout(setup, service)?;
    let since = gateway.seats.idle_since(&service.name)?;
    Some(timeout.saturating_sub(Instant::now().saturating_duration_since(since)).as_secs())
}

/// Answers `GET /metrics`.
pub(super) fn prometheus(gateway: &Gateway) -> Result<Response<ResponseBody>, Rejection> {
    let setup = gateway.setup();
    let text = prometheus::text(&samples(gateway, &setup.statuses()?));
    let mut response = Response::new(ResponseBody::whole(text));
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// Answers `GET /api/metrics`.
pub(super) fn all(gateway: &Gateway) -> Result<Response<ResponseBody>, Rejection> {
    let setup = gateway.setup();
    json_of(&MetricsView {
        services: rows(gateway, &setup, &setup.statuses()?),
        machine: MachineMetrics::now(&mut gateway.cpu_meter()),
    })
}

fn samples(gateway: &Gateway, statuses: &[(&ManagedService, Status)]) -> Vec<Sample> {
    let sample = |(service, status): &(&ManagedService, Status)| {
        let counters: Counters = gateway.counts.of(&service.name);
        let has_models = status.models.as_ref().is_none_or(|models| !models.is_empty());
        Sample {
            service: Arc::clone(&service.name),
            counters,
            in_flight: gateway.seats.in_flight(&service.name),
            is_loaded: status.state.is_running() && has_models,
            memory_bytes: status.usage.as_ref().map(|usage| usage.memory_bytes),
        }
    };
    let mut samples: Vec<Sample> = statuses.iter().map(sample).collect();
    // Requests without a service, and services that are gone.
    for service in gateway.counts.names() {
        if samples.iter().all(|sample| sample.service != service) {
            let counters = gateway.counts.of(&service);
            samples.push(Sample { service, counters, in_flight: 0, is_loaded: false, memory_bytes: None });
        }
    }
    samples
}
