//! `metrics`: what the services and the machine use, in the JSON shape of every front end.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::app::App;
use super::gateway::HEALTH_PATH;
use super::views::tenths;
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::cancel::CancelToken;
use crate::core::machine::{self, CpuMeter};
use crate::core::process::Holdings;
use crate::core::services::{ManagedService, ServiceError, Status};

const METRICS_PATH: &str = "/api/metrics";

/// Timeout of each request to the gateway, which gives each service a second for each of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What the running services and the machine use.
#[derive(Debug, Serialize)]
pub struct MetricsView {
    pub services: Vec<ServiceMetrics>,
    pub machine: MachineMetrics,
}

/// What the process of a service and its descendants use, and what the gateway knows of its requests. Unknown values
/// are null; the last five are, unless the gateway runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceMetrics {
    pub name: Arc<str>,
    pub pid: Option<i64>,
    /// Since its start, in percent of one processor.
    pub cpu_percent: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub open_files: Option<u64>,
    /// Requests that are being answered.
    pub in_flight: Option<u64>,
    /// Of the last answer.
    pub tokens_per_second: Option<f64>,
    /// Of the last answer.
    pub first_token_ms: Option<f64>,
    /// Tokens of the last request and its answer.
    pub context_used: Option<u64>,
    /// Seconds until it is stopped if no request comes.
    pub idle_left_s: Option<u64>,
}

/// What the machine uses and has. Unknown values are null.
#[derive(Debug, Serialize)]
pub struct MachineMetrics {
    /// Of all processors, while it was measured.
    pub cpu_percent: Option<f64>,
    pub processors: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// What programs can still allocate.
    pub memory_available_bytes: Option<u64>,
    /// Over 1, 5 and 15 minutes.
    pub load_averages: Option<[f64; 3]>,
    /// Of all GPUs; where they share the memory of the machine, that.
    pub gpu_memory_bytes: Option<u64>,
    pub gpu_memory_used_bytes: Option<u64>,
}

impl App {
    /// Measures the machine, and those of `services` that run; a running gateway adds what it knows of their requests.
    /// Returns with it which services could not be observed.
    pub fn metrics<'a>(
        &self,
        services: &[&'a ManagedService],
        meter: &mut CpuMeter,
        cancel: &CancelToken,
    ) -> (MetricsView, Vec<(&'a ManagedService, ServiceError)>) {
        let (statuses, known) = self.observe(services, cancel);
        let (mut measured, mut failed) = (Vec::new(), Vec::new());
        for (service, status) in services.iter().zip(statuses) {
            match status {
                Ok(status) if status.state.is_running() => measured.push(self.measure(service, &status)),
                Ok(_) => {}
                Err(error) => failed.push((*service, error)),
            }
        }
        for service in &mut measured {
            service.learn(&known);
        }
        (MetricsView { services: measured, machine: MachineMetrics::now(meter) }, failed)
    }

    /// Observes the services, and asks a running gateway what it knows of their requests; null if none runs.
    pub(super) fn observe(
        &self,
        services: &[&ManagedService],
        cancel: &CancelToken,
    ) -> (Vec<Result<Status, ServiceError>>, Value) {
        thread::scope(|scope| {
            // Meanwhile, because the gateway, too, asks every service.
            let asked = thread::Builder::new().spawn_scoped(scope, || self.ask_gateway_for_metrics(cancel));
            let statuses = self.manager(cancel).status_of_all(services);
            (statuses, asked.ok().and_then(|asked| asked.join().ok()).flatten().unwrap_or_default())
        })
    }

    /// Measures a running service.
    pub fn measure(&self, service: &ManagedService, status: &Status) -> ServiceMetrics {
        let process = status.pid.and_then(|pid| self.driver.identify(pid).ok()?);
        let holdings = process.map_or_else(Holdings::default, |process| self.driver.holdings(&process));
        let usage = status.usage.as_ref();
        ServiceMetrics {
            name: Arc::clone(&service.name),
            pid: status.pid.map(i64::from),
            cpu_percent: usage.map(|usage| tenths(usage.cpu_percent)),
            memory_bytes: usage.map(|usage| usage.memory_bytes),
            threads: holdings.threads,
            open_files: holdings.open_files,
            in_flight: None,
            tokens_per_second: None,
            first_token_ms: None,
            context_used: None,
            idle_left_s: None,
        }
    }

    /// Returns the metrics of a running gateway, which knows more of the requests. `None` without one.
    pub(super) fn ask_gateway_for_metrics(&self, cancel: &CancelToken) -> Option<Value> {
        let client =
            Client::with_timeout(&self.running_gateway(cancel)?, REQUEST_TIMEOUT).with_long_responses();
        let response = client.with_token(&self.config.gateway.token).get(METRICS_PATH).ok()?;
        (response.status == 200).then(|| response.json())
    }

    /// Returns the address of a running gateway.
    fn running_gateway(&self, cancel: &CancelToken) -> Option<Address> {
        if let Ok(Some(recorded)) = self.manager(cancel).running(self.gateway()) {
            return Some(recorded.address);
        }
        // The token goes to a gateway only, also where `serve` runs in the foreground.
        let address = self.gateway().address()?;
        let health = Client::with_timeout(&address, REQUEST_TIMEOUT).get(HEALTH_PATH).ok()?;
        (health.json()["service"] == "fusion").then_some(address)
    }
}

impl ServiceMetrics {
    /// Takes over what the gateway knows, in `metrics` of its own, of the requests to this service.
    fn learn(&mut self, metrics: &Value) {
        let Some(row) = row_of(metrics, &self.name, self.pid) else { return };
        self.in_flight = row["in_flight"].as_u64();
        self.tokens_per_second = row["tokens_per_second"].as_f64();
        self.first_token_ms = row["first_token_ms"].as_f64();
        self.context_used = row["context_used"].as_u64();
        self.idle_left_s = row["idle_left_s"].as_u64();
    }
}

/// Returns what the gateway tells of a service in its metrics.
pub(super) fn row_of<'a>(metrics: &'a Value, name: &str, pid: Option<i64>) -> Option<&'a Value> {
    // A gateway of another configuration may have a service of this name.
    let is_this = |row: &&Value| row["name"] == *name && row["pid"].as_i64() == pid;
    metrics["services"].as_array()?.iter().find(is_this)
}

impl MachineMetrics {
    pub fn now(meter: &mut CpuMeter) -> Self {
        let memory = machine::memory();
        let gpu = machine::gpu_memory();
        Self {
            cpu_percent: meter.percent().map(tenths),
            processors: machine::processors(),
            memory_bytes: memory.map(|memory| memory.total),
            memory_available_bytes: memory.map(|memory| memory.available),
            load_averages: machine::load_averages(),
            gpu_memory_bytes: gpu.map(|gpu| gpu.total),
            gpu_memory_used_bytes: gpu.and_then(|gpu| gpu.used),
        }
    }
}
