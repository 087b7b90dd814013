//! `down`: stops every process of an instance, and succeeds only when all have ended.

use std::time::{Duration, Instant};

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::observe::{PROBE_TIMEOUT, Recorded};
use super::probe::Depth;
use super::record::Record;
use super::service::{Down, DownOptions, ManagedService};
use super::state::State;
use crate::core::events::EventKind;
use crate::core::logs::rotator;
use crate::core::process::{Instance, Liveness, ProcessId, StopSignal};

/// How often the processes are checked after a signal: more often at first, because most end soon.
const FIRST_POLL_INTERVAL: Duration = Duration::from_millis(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long `FIRST_POLL_INTERVAL` applies.
const EARLY_PHASE: Duration = Duration::from_millis(200);

/// How long the kernel may take to end a killed process.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a server has at least to end after SIGTERM, whatever its `stop_command` took.
const MIN_SIGNAL_TIME: Duration = Duration::from_secs(1);

/// How the stop of a process begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstStep {
    /// With the `stop_command` of the template.
    Command,
    /// With SIGTERM: the `stop_command` has run.
    Signal,
    Kill,
}

impl ServiceManager<'_> {
    /// Stops the service and every process it started; never a process that fusion did not start.
    pub fn down(&self, service: &ManagedService, options: &DownOptions) -> Result<Down, ServiceError> {
        let configured = service.server().stop_timeout;
        let stop_timeout = options.timeout.unwrap_or(configured);
        // Another `down` may use the same timeout.
        match self.lock_within(service, stop_timeout.max(configured)) {
            // Where nothing can be written, nothing of this directory may run.
            Err(ServiceError::Lock(error)) if error.is_denied() && self.is_down(service)? => {
                Ok(Down { pid: None, killed: false, took: Duration::ZERO })
            }
            Err(error) => Err(error),
            Ok(_lock) => self.down_locked(service, stop_timeout, options.force),
        }
    }

    /// Returns whether nothing of the service runs. Fails if a server that fusion did not start responds.
    fn is_down(&self, service: &ManagedService) -> Result<bool, ServiceError> {
        let observed = self.observe(service, Depth::default(), PROBE_TIMEOUT)?;
        match observed.state {
            State::External => self.found_without_record(service).map(|_| false),
            state => Ok(!state.is_running() && observed.recorded.elsewhere().is_none()),
        }
    }

    /// Like [`Self::down`], for a caller that holds the lock.
    pub(super) fn down_locked(
        &self,
        service: &ManagedService,
        stop_timeout: Duration,
        force: bool,
    ) -> Result<Down, ServiceError> {
        let begin = Instant::now();
        let recorded = self.settled_record(service)?;
        if let Some(record) = recorded.elsewhere() {
            return Err(ServiceError::elsewhere(service, record));
        }
        let (mut pid, mut killed) = (None, false);
        let mut next = if recorded.record.is_some() { recorded } else { self.found_without_record(service)? };
        while let Some(record) = &next.record {
            if next.is_adopted {
                record.write(&service.files)?;
            }
            pid = next.process.as_ref().map(|process| process.pid);
            killed = self.stop_processes(service, record, stop_timeout, force)?;
            Record::remove(&service.files)?;
            if pid.is_some() {
                self.await_release(service, &record.address);
                break;
            }
            next = self.found_without_record(service)?;
        }
        Ok(Down { pid, killed, took: begin.elapsed() })
    }

    /// Returns a process of the service that listens without a record, if there is one. Fails if a server that fusion
    /// did not start responds on the address: then the service is not down.
    fn found_without_record(&self, service: &ManagedService) -> Result<Recorded, ServiceError> {
        let observed = self.observe_recorded(service, Recorded::none(), Depth::default(), PROBE_TIMEOUT);
        match (observed.state, observed.address) {
            (State::External | State::Unhealthy, Some(address)) if !observed.recorded.is_adopted => {
                Err(ServiceError::External {
                    service: service.name.clone(),
                    address,
                    listener: observed.listener,
                })
            }
            _ => Ok(observed.recorded),
        }
    }

    /// Stops every process of the recorded instance. Returns whether one was killed.
    pub(super) fn stop_processes(
        &self,
        service: &ManagedService,
        record: &Record,
        stop_timeout: Duration,
        force: bool,
    ) -> Result<bool, ServiceError> {
        // Found before the stop, because the scan of all processes would delay the report.
        let rotators = rotator::find(self.driver, record.instance.as_str())?;
        let (mut first, mut killed) = (if force { FirstStep::Kill } else { FirstStep::Command }, false);
        if let Some(process) = &record.background {
            let listener = Record { process: Some(process.clone()), background: None, ..record.clone() };
            let is_alive = self.driver.liveness(process)? == Liveness::Alive;
            killed = self.stop_instance(service, &listener, stop_timeout, first)?;
            if is_alive && first == FirstStep::Command {
                first = FirstStep::Signal;
            }
        }
        killed |= self.stop_instance(service, record, stop_timeout, first)?;
        // After the server has ended, the rotator has no work.
        let log = record.log.as_ref().unwrap_or(&service.files.log);
        rotator::stop(self.driver, log, &rotators)?;
        Ok(killed)
    }

    fn stop_instance(
        &self,
        service: &ManagedService,
        record: &Record,
        stop_timeout: Duration,
        first_step: FirstStep,
    ) -> Result<bool, ServiceError> {
        let instance = record.as_instance();
        let begin = Instant::now();
        let mut living = self.driver.members(instance)?;
        let first = instance.leader.or(living.first()).map(|process| process.pid);
        let Some(pid) = first.filter(|_| !living.is_empty()) else { return Ok(false) };
        self.emit(service, EventKind::Stopping { pid });
        if first_step == FirstStep::Command {
            self.run_stop_command(service, record, pid, stop_timeout)?;
        }
        if first_step != FirstStep::Kill {
            let stop_timeout =
                stop_timeout.saturating_sub(begin.elapsed()).max(MIN_SIGNAL_TIME.min(stop_timeout));
            if self.end(service, instance, &mut living, stop_timeout)? {
                return Ok(false);
            }
            self.emit(service, EventKind::Killing { pid });
        }
        if self.signal_and_wait(instance, &mut living, StopSignal::Kill, KILL_TIMEOUT)? {
            return Ok(true);
        }
        let pids = living.iter().map(|process| process.pid).collect();
        Err(ServiceError::StillAlive { service: service.name.clone(), pids })
    }

    /// Sends SIGTERM, and later SIGINT if the template asks for it. Returns whether all processes ended in time.
    fn end(
        &self,
        service: &ManagedService,
        instance: Instance<'_>,
        living: &mut Vec<ProcessId>,
        stop_timeout: Duration,
    ) -> Result<bool, ServiceError> {
        let interrupt_after = service.template.interrupt_after().unwrap_or(stop_timeout);
        let Some(left) = stop_timeout.checked_sub(interrupt_after).filter(|left| !left.is_zero()) else {
            return self.signal_and_wait(instance, living, StopSignal::Terminate, stop_timeout);
        };
        Ok(self.signal_and_wait(instance, living, StopSignal::Terminate, interrupt_after)?
            || self.signal_and_wait(instance, living, StopSignal::Interrupt, left)?)
    }

    /// Signals `living` and the processes they start. Returns whether all ended in time.
    fn signal_and_wait(
        &self,
        instance: Instance<'_>,
        living: &mut Vec<ProcessId>,
        signal: StopSignal,
        timeout: Duration,
    ) -> Result<bool, ServiceError> {
        let begin = Instant::now();
        self.signal_once(instance, living, signal)?;
        loop {
            let mut alive = Vec::new();
            for process in living.drain(..) {
                if self.driver.liveness(&process)? == Liveness::Alive {
                    alive.push(process);
                }
            }
            *living = alive;
            if living.is_empty() {
                // Processes that were started after the last scan.
                *living = self.driver.members(instance)?;
                if living.is_empty() {
                    return Ok(true);
                }
                self.signal_each(living, signal)?;
            }
            let waited = begin.elapsed();
            if waited >= timeout {
                // Of a leader that has ended, a system that hides environments shows no members.
                let more = self.driver.members(instance)?;
                living.extend(more.into_iter().filter(|member| !living.contains(member)).collect::<Vec<_>>());
                return Ok(living.is_empty());
            }
            self.cancel.check()?;
            std::thread::sleep(if waited < EARLY_PHASE { FIRST_POLL_INTERVAL } else { POLL_INTERVAL });
        }
    }

    /// Signals the leader's group, and each of `living` outside that group. Each process gets one signal, because
    /// some servers abort at a second SIGTERM.
    fn signal_once(
        &self,
        instance: Instance<'_>,
        living: &[ProcessId],
        signal: StopSignal,
    ) -> Result<(), ServiceError> {
        let mut group = instance.leader;
        if let Some(leader) = group
            && !self.driver.signal_group(leader, signal)?
        {
            group = None;
        }
        let is_outside =
            |process: &&ProcessId| !group.is_some_and(|leader| self.driver.is_in_group(process, leader));
        let outside: Vec<ProcessId> = living.iter().filter(is_outside).cloned().collect();
        self.signal_each(&outside, signal)
    }

    /// Signals each process, even if the signal to one of them fails.
    fn signal_each(&self, processes: &[ProcessId], signal: StopSignal) -> Result<(), ServiceError> {
        let results: Vec<_> = processes.iter().map(|process| self.driver.signal(process, signal)).collect();
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }
}
