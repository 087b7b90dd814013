//! `up`: observe, decide, act; then wait until the service is ready.

use std::time::{Duration, Instant, SystemTime};

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::observe::{Observed, PROBE_TIMEOUT, Recorded, recorded_endpoint};
use super::plan::StartPlan;
use super::port::PortUse;
use super::ports;
use super::probe::{Depth, ProbeResult, Watch};
use super::record::Record;
use super::service::{ManagedService, Origin, Up, UpKind, UpOptions};
use super::state::State;
use super::wait::{PendingStart, deadline};
use crate::core::address::Address;
use crate::core::config::GATEWAY;
use crate::core::events::EventKind;
use crate::core::events::chain;
use crate::core::logs::rotator::{self, LogRotator};
use crate::core::logs::{self, Limits};
use crate::core::process::ProcessId;

/// How long a server that fusion did not start may take to generate one token.
const EXTERNAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a service that was ready before may not respond before `up` fails.
const UNHEALTHY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often cancellation is checked while an external server generates.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What `up` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Start,
    /// Wait until a service that is ready or starting is ready.
    WaitForReady,
    /// Wait briefly for a service that was ready before and does not respond.
    WaitForRecovery,
    /// Stop the processes that outlive the recorded one, then decide again.
    StopOrphans,
    /// Check that a server that fusion did not start works.
    VerifyExternal,
    /// Report that another process listens on the port.
    RefusePort,
    /// Report that the service was started on another host.
    RefuseElsewhere,
}

/// Which processes of the recorded instance are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Living {
    Nothing,
    /// The recorded process.
    Process,
    /// Only processes that the recorded one started.
    Orphans,
    /// The recorded process was started on another host, about which this one knows nothing.
    Elsewhere,
}

fn decide(state: State, living: Living, port: PortUse) -> Action {
    match (state, living, port) {
        (State::Ready | State::Starting, Living::Process | Living::Orphans, _) => Action::WaitForReady,
        (State::Unhealthy, Living::Orphans, _) => Action::StopOrphans,
        (State::Unhealthy, Living::Process, PortUse::Closed | PortUse::Open) => Action::WaitForRecovery,
        (State::External, ..) => Action::VerifyExternal,
        (_, Living::Elsewhere, PortUse::Closed) => Action::RefuseElsewhere,
        (_, _, PortUse::Closed) => Action::Start,
        (_, _, PortUse::Open | PortUse::InUse) => Action::RefusePort,
    }
}

fn living(recorded: &Recorded) -> Living {
    match (&recorded.record, &recorded.process) {
        _ if recorded.is_elsewhere => Living::Elsewhere,
        (Some(_), Some(_)) if !recorded.orphans.is_empty() => Living::Orphans,
        (Some(_), Some(_)) => Living::Process,
        _ => Living::Nothing,
    }
}

/// What a command does after it has released the lock.
pub(super) enum Next {
    Wait(Box<PendingStart>),
    /// Check that a server that fusion did not start works.
    Verify(Box<Observed>),
}

