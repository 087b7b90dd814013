//! The wait for a service to be ready: its death, its responses, the deadline and a cancellation are watched at once.

use std::time::{Duration, Instant};

use super::error::{ServiceError, StartFailure, StartFailureKind};
use super::lock::LockError;
use super::manager::ServiceManager;
use super::observe::recorded_endpoint;
use super::port::Responder;
use super::probe::{ProbeResult, Watch};
use super::record::Record;
use super::service::{ManagedService, Up, UpKind};
use super::state::State;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::logs;
use crate::core::process::{Child, Ending, Listener, Liveness, Pid, ProcessId};
use crate::core::runtimes::ServerFacts;

/// How many lines of the log a failure shows.
const TAIL_LINES: u64 = 20;

/// How often the process is checked while nothing else happens: at first more often, as most failures are early.
const FIRST_POLL_INTERVAL: Duration = Duration::from_millis(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long the first interval holds.
const FIRST_PHASE: Duration = Duration::from_millis(500);

/// How often an event tells that the wait goes on.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// After how long without a response the last one is out of date.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// What is known of a server while a probe goes on.
const UNANSWERED: &str = "it has not responded yet";

/// How often the system is asked who listens while the wrong responses come.
const LISTENER_INTERVAL: Duration = Duration::from_millis(500);

/// A start that is not finished.
pub(super) struct PendingStart {
    pub(super) record: Record,
    process: Tracked,
    /// Its state when this command found it; `None` if this command started it.
    found: Option<State>,
    timeout: Duration,
}

/// The processes whose life is watched.
enum Tracked {
    /// A child of this process.
    Child(Box<dyn Child>),
    /// Others of the instance: another command started them, or the child ended with 0 and left them behind.
    Others(Vec<ProcessId>),
}

/// Whether a service lives.
enum Life {
    Alive,
    /// It ended; how, if it was a child of this process.
    Ended(Option<Ending>),
}

/// Why a wait ended without success.
enum Unready {
    Died(Option<Ending>),
    TimedOut {
        last: String,
    },
    Broken(String),
    ModelMissing(String),
    PortInUse {
        listener: Listener,
        said: String,
    },
    /// The wait could not go on, or was cancelled.
    Stopped(ServiceError),
}

impl<E: Into<ServiceError>> From<E> for Unready {
    fn from(error: E) -> Self {
        Self::Stopped(error.into())
    }
}

impl PendingStart {
    pub(super) fn started(record: Record, child: Box<dyn Child>, timeout: Duration) -> Self {
        Self { record, process: Tracked::Child(child), found: None, timeout }
    }

    pub(super) fn found(record: Record, process: ProcessId, state: State, timeout: Duration) -> Self {
        Self { record, process: Tracked::Others(vec![process]), found: Some(state), timeout }
    }

    /// Returns the PID of the process that stands for the service.
    pub(super) fn pid(&self) -> Pid {
        self.process().pid
    }

    fn process(&self) -> ProcessId {
        match &self.process {
            Tracked::Child(child) => child.id().clone(),
            Tracked::Others(members) => members[0].clone(),
        }
    }

    pub(super) fn is_unhealthy(&self) -> bool {
        self.found == Some(State::Unhealthy)
    }

    pub(super) fn kind_without_waiting(&self) -> UpKind {
        match self.found {
            Some(State::Ready) => UpKind::AlreadyUp,
            _ => UpKind::Launched,
        }
    }
}

impl ServiceManager<'_> {
    /// Waits until the service is ready. One that this command started and that fails is stopped, and its record
    /// removed. One that was found is left as it is, and so is one that is ready while another command has the lock,
    /// for nothing is wrong with it.
    pub(super) fn wait(
        &self,
        service: &ManagedService,
        mut pending: PendingStart,
    ) -> Result<Up, ServiceError> {
        let since = Instant::now();
        let ready = match self.watch(service, &mut pending) {
            Ok(facts) => self.mark_ready(service, &pending, facts),
            Err(unready) => Err(self.failure(service, &pending, unready, since.elapsed())),
        };
        let Err(error) = ready else {
            let kind = if pending.found.is_some() { UpKind::AlreadyUp } else { UpKind::Started };
            return Ok(Up { endpoint: recorded_endpoint(&pending.record, pending.pid()), kind });
        };
        let is_held = matches!(error, ServiceError::Lock(LockError::Held { .. }));
        if pending.found.is_none() && !is_held {
            self.abandon(service, &pending.record)?;
        }
        Err(error)
    }

    fn watch(&self, service: &ManagedService, pending: &mut PendingStart) -> Result<ServerFacts, Unready> {
        let (since, deadline) = (Instant::now(), deadline(pending.timeout));
        let model = pending.record.model.clone().filter(|_| service.template.ready_needs_generation());
        let address = pending.record.address.clone();
        let mut watch = Watch::begin(service.template.clone(), address, model, deadline);
        let (mut reported, mut listener_checked) = (since, None);
        let (mut last, mut seen) = (UNANSWERED.to_owned(), since);
        loop {
            if let Life::Ended(ending) = self.life(pending)? {
                return Err(Unready::Died(ending));
            }
            self.cancel.check()?;
            let now = Instant::now();
            if now >= deadline {
                return Err(Unready::TimedOut { last });
            }
            if now - reported >= REPORT_INTERVAL {
                reported = now;
                self.emit(service, EventKind::Waiting { elapsed: now - since, last: last.clone() });
            }
            let interval = if now - since < FIRST_PHASE { FIRST_POLL_INTERVAL } else { POLL_INTERVAL };
            if let Some(probe) = watch.next(interval) {
                seen = now;
                last = probe.words();
                if let Some(facts) = self.judge(service, pending, probe, &mut listener_checked)? {
                    return Ok(facts);
                }
            } else if now - seen >= STALE_AFTER {
                UNANSWERED.clone_into(&mut last);
            }
        }
    }

    /// Judges whether a probe ends the wait. `listener_checked` is when the system was last asked who listens.
    fn judge(
        &self,
        service: &ManagedService,
        pending: &mut PendingStart,
        probe: ProbeResult,
        listener_checked: &mut Option<Instant>,
    ) -> Result<Option<ServerFacts>, Unready> {
        if matches!(probe, ProbeResult::NoConnection(_)) {
            return Ok(None);
        }
        let is_final =
            matches!(probe, ProbeResult::Ready(_) | ProbeResult::Broken(_) | ProbeResult::ModelMissing(_));
        if is_final || listener_checked.is_none_or(|then| then.elapsed() >= LISTENER_INTERVAL) {
            *listener_checked = Some(Instant::now());
            let responder = self.responder(service, &pending.record);
            // A response of ours counts only if ours still lives.
            if matches!(self.life(pending)?, Life::Ended(_)) {
                return Ok(None);
            }
            match responder {
                Responder::Ours => {}
                Responder::None => return Ok(None),
                Responder::Other(listener) => {
                    return Err(Unready::PortInUse { listener, said: probe.words() });
                }
            }
        }
        match probe {
            ProbeResult::Ready(facts) => Ok(Some(facts)),
            ProbeResult::Broken(said) => Err(Unready::Broken(said)),
            ProbeResult::ModelMissing(said) => Err(Unready::ModelMissing(said)),
            _ => Ok(None),
        }
    }

    /// Checks whether it lives. A child that ends with 0 and leaves others behind has put itself into the background:
    /// then those stand for the service.
    fn life(&self, pending: &mut PendingStart) -> Result<Life, ServiceError> {
        let ending = match &mut pending.process {
            Tracked::Child(child) => match child.try_wait()? {
                None => return Ok(Life::Alive),
                Some(Ending::Code(0)) => Some(Ending::Code(0)),
                Some(ending) => return Ok(Life::Ended(Some(ending))),
            },
            Tracked::Others(members) => {
                for member in members {
                    if self.driver.liveness(member)? == Liveness::Alive {
                        return Ok(Life::Alive);
                    }
                }
                None
            }
        };
        let mut members = self.driver.members(pending.record.as_instance())?;
        if members.is_empty() {
            return Ok(Life::Ended(ending));
        }
        members.sort_by_key(|member| member.start_time);
        pending.process = Tracked::Others(members);
        Ok(Life::Alive)
    }

    /// Records that it is ready, unless another command has stopped it meanwhile.
    fn mark_ready(
        &self,
        service: &ManagedService,
        pending: &PendingStart,
        facts: ServerFacts,
    ) -> Result<(), ServiceError> {
        if pending.record.ready && pending.record.process.as_ref() == Some(&pending.process()) {
            return Ok(());
        }
        let _lock = self.lock(service)?;
        match Record::read(&service.files.state)? {
            Some(mut record) if record.instance == pending.record.instance => {
                record.ready = true;
                record.process = Some(pending.process());
                record.version = facts.version.or(record.version);
                Ok(record.write(&service.files)?)
            }
            _ => Err(ServiceError::StoppedMeanwhile { service: service.name.clone() }),
        }
    }

    /// Returns why it is not ready, in full.
    fn failure(
        &self,
        service: &ManagedService,
        pending: &PendingStart,
        unready: Unready,
        after: Duration,
    ) -> ServiceError {
        let name = service.name.clone();
        let (pid, address) = (pending.pid(), pending.record.address.clone());
        let log = pending.record.log.clone().unwrap_or_else(|| service.files.log.clone());
        // A log that cannot be read has nothing to say; that is no reason to hide the failure.
        let tail = logs::tail_text(&log, TAIL_LINES).unwrap_or_default();
        let cause = service.template.explain_exit(&tail);
        let kind = match unready {
            Unready::Stopped(error) => return error,
            Unready::PortInUse { listener, said } => {
                return ServiceError::PortInUse { service: name, address, listener, said };
            }
            Unready::ModelMissing(said) => {
                let model = pending.record.model.clone().unwrap_or_default();
                return ServiceError::missing_model(service, &model, Some(said));
            }
            Unready::TimedOut { last } | Unready::Broken(last)
                if matches!(pending.found, Some(State::Ready | State::Unhealthy)) =>
            {
                return ServiceError::Unhealthy { service: name, pid, address, why: last };
            }
            Unready::TimedOut { last } => StartFailureKind::TimedOut { timeout: pending.timeout, last },
            Unready::Broken(said) => StartFailureKind::Broken { said },
            Unready::Died(_) if self.was_stopped(service, &pending.record) => {
                return ServiceError::StoppedMeanwhile { service: name };
            }
            Unready::Died(ending) => {
                // The port was free before the start: another process was quicker.
                if let Some(listener) = self.successor_on_port(&pending.record) {
                    let said = cause.unwrap_or_else(|| "another process listens there now".to_owned());
                    return ServiceError::PortInUse { service: name, address, listener, said };
                }
                StartFailureKind::Died { ending, after: pending.found.is_none().then_some(after) }
            }
        };
        ServiceError::Failed(Box::new(StartFailure { service: name, pid, kind, cause, tail, log }))
    }

    /// Returns whether another command stopped the instance: it holds the lock until it has removed the record.
    fn was_stopped(&self, service: &ManagedService, record: &Record) -> bool {
        let _lock = self.lock(service);
        match Record::read(&service.files.state) {
            Ok(now) => now.is_none_or(|now| now.instance != record.instance),
            Err(_) => false,
        }
    }

    /// Stops what this command had started and gives up, and removes its record. It may stop its own instance even
    /// when the lock cannot be had; then the record stays for the command that has the lock.
    fn abandon(&self, service: &ManagedService, record: &Record) -> Result<(), ServiceError> {
        match self.uncancellable(&CancelToken::new()).lock(service) {
            Ok(_lock) => self.abandon_locked(service, record),
            Err(_) => self.stop_abandoned(service, record),
        }
    }

    /// Like [`Self::abandon`], for a caller that holds the lock.
    pub(super) fn abandon_locked(
        &self,
        service: &ManagedService,
        record: &Record,
    ) -> Result<(), ServiceError> {
        self.stop_abandoned(service, record)?;
        match Record::read(&service.files.state) {
            Ok(Some(now)) if now.instance != record.instance => Ok(()),
            _ => Ok(Record::remove(&service.files)?),
        }
    }

    fn stop_abandoned(&self, service: &ManagedService, record: &Record) -> Result<(), ServiceError> {
        let stop_timeout = service.server().stop_timeout;
        let never = CancelToken::new();
        self.uncancellable(&never).stop_processes(service, record, stop_timeout, false).map(drop)
    }
}

/// Returns when a wait ends that begins now. A timeout beyond what the clock can hold is as good as a century.
pub(super) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600))
}
