//! `ps`: what a service is doing, in full. Writes nothing and takes no lock.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::observe::Observed;
use super::probe::ProbeResult;
use super::service::{ManagedService, StartedBy};
use super::state::State;
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::logs;
use crate::core::process::{Listener, Pid, Usage};
use crate::core::runtimes::{Recognition, ServerFacts};

/// What a service is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Its name.
    pub service: Arc<str>,
    /// The verdict.
    pub state: State,
    /// Its process, where the system tells.
    pub pid: Option<Pid>,
    /// Where it answers, or would.
    pub address: Address,
    /// What it uses, where the system tells.
    pub usage: Option<Usage>,
    /// The models that are loaded now, where it tells.
    pub models: Option<Vec<String>>,
    /// The context of what is loaded, in tokens, where it tells.
    pub context: Option<u64>,
    /// Its version, where it tells.
    pub version: Option<String>,
    /// Where its log is.
    pub log: PathBuf,
    /// Who started it, if it runs.
    pub started_by: Option<StartedBy>,
    /// What the last probe found, in words, when it does not answer as it should.
    pub trouble: Option<String>,
    /// Another process that listens on its port.
    pub other_listener: Option<Listener>,
    /// It would be started differently now.
    pub configuration_changed: bool,
    /// What is known of its end.
    pub exited: Option<Exited>,
}

/// What is known of the end of a process that no command was waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// When it last wrote to its log: it ended then or later.
    pub last_sign: Option<SystemTime>,
    /// The last line of its log that is not blank.
    pub last_line: Option<String>,
}

/// Timeout of a request of `ps`.
const TIMEOUT: Duration = Duration::from_secs(1);

impl ServiceManager<'_> {
    /// Observes all of the services at once, so that one that hangs does not delay the others.
    pub fn status_of_all(&self, services: &[ManagedService]) -> Vec<Result<Status, ServiceError>> {
        std::thread::scope(|scope| {
            // The first is observed on this thread: most often there is at most one other.
            let others = services.get(1..).unwrap_or_default();
            let handles: Vec<_> =
                others.iter().map(|service| scope.spawn(move || self.status(service))).collect();
            let first = services.first().map(|service| self.status(service));
            let others = handles.into_iter().map(|handle| match handle.join() {
                Ok(status) => status,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            first.into_iter().chain(others).collect()
        })
    }

    /// Observes one service.
    pub fn status(&self, service: &ManagedService) -> Result<Status, ServiceError> {
        let observed = self.observe(service, TIMEOUT)?;
        let facts = facts(service, &observed);
        let Observed { recorded, address, probe, listener, state } = observed;
        let runs = state.is_running();
        let ours = runs && recorded.process.is_some();
        let record = recorded.record.as_ref();
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
            version: facts
                .version
                .or_else(|| record.filter(|_| ours).and_then(|record| record.version.clone())),
            started_by: runs.then_some(if ours || recorded.is_spawning {
                StartedBy::Fusion
            } else {
                StartedBy::Other
            }),
            trouble: matches!(state, State::Starting | State::Unhealthy).then(|| probe.words()),
            other_listener: (listener.is_other() && state != State::External).then_some(listener),
            configuration_changed: ours
                && record.is_some_and(|record| self.has_changed(service, record) == Some(true)),
            exited: (state == State::Exited).then(|| Exited {
                last_sign: std::fs::metadata(&log).and_then(|metadata| metadata.modified()).ok(),
                last_line: logs::last_line(&log).ok().flatten(),
            }),
            address,
            log,
        })
    }
}

/// Returns what a server that answers tells of itself. A server of fusion's own that does not tell has the model loaded
/// that fusion last had it load.
fn facts(service: &ManagedService, observed: &Observed) -> ServerFacts {
    let ProbeResult::Ready(facts) = &observed.probe else { return ServerFacts::default() };
    let mut facts = facts.clone();
    for request in service.template.detail_probes() {
        let client = Client::with_timeout(&observed.address, TIMEOUT).with_long_responses();
        if let Ok(response) = client.get(request.path)
            && let Recognition::Ready(more) = (request.read)(&response)
        {
            facts.models = more.models.or(facts.models);
            facts.version = more.version.or(facts.version);
            facts.context = more.context.or(facts.context);
        }
    }
    let model = observed.recorded.record.as_ref().filter(|_| observed.state == State::Ready);
    facts.models = facts.models.or_else(|| Some(vec![model?.model.clone()?]));
    facts
}