impl ServiceManager<'_> {
    /// Starts the service if it is not running, and waits until it is ready (except with `no_wait`).
    pub fn up(&self, service: &ManagedService, options: &UpOptions) -> Result<Up, ServiceError> {
        self.adopting(|| {
            let lock = self.lock(service)?;
            let next = self.begin_up(service, options)?;
            drop(lock);
            self.finish_up(service, options, next)
        })
    }

    /// Does `work` while this process adopts what a server leaves that puts itself into the background.
    pub(super) fn adopting<T>(&self, work: impl FnOnce() -> T) -> T {
        self.driver.begin_adopting();
        let done = work();
        self.driver.end_adopting();
        done
    }

    /// Decides what to do, and starts the service if it must. The caller holds the lock.
    pub(super) fn begin_up(
        &self,
        service: &ManagedService,
        options: &UpOptions,
    ) -> Result<Next, ServiceError> {
        loop {
            let timeout = options.timeout.map_or(PROBE_TIMEOUT, |timeout| timeout.min(PROBE_TIMEOUT));
            let observed =
                self.observe_recorded(service, self.settled_record(service)?, Depth::default(), timeout);
            let action = decide(observed.state, living(&observed.recorded), PortUse::of(&observed));
            let Recorded { record, process, is_adopted, .. } = observed.recorded.clone();
            if let Some(record) = record.as_ref().filter(|_| is_adopted) {
                record.write(&service.files)?;
            }
            let chooses_port =
                service.server().port.is_none() && living(&observed.recorded) == Living::Nothing;
            // A start warns of the address that it has chosen, and another decision follows the stop of orphans.
            let comes_later = matches!(action, Action::Start | Action::StopOrphans)
                || action == Action::RefusePort && chooses_port;
            if let Some(address) = observed.address.as_ref().filter(|_| !comes_later) {
                self.warn_of_exposure(service, address);
            }
            let pending = match (action, record, process) {
                (Action::StopOrphans, Some(record), _) => {
                    self.stop_orphans(service, &record)?;
                    continue;
                }
                (Action::WaitForReady, Some(record), Some(process)) => {
                    self.found_running(service, &record, &process)?;
                    let configured = record.startup_timeout(service.server().startup_timeout);
                    let timeout = options.timeout.unwrap_or(configured);
                    PendingStart::found(record, process, observed.state, timeout)
                }
                (Action::WaitForRecovery, Some(record), Some(process)) => {
                    let timeout = options.timeout.unwrap_or(UNHEALTHY_TIMEOUT);
                    PendingStart::found(record, process, observed.state, timeout)
                }
                (Action::RefuseElsewhere, Some(record), _) => {
                    return Err(ServiceError::elsewhere(service, &record));
                }
                (Action::VerifyExternal, ..) => return Ok(Next::Verify(Box::new(observed))),
                // A port that was chosen before may be in use now: another one is chosen.
                (Action::RefusePort, ..) if !chooses_port => return Err(self.in_use(service, observed)),
                _ => self.start(service, options)?,
            };
            return Ok(Next::Wait(Box::new(pending)));
        }
    }

    /// Waits until the service is ready, unless `no_wait` is set. The caller has released the lock.
    pub(super) fn finish_up(
        &self,
        service: &ManagedService,
        options: &UpOptions,
        next: Next,
    ) -> Result<Up, ServiceError> {
        match next {
            // Only a wait shows whether an unhealthy service recovers.
            Next::Wait(pending) if options.no_wait && !pending.is_unhealthy() => {
                let endpoint = recorded_endpoint(&pending.record, pending.pid());
                Ok(Up { endpoint, kind: pending.kind_without_waiting() })
            }
            Next::Wait(pending) => self.wait(service, *pending),
            Next::Verify(observed) => {
                if !options.no_wait {
                    self.verify_external(service, &observed, options.timeout.unwrap_or(EXTERNAL_TIMEOUT))?;
                }
                match observed.external_endpoint() {
                    Some(endpoint) => Ok(Up { endpoint, kind: UpKind::External }),
                    None => Err(self.in_use(service, *observed)),
                }
            }
        }
    }

    /// Warns that other machines can reach the server: it has no authentication.
    fn warn_of_exposure(&self, service: &ManagedService, address: &Address) {
        // The gateway refuses to start there without a token.
        if !address.is_loopback() && *service.name != *GATEWAY {
            self.emit(service, EventKind::Exposed { address: address.clone() });
        }
    }

    /// Reports a changed configuration or a deleted log, and starts a log rotator if none runs.
    fn found_running(
        &self,
        service: &ManagedService,
        record: &Record,
        process: &ProcessId,
    ) -> Result<(), ServiceError> {
        if let Some(parts) = self.changes(service, record) {
            self.emit(service, EventKind::ConfigurationChanged { parts });
        }
        if let Some(log) = record.log.as_ref().filter(|log| !log.exists()) {
            self.emit(service, EventKind::LogDeleted { log: log.clone() });
        } else if rotator::find(self.driver, record.instance.as_str())?.is_empty() {
            self.rotate_log(service, record, process);
        }
        Ok(())
    }

    /// Checks that a ready server that fusion did not start can generate.
    fn verify_external(
        &self,
        service: &ManagedService,
        observed: &Observed,
        timeout: Duration,
    ) -> Result<(), ServiceError> {
        let resident_model = service.runtime().and_then(super::super::runtimes::Runtime::resident_model);
        let Some(model) = resident_model.filter(|_| service.template.ready_needs_generation()) else {
            return Ok(());
        };
        let deadline = deadline(timeout);
        let Some(address) = observed.address.clone() else { return Ok(()) };
        let template = service.template.clone();
        let mut watch = Watch::begin(template, address, Some(model.to_owned()), deadline);
        let mut probe = ProbeResult::NotGenerated;
        // Its model may still be loading.
        while matches!(probe, ProbeResult::NotGenerated | ProbeResult::NotReady(_) | ProbeResult::NoResponse)
            && Instant::now() < deadline
        {
            self.cancel.check()?;
            probe = watch.next(POLL_INTERVAL).unwrap_or(probe);
        }
        match probe {
            ProbeResult::Ready(_) => Ok(()),
            // A server started without a model loads the one that a request names.
            ProbeResult::ModelMissing(message) | ProbeResult::Broken(message) => {
                self.emit(service, EventKind::ExternalWithoutModel { message });
                Ok(())
            }
            probe => Err(self.in_use(service, Observed { probe, ..observed.clone() })),
        }
    }

    fn stop_orphans(&self, service: &ManagedService, record: &Record) -> Result<(), ServiceError> {
        self.emit(service, EventKind::Orphaned);
        self.stop_processes(service, record, service.server().stop_timeout, false)?;
        Ok(Record::remove(&service.files)?)
    }

    /// Fails if the configuration has no table of the service any longer.
    pub(super) fn check_is_configured(service: &ManagedService) -> Result<(), ServiceError> {
        match service.origin {
            Origin::Removed => Err(ServiceError::NotConfigured { service: service.name.clone() }),
            Origin::BuiltIn | Origin::Instance => Ok(()),
        }
    }

    fn start(&self, service: &ManagedService, options: &UpOptions) -> Result<PendingStart, ServiceError> {
        Self::check_is_configured(service)?;
        for other in self.config.sharing_address_of(&service.name) {
            let (address, other) = (other.address, other.service);
            self.emit(service, EventKind::AddressShared { address, other });
        }
        let choice = self.lock_choice_of_port(service)?;
        let address = self.address_for_start(service)?;
        self.warn_of_exposure(service, &address);
        self.check_port_is_free(service, &address)?;
        let StartPlan { spec, mut record, preset } =
            self.plan(service, &address, options.model.as_deref(), SystemTime::now())?;
        let milliseconds = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        record.startup_timeout_ms = options.timeout.map(milliseconds);
        record.host = Some(self.driver.host()?);
        record.on_demand = options.on_demand;
        record.restarts = options.restarts;
        // If fusion crashes after this write, the instance id in the record finds the process.
        ports::keep(service, &address)?;
        record.write(&service.files)?;
        drop(choice);
        let spawned = logs::rotate(&service.files.log, service.server().log_keep)
            .and_then(|()| preset.map_or(Ok(()), |preset| preset.write()))
            .map_err(ServiceError::from)
            .and_then(|()| Ok(self.driver.spawn(&spec)?));
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                Record::remove(&service.files)?;
                return Err(error);
            }
        };
        let process = child.id().clone();
        record.process = Some(process.clone());
        let timeout = options.timeout.unwrap_or(service.server().startup_timeout);
        let pending = PendingStart::started(record, child, timeout);
        if let Err(error) = pending.record.write(&service.files) {
            // Without a record no command finds the process.
            self.abandon_locked(service, &pending.record)?;
            return Err(error.into());
        }
        let names: Vec<String> =
            self.handed_on(service).iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        if !names.is_empty() {
            self.emit(service, EventKind::HandedOn { names });
        }
        self.emit(service, EventKind::Started { pid: process.pid });
        self.rotate_log(service, &pending.record, &process);
        Ok(pending)
    }

    /// Starts the log rotator, which limits the size of the log.
    fn rotate_log(&self, service: &ManagedService, record: &Record, process: &ProcessId) {
        let Some(fusion) = &self.environment.program else { return };
        let rotator = LogRotator {
            log: service.files.log.clone(),
            limits: Limits::from(service.server()),
            instance: record.instance.as_str().to_owned(),
            leader: process.clone(),
        };
        if let Err(error) = self.driver.spawn(&rotator.process(fusion, &service.files.directory)) {
            self.emit(service, EventKind::LogNotRotated { error: chain(&error) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_decides_for_every_observation() {
        use Action::{
            RefuseElsewhere, RefusePort, Start, StopOrphans, VerifyExternal, WaitForReady, WaitForRecovery,
        };
        for living in [Living::Nothing, Living::Process, Living::Orphans, Living::Elsewhere] {
            for port in [PortUse::Closed, PortUse::Open, PortUse::InUse] {
                let is_elsewhere = living == Living::Elsewhere;
                let without_process = match port {
                    PortUse::Closed if is_elsewhere => RefuseElsewhere,
                    PortUse::Closed => Start,
                    _ => RefusePort,
                };
                let is_alive = matches!(living, Living::Process | Living::Orphans);
                let unhealthy = match (living, port) {
                    (Living::Nothing | Living::Elsewhere, _) => without_process,
                    (Living::Orphans, _) => StopOrphans,
                    (Living::Process, PortUse::InUse) => RefusePort,
                    (Living::Process, _) => WaitForRecovery,
                };
                for (state, expected) in [
                    (State::Stopped, without_process),
                    (State::Exited, without_process),
                    (State::Ready, if is_alive { WaitForReady } else { without_process }),
                    (State::Starting, if is_alive { WaitForReady } else { without_process }),
                    (State::Unhealthy, unhealthy),
                    (State::External, VerifyExternal),
                ] {
                    assert_eq!(decide(state, living, port), expected, "{state:?} {living:?} {port:?}");
                }
            }
        }
    }
}
