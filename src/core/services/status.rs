//! `ps`: what a service is doing, in full. Writes nothing and takes no lock.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::observe::Observed;
use super::ready::Sight;
use super::{ManagedService, ServiceError, ServiceManager, StartedBy, State};
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::logs;
use crate::core::process::{Listener, Pid, Usage};
use crate::core::runtimes::{Answer, ServerFacts};

/// What a service is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The runtime.
    pub runtime: &'static str,
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
    /// Its version, where it tells.
    pub version: Option<String>,
    /// Where its log is.
    pub log: PathBuf,
    /// Who started it, if it runs.
    pub started_by: Option<StartedBy>,
    /// What the last look found, in words, when it does not answer as it should.
    pub trouble: Option<String>,
    /// Somebody else who has its address.
    pub intruder: Option<Listener>,
    /// It would be started differently now.
    pub configuration_changed: bool,
    /// What is known of its end.
    pub exited: Option<Exited>,
}

/// What is known of the end of a process that nobody was waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// When it last wrote to its log: it ended then or later.
    pub last_sign: Option<SystemTime>,
    /// The last line of its log that is not blank.
    pub last_line: Option<String>,
}

/// How long a request of `ps` may take.
const LIMIT: Duration = Duration::from_secs(1);

impl ServiceManager<'_> {
    /// Looks at every one of the services at once, so that one that hangs delays none of the others.
    pub fn status_of_all(&self, services: &[ManagedService<'_>]) -> Vec<Result<Status, ServiceError>> {
        std::thread::scope(|scope| {
            // The first is looked at here: most often there is no more than one other.
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

    /// Looks at one service.
    pub fn status(&self, service: &ManagedService<'_>) -> Result<Status, ServiceError> {
        let observed = self.observe(service, LIMIT)?;
        let facts = facts(service, &observed);
        let Observed { past, address, sight, listener, state } = observed;
        let runs = !matches!(state, State::Stopped | State::Exited);
        let ours = runs && past.process.is_some();
        let record = past.record.as_ref();
        let pid = match (&past.process, &listener) {
            (Some(process), _) => Some(process.pid),
            (None, Listener::Other { pid, .. }) if runs => Some(*pid),
            (None, _) => None,
        };
        let process = past.process.clone().or_else(|| pid.and_then(|pid| self.driver.identify(pid).ok()?));
        let log = record.and_then(|record| record.log.clone()).unwrap_or(service.files.log.clone());
        Ok(Status {
            runtime: service.runtime.name(),
            state,
            pid,
            usage: process.and_then(|process| self.driver.usage(&process)),
            models: facts.models,
            version: facts
                .version
                .or_else(|| record.filter(|_| ours).and_then(|record| record.version.clone())),
            started_by: runs.then_some(if ours || past.in_the_making {
                StartedBy::Fusion
            } else {
                StartedBy::Other
            }),
            trouble: matches!(state, State::Starting | State::Unhealthy).then(|| sight.words()),
            intruder: (listener.is_other() && state != State::External).then_some(listener),
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

/// What a server that answers tells of itself. Where it does not tell, one of fusion's own has the model loaded that
/// fusion last had it load.
fn facts(service: &ManagedService<'_>, observed: &Observed) -> ServerFacts {
    let Sight::Ready(facts) = &observed.sight else { return ServerFacts::default() };
    let mut facts = facts.clone();
    if let Some(probe) = service.runtime.detail_probe()
        && let Ok(reply) = Client::with_limit(&observed.address, LIMIT).get(probe.path)
        && let Answer::Ready(more) = (probe.read)(reply.status, &reply.body)
    {
        facts.models = more.models.or(facts.models);
        facts.version = more.version.or(facts.version);
    }
    let model = observed.past.record.as_ref().filter(|_| observed.state == State::Ready);
    facts.models = facts.models.or_else(|| Some(vec![model?.model.clone()?]));
    facts
}
