//! `top`: what each service does now, measured again and again.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use super::app::App;
use super::metrics;
use crate::core::cancel::CancelToken;
use crate::core::services::{ManagedService, ServiceError, State, Status};
use crate::core::timestamp::Timestamp;

/// All services at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopView {
    pub at: Timestamp,
    pub services: Vec<TopService>,
}

/// A service at one moment. Unknown values are null; the last five are, unless the gateway runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TopService {
    pub name: Arc<str>,
    /// Null if it could not be observed; `last_error` then says why.
    pub state: Option<State>,
    /// The loaded models.
    pub models: Option<Vec<String>>,
    /// Of the whole process tree.
    pub memory_bytes: Option<u64>,
    /// How much of the loaded models is on the GPU.
    pub gpu_percent: Option<u64>,
    /// Context length of the loaded model, in tokens.
    pub context: Option<u64>,
    /// Why it does not answer, or the last line of its log before it ended.
    pub last_error: Option<String>,
    /// Requests that are being answered.
    pub in_flight: Option<u64>,
    /// Tokens of the last request and its answer.
    pub context_used: Option<u64>,
    /// Of the last answer.
    pub tokens_per_second: Option<f64>,
    /// Of the last answer.
    pub first_token_ms: Option<f64>,
    /// Seconds until it is stopped if no request comes.
    pub idle_left_s: Option<u64>,
}

impl App {
    /// Observes the services, and asks a running gateway what it knows of their requests.
    pub fn top(&self, services: &[&ManagedService], cancel: &CancelToken) -> TopView {
        let (statuses, known) = self.observe(services, cancel);
        let row = |(service, status): (&&ManagedService, _)| row(service, status, &known);
        let services = services.iter().zip(statuses).map(row).collect();
        TopView { at: SystemTime::now().into(), services }
    }
}

fn row(service: &ManagedService, status: Result<Status, ServiceError>, known: &Value) -> TopService {
    let name = Arc::clone(&service.name);
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return TopService { name, last_error: Some(error.to_string()), ..TopService::default() };
        }
    };
    let gateway = metrics::row_of(known, &name, status.pid.map(i64::from)).unwrap_or(&Value::Null);
    TopService {
        name,
        state: Some(status.state),
        memory_bytes: status.usage.as_ref().map(|usage| usage.memory_bytes),
        gpu_percent: status.gpu_percent(),
        context: status.context,
        last_error: status.trouble.or(status.exited.and_then(|exited| exited.last_line)),
        models: status.models,
        in_flight: gateway["in_flight"].as_u64(),
        context_used: gateway["context_used"].as_u64(),
        tokens_per_second: gateway["tokens_per_second"].as_f64(),
        first_token_ms: gateway["first_token_ms"].as_f64(),
        idle_left_s: gateway["idle_left_s"].as_u64(),
    }
}
