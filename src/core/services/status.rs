//! `ps`: the full status of services.
//!
//! Writes nothing and takes no lock.

use std::borrow::Borrow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::observe::Observed;
use super::port::PortUse;
use super::probe::{Depth, ProbeResult};
use super::record::{Elsewhere, Record};
use super::service::{Endpoint, ManagedService, Origin, StartedBy};
use super::state::State;
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::config::RestartPolicy;
use crate::core::gpu::{GpuParts, GpuShare};
use crate::core::logs;
use crate::core::parallel;
use crate::core::process::{Listener, Pid, Usage};
use crate::core::runtimes::{Recognition, ServerFacts};

/// The status of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub service: Arc<str>,
    pub state: State,
    /// The pid of its process, if the system reports it.
    pub pid: Option<Pid>,
    /// The address where it responds, or would respond; `None` while it has no port yet.
    pub address: Option<Address>,
    /// Its CPU and memory use, if the system reports it.
    pub usage: Option<Usage>,
    /// The loaded models, if the server reports them.
    pub models: Option<Vec<String>>,
    /// The context length of the loaded model in tokens, if the server reports it.
    pub context: Option<u64>,
    /// The loaded models of which it is known how much is on the GPU.
    pub gpu_shares: Vec<GpuShare>,
    /// Its version, if the server reports it.
    pub version: Option<String>,
    pub log: PathBuf,
    /// What started it, if it is running.
    pub started_by: Option<StartedBy>,
    /// What the last probe found, if it does not respond as it should.
    pub trouble: Option<String>,
    /// Another process that listens on its port.
    pub other_listener: Option<Listener>,
    /// Where it was started, if that was on another host: this one cannot tell whether it runs there.
    pub elsewhere: Option<Elsewhere>,
    /// What the server left when it ended; `usage` is that of the first.
    pub orphans: Vec<Pid>,
    /// The parts in which a start now would differ from the recorded one, as far as they are known; `None` if in none.
    pub changes: Option<Vec<String>>,
    /// Whether it runs although the configuration has no table of it any longer.
    pub is_removed: bool,
    /// How it ended, as far as its log shows.
    pub exited: Option<Exited>,
    /// How often it was started again because it had ended by itself, if the gateway does that.
    pub restarts: Option<u64>,
}

impl Status {
    /// Returns how much of all loaded models is on the GPU, in percent, if it is known.
    pub fn gpu_percent(&self) -> Option<u64> {
        self.gpu_shares.iter().fold(GpuParts::default(), |sum, share| sum.and(share.parts)).percent()
    }
}

/// The end of a process that no command was waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// Time of its last log line. It ended then or later.
    pub last_sign: Option<SystemTime>,
    /// The last log line that is not blank.
    pub last_line: Option<String>,
}

/// Timeout of each request of `ps`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

impl ServiceManager<'_> {
    /// Returns the status of all services. Observes them at once, so one that hangs does not delay the others.
    pub fn status_of_all<S: Borrow<ManagedService> + Sync>(
        &self,
        services: &[S],
    ) -> Vec<Result<Status, ServiceError>> {
        // Kept from now on; otherwise, each of the first threads would read the files that tell it.
        let _ = self.driver.host();
        let ports = services.iter().filter_map(|service| Some(service.borrow().address()?.port));
        // To list all sockets costs as much as to list those of one port.
        let list = || self.driver.listening(&ports.collect::<Vec<u16>>());
        let sockets = if services.len() > 1 { list() } else { None };
        let manager = ServiceManager { sockets: sockets.as_ref(), ..*self };
        parallel::each(services, |_| false, |service| manager.status(service.borrow()))
    }

    /// Returns how much of each loaded model is on the GPU, as far as the server at `endpoint` tells.
    pub fn gpu_shares(&self, service: &ManagedService, endpoint: &Endpoint) -> Vec<GpuShare> {
        let told = service.runtime().and_then(|runtime| {
            let probe = runtime.gpu_probe()?;
            let response = Client::with_timeout(&endpoint.address, REQUEST_TIMEOUT)
                .with_long_responses()
                .get(probe.path);
            match (probe.read)(&response.ok()?) {
                Recognition::Ready(facts) => Some(facts.gpu_shares),
                _ => None,
            }
        });
        let model = endpoint.model.as_ref();
        let logged = model.and_then(|model| logged_gpu_share(service, model));
        told.into_iter().flatten().chain(logged).collect()
    }

    pub fn status(&self, service: &ManagedService) -> Result<Status, ServiceError> {
        let observed = self.observe(service, Depth { details: true, ..Depth::default() }, REQUEST_TIMEOUT)?;
        let facts = facts(service, &observed);
        let port = PortUse::of(&observed);
        let Observed { recorded, address, probe, listener, state } = observed;
        let runs = state.is_running();
        let ours = runs && recorded.process.is_some();
        let record = recorded.here();
        let pid = match (&recorded.process, &listener) {
            (Some(process), _) => Some(process.pid),
            (None, Listener::Other { pid, .. }) if runs => Some(*pid),
            (None, _) => None,
        };
        let process =
            recorded.process.clone().or_else(|| pid.and_then(|pid| self.driver.identify(pid).ok()?));
        let log = record.and_then(|record| record.log.clone()).unwrap_or(service.files.log.clone());
        Ok(Status {
            service: service.name.clone(),
            state,
            pid,
            usage: process.and_then(|process| self.driver.usage(&process)),
            models: facts.models,
            context: facts.context,
            gpu_shares: facts.gpu_shares,
            version: facts
                .version
                .or_else(|| record.filter(|_| ours).and_then(|record| record.version.clone())),
            started_by: runs.then_some(if ours || recorded.is_spawning {
                StartedBy::Fusion
            } else {
                StartedBy::Other
            }),
            trouble: matches!(state, State::Starting | State::Unhealthy).then(|| probe.words()),
            other_listener: (port == PortUse::InUse && state != State::External).then_some(listener),
            elsewhere: recorded.elsewhere().map(Record::elsewhere),
            changes: record.filter(|_| ours).and_then(|record| self.changes(service, record)),
            is_removed: service.origin == Origin::Removed,
            orphans: recorded.orphans.iter().map(|process| process.pid).collect(),
            restarts: record
                .filter(|_| service.server().restart == RestartPolicy::OnFailure)
                .map(|record| record.restarts),
            exited: (state == State::Exited).then(|| Exited {
                last_sign: std::fs::metadata(&log).and_then(|metadata| metadata.modified()).ok(),
                last_line: logs::last_line(&log).ok().flatten(),
            }),
            address,
            log,
        })
    }
}

/// Returns the facts that a ready server reports. For a server that reports no models, the recorded one stands in.
fn facts(service: &ManagedService, observed: &Observed) -> ServerFacts {
    let ProbeResult::Ready(facts) = &observed.probe else { return ServerFacts::default() };
    let mut facts = facts.clone();
    let record = observed.recorded.here().filter(|_| observed.state == State::Ready);
    facts.models = facts.models.or_else(|| Some(vec![record?.model.clone()?]));
    let model = record.and_then(|record| record.model.as_ref());
    facts.gpu_shares.extend(model.and_then(|model| logged_gpu_share(service, model)));
    facts
}

/// Returns how much of the model with which the server was started is on the GPU, if its log tells that.
fn logged_gpu_share(service: &ManagedService, model: &str) -> Option<GpuShare> {
    let read = service.runtime()?.gpu_share_in_log()?;
    let parts = read(&logs::beginning(&service.files.log).ok()?)?;
    Some(GpuShare { model: model.to_owned(), parts })
}
