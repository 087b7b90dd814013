//! Waits until a service is ready, and watches its processes, its responses, the deadline and cancellation.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{ServiceError, StartFailure, StartFailureKind};
use super::lock::ServiceLockError;
use super::manager::ServiceManager;
use super::observe::recorded_endpoint;
use super::probe::{ProbeResult, Watch};
use super::record::Record;
use super::service::{ManagedService, Up, UpKind};
use super::state::State;
use crate::core::address::Address;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::logs;
use crate::core::machine;
use crate::core::order;
use crate::core::process::{Child, Ending, Instance, Listener, Liveness, Pid, ProcessId};
use crate::core::runtimes::{Runtime, ServerFacts};

/// Number of log lines in a failure.
const TAIL_LINES: u64 = 20;

/// How often the processes are checked: more often at first, because most failures are early.
const FIRST_POLL_INTERVAL: Duration = Duration::from_millis(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long `FIRST_POLL_INTERVAL` applies.
const EARLY_PHASE: Duration = Duration::from_millis(500);

/// How often an event reports that the wait continues.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Age after which the last response no longer describes the server.
const MAX_RESPONSE_AGE: Duration = Duration::from_secs(1);

/// The description of a server that has not responded yet.
const NO_RESPONSE_YET: &str = "it has not responded yet";

/// How long the first process of a service that puts itself into the background may outlive its first response.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// How often the listener is looked up while another program responds.
const LISTENER_INTERVAL: Duration = Duration::from_millis(500);

/// A start that is not finished.
pub(super) struct PendingStart {
    pub(super) record: Record,
    process: Tracked,
    /// The state in which this command found the service; `None` if this command started it.
    found: Option<State>,
    timeout: Duration,
}

/// The processes that the wait watches.
enum Tracked {
    Child(Box<dyn Child>),
    /// Processes of the instance that another command started, or that a child left when it exited with 0.
    Others(Vec<ProcessId>),
}

/// Whether a service is alive.
enum Life {
    Alive,
    /// It ended. The ending is known only for a child of this process.
    Ended(Option<Ending>),
}

enum Unready {
    Died(Option<Ending>),
    TimedOut {
        last: String,
    },
    Broken(String),
    ModelMissing(String),
    /// The wait failed, was cancelled, or found the port in use by another process.
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

    /// Returns the pid of the process that represents the service.
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
    /// Waits until the service is ready. If this command started the service and the start fails, stops it and
    /// removes its record. A service that another command started is never stopped here. A ready service also stays
    /// while another command holds the lock.
    pub(super) fn wait(
        &self,
        service: &ManagedService,
        mut pending: PendingStart,
    ) -> Result<Up, ServiceError> {
        let since = Instant::now();
        let ready = match self.watch(service, &mut pending) {
            Ok(facts) => self.mark_ready(service, &mut pending, facts),
            Err(unready) => Err(self.failure(service, &pending, unready, since.elapsed())),
        };
        let Err(error) = ready else {
            let kind = if pending.found.is_some() { UpKind::AlreadyUp } else { UpKind::Started };
            if kind == UpKind::Started {
                for notice in self.variable_notices(service) {
                    self.emit(service, EventKind::Variable { notice });
                }
            }
            return Ok(Up { endpoint: recorded_endpoint(&pending.record, pending.pid()), kind });
        };
        let is_held = matches!(error, ServiceError::Lock(ServiceLockError::Held { .. }));
        if pending.found.is_none() && !is_held {
            self.claim_background(&mut pending);
            self.abandon(service, &pending.record)?;
        }
        Err(error)
    }

    fn watch(&self, service: &ManagedService, pending: &mut PendingStart) -> Result<ServerFacts, Unready> {
        let (since, deadline) = (Instant::now(), deadline(pending.timeout));
        let resident = || service.runtime().and_then(Runtime::resident_model).map(str::to_owned);
        let model = pending.record.model.clone().or_else(resident);
        let model = model.filter(|_| service.template.ready_needs_generation());
        let address = pending.record.address.clone();
        let mut watch = Watch::begin(service.template.clone(), address, model, deadline);
        let (mut reported, mut listener_checked) = (since, None);
        let (mut last, mut seen) = (NO_RESPONSE_YET.to_owned(), since);
        let mut is_wrong = false;
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
                // A server that cannot write its log may fail at every request.
                if is_wrong && machine::is_full(&Self::log_of(service, &pending.record)) {
                    return Err(Unready::Broken(last));
                }
                self.emit(service, EventKind::Waiting { elapsed: now - since, last: last.clone() });
            }
            let interval = if now - since < EARLY_PHASE { FIRST_POLL_INTERVAL } else { POLL_INTERVAL };
            if let Some(probe) = watch.next(interval) {
                seen = now;
                last = probe.words();
                is_wrong = matches!(probe, ProbeResult::OtherProgram(_));
                if let Some(facts) = self.judge(service, pending, probe, &mut listener_checked)? {
                    return Ok(facts);
                }
            } else if now - seen >= MAX_RESPONSE_AGE {
                NO_RESPONSE_YET.clone_into(&mut last);
            }
        }
    }

    /// Decides whether a probe ends the wait. `listener_checked` is the time of the last listener lookup.
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
            let asked = pending.process();
            let listener = self.own_listener(service, &pending.record, &probe).or_else(|error| {
                self.adopted_listener(pending).map(|process| Listener::Ours { pid: process.pid }).ok_or(error)
            });
            // The response counts only if the process of this instance is alive. If the service has put itself into the
            // background meanwhile, the next probe is compared with the process that it left.
            if matches!(self.life(pending)?, Life::Ended(_)) || pending.process() != asked {
                return Ok(None);
            }
            match listener? {
                // The next probe shows the change.
                Listener::None => return Ok(None),
                Listener::Ours { pid } if is_final => self.await_background(pending, pid)?,
                _ => {}
            }
            // What a first process left that has ended just now was not to be found as its descendant.
            if matches!(&pending.process, Tracked::Child(child) if child.try_wait()?.is_some()) {
                return Ok(None);
            }
        }
        match probe {
            ProbeResult::Ready(facts) => Ok(Some(facts)),
            ProbeResult::Broken(message) => Err(Unready::Broken(message)),
            ProbeResult::ModelMissing(message) => Err(Unready::ModelMissing(message)),
            _ => Ok(None),
        }
    }

    /// Checks whether the service is alive. A child that exits with 0 and leaves processes has become a background
    /// service: those processes then represent it.
    fn life(&self, pending: &mut PendingStart) -> Result<Life, ServiceError> {
        let ending = match &mut pending.process {
            Tracked::Child(child) => match child.try_wait()? {
                None => return Ok(Life::Alive),
                Some(Ending::Code(0)) => Some(Ending::Code(0)),
                Some(ending) => return Ok(Life::Ended(Some(ending))),
            },
            Tracked::Others(members) => {
                for at in 0..members.len() {
                    if self.driver.liveness(&members[at])? == Liveness::Alive {
                        // One that has ended represents the service no longer.
                        members.drain(..at);
                        pending.record.process = members.first().cloned();
                        return Ok(Life::Alive);
                    }
                }
                None
            }
        };
        let mut members = self.driver.members(pending.record.as_instance())?;
        if members.is_empty() {
            return self.life_in_background(pending, ending);
        }
        order::sort_by_key(&mut members, |member| member.start_time);
        // It may overwrite its environment, and with it the mark by which it was found.
        pending.record.process = members.first().cloned();
        pending.process = Tracked::Others(members);
        Ok(Life::Alive)
    }

    /// Waits until the first process has ended, if it started a listener in a session of its own: such a service puts
    /// itself into the background. Its first process may end later than its first response, and then nothing leads from
    /// the one process to the other. After a while, the listener is remembered beside it.
    fn await_background(&self, pending: &mut PendingStart, listener: Pid) -> Result<(), Unready> {
        let since = Instant::now();
        loop {
            let Tracked::Child(child) = &pending.process else { return Ok(()) };
            let background = self.background(child.id(), listener, &pending.record.address)?;
            let Some(process) = background else { return Ok(()) };
            match self.life(pending)? {
                Life::Alive => {}
                Life::Ended(Some(Ending::Code(0))) => {
                    pending.record.process = Some(process.clone());
                    pending.process = Tracked::Others(vec![process]);
                    return Ok(());
                }
                Life::Ended(ending) => return Err(Unready::Died(ending)),
            }
            if since.elapsed() >= LEAVE_TIME {
                pending.record.background = Some(process);
                return Ok(());
            }
            self.cancel.check()?;
            std::thread::sleep(FIRST_POLL_INTERVAL);
        }
    }

    /// Returns the process in the background that listens for `first`, whether or not that holds its socket, too.
    fn background(
        &self,
        first: &ProcessId,
        listener: Pid,
        address: &Address,
    ) -> Result<Option<ProcessId>, ServiceError> {
        let listener = if listener == first.pid {
            self.driver.background_listener(address, first)
        } else {
            Some(listener)
        };
        let Some(listener) = listener else { return Ok(None) };
        Ok(self.driver.identify(listener)?.filter(|process| !self.driver.is_in_group(process, first)))
    }

    /// Checks whether a child that exited with 0 has left a process that listens for it, although no mark of the
    /// instance is left in it.
    fn life_in_background(
        &self,
        pending: &mut PendingStart,
        ending: Option<Ending>,
    ) -> Result<Life, ServiceError> {
        let adopted = match ending {
            Some(Ending::Code(0)) => self.driver.adopted(&pending.process())?,
            _ => Vec::new(),
        };
        if adopted.is_empty() {
            return Ok(Life::Ended(ending));
        }
        // It may not listen yet.
        if let Some(process) = self.adopted_listener(pending) {
            pending.record.process = Some(process.clone());
            pending.process = Tracked::Others(vec![process]);
        }
        Ok(Life::Alive)
    }

    /// Returns the process that listens for a child of this process, which has left it and which this process has
    /// adopted.
    fn adopted_listener(&self, pending: &PendingStart) -> Option<ProcessId> {
        let Tracked::Child(child) = &pending.process else { return None };
        let id = pending.record.instance.as_str();
        self.driver.adopted(child.id()).ok()?.into_iter().find(|process| {
            let instance = Instance { id, leader: Some(process) };
            let listener = self.driver.listener(&pending.record.address, Some(instance));
            matches!(listener, Ok(Listener::Ours { .. }))
        })
    }

    /// Makes the cleanup find a process in the background that never listened.
    fn claim_background(&self, pending: &mut PendingStart) {
        if let Tracked::Child(child) = &pending.process
            && matches!(child.try_wait(), Ok(Some(Ending::Code(0))))
            && let Ok(adopted) = self.driver.adopted(child.id())
            && let [first, ..] = adopted.as_slice()
        {
            pending.record.process = Some(first.clone());
        }
    }

    /// Records that the service is ready, unless another command stopped it.
    fn mark_ready(
        &self,
        service: &ManagedService,
        pending: &mut PendingStart,
        facts: ServerFacts,
    ) -> Result<(), ServiceError> {
        let process = pending.process();
        // The one in the background is recorded in place of the first one once that has ended.
        let is_recorded = pending.record.process.as_ref() == Some(&process)
            && pending.record.background.as_ref() != Some(&process);
        if pending.record.ready && is_recorded {
            return Ok(());
        }
        let _lock = self.lock(service)?;
        self.put_listener_first(pending);
        match Record::read(&service.files.state)? {
            Some(mut record) if record.instance == pending.record.instance => {
                record.ready = true;
                record.process = Some(pending.process());
                let background = pending.record.background.take();
                record.background = background.filter(|process| record.process.as_ref() != Some(process));
                record.version = facts.version.or(record.version);
                Ok(record.write(&service.files)?)
            }
            _ => Err(ServiceError::StoppedMeanwhile { service: service.name.clone() }),
        }
    }

    /// Makes the process that listens represent a service that put itself into the background.
    fn put_listener_first(&self, pending: &mut PendingStart) {
        let Tracked::Others(members) = &mut pending.process else { return };
        let listener = self.driver.listener(&pending.record.address, Some(pending.record.as_instance()));
        let Ok(Listener::Ours { pid }) = listener else { return };
        if let Some(at) = members.iter().position(|member| member.pid == pid) {
            members.swap(0, at);
        }
    }

    /// Returns the failure with its cause and the end of the log.
    fn failure(
        &self,
        service: &ManagedService,
        pending: &PendingStart,
        unready: Unready,
        after: Duration,
    ) -> ServiceError {
        let name = service.name.clone();
        let (pid, address) = (pending.pid(), pending.record.address.clone());
        let log = Self::log_of(service, &pending.record);
        // An unreadable log must not hide the failure.
        let tail = logs::tail_text(&log, TAIL_LINES).unwrap_or_default();
        let full_disk = log.parent().filter(|directory| machine::is_full(directory)).map(Path::to_owned);
        let full = || Some(format!("no space is left in {}", full_disk.as_ref()?.display()));
        let cause = full().or_else(|| service.template.explain_exit(&tail));
        let kind = match unready {
            Unready::Stopped(error) => return error,
            Unready::ModelMissing(message) => {
                let model = pending.record.model.clone().unwrap_or_default();
                return ServiceError::missing_model(service, &model, Some(message));
            }
            Unready::TimedOut { last } | Unready::Broken(last)
                if matches!(pending.found, Some(State::Ready | State::Unhealthy)) =>
            {
                return ServiceError::Unhealthy { service: name, pid, address, why: last };
            }
            Unready::TimedOut { last } => StartFailureKind::TimedOut { timeout: pending.timeout, last },
            Unready::Broken(message) => StartFailureKind::Broken { message },
            Unready::Died(ending) => {
                if self.was_stopped(service, &pending.record) {
                    return ServiceError::StoppedMeanwhile { service: name };
                }
                if let Some(error) = self.taken_during_start(service, &pending.record, cause.as_deref()) {
                    return error;
                }
                StartFailureKind::Died { ending, after: pending.found.is_none().then_some(after) }
            }
        };
        ServiceError::Failed(Box::new(StartFailure { service: name, pid, kind, cause, tail, log, full_disk }))
    }

    fn log_of(service: &ManagedService, record: &Record) -> PathBuf {
        record.log.clone().unwrap_or_else(|| service.files.log.clone())
    }

    /// Returns whether another command stopped the instance. Waits for the lock, which that command holds until it
    /// has removed the record.
    fn was_stopped(&self, service: &ManagedService, record: &Record) -> bool {
        let _lock = self.lock(service);
        match Record::read(&service.files.state) {
            Ok(now) => now.is_none_or(|now| now.instance != record.instance),
            Err(_) => false,
        }
    }

    /// Stops what this command started, and removes its record. Stops its own instance even without the lock; then
    /// the record stays for the command that holds the lock.
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

/// Returns the deadline of a wait that begins now; a century from now if the clock cannot hold it.
pub(super) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600))
}
