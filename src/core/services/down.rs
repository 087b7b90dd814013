//! `down`: ends everything of an instance, and says so only when that is true. And `restart`.

use std::io;
use std::time::{Duration, Instant};

use super::observe::{LOOK_LIMIT, Past, attempts_to_listen};
use super::record::Record;
use super::up::{Up, UpOptions};
use super::{ManagedService, ServiceError, ServiceManager, State};
use crate::core::address::Address;
use crate::core::events::Event;
use crate::core::logs::rotator;
use crate::core::process::{Instance, Listener, Liveness, Pid, ProcessId, StopSignal};

/// How to stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct DownOptions {
    /// Kill at once.
    pub force: bool,
    /// How long it may take to end before it is killed; by default as long as the configuration says.
    pub timeout: Option<Duration>,
}

/// What `down` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// The process that was ended; `None` when there was nothing to end.
    pub pid: Option<Pid>,
    /// Whether something had to be killed.
    pub forced: bool,
    /// How long it took.
    pub took: Duration,
}

/// How often it is looked whether they are gone: at first more often, as most are quick.
const FIRST_TICK: Duration = Duration::from_millis(2);
const TICK: Duration = Duration::from_millis(10);

/// How long the kernel may take to end what was killed.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How long an address may stay taken after its last process has gone.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

impl ServiceManager<'_> {
    /// Ends the service and everything it started; never anything that fusion did not start.
    pub fn down(&self, service: &ManagedService<'_>, options: &DownOptions) -> Result<Down, ServiceError> {
        let stop_timeout = service.config.server.stop_timeout;
        let grace = options.timeout.unwrap_or(stop_timeout);
        // Another `down` may have been given as long.
        let _lock = self.lock_within(service, grace.max(stop_timeout))?;
        self.down_locked(service, grace, options.force)
    }

    /// Ends it and starts it anew, under one lock, so that never two of it live. Once interrupted, it starts nothing.
    pub fn restart(&self, service: &ManagedService<'_>, options: &UpOptions) -> Result<Up, ServiceError> {
        let grace = service.config.server.stop_timeout;
        let lock = self.lock(service)?;
        // What could not be started again is not stopped.
        self.plan(service, options.model.as_deref(), 0)?;
        self.down_locked(service, grace, false)?;
        self.heed()?;
        let next = self.begin(service, options)?;
        drop(lock);
        self.go_on(service, options, next)
    }

    fn down_locked(
        &self,
        service: &ManagedService<'_>,
        grace: Duration,
        force: bool,
    ) -> Result<Down, ServiceError> {
        let begin = Instant::now();
        let past = self.settled_past(service)?;
        let Some(record) = &past.record else {
            self.respect_strangers(service)?;
            return Ok(Down { pid: None, forced: false, took: begin.elapsed() });
        };
        let pid = past.process.as_ref().map(|process| process.pid);
        let forced = self.end(service, record, grace, force)?;
        Record::remove(&service.files)?;
        if pid.is_some() {
            self.await_release(service, &record.address);
        } else {
            self.respect_strangers(service)?;
        }
        Ok(Down { pid, forced, took: begin.elapsed() })
    }

    /// There is nothing of fusion's to end; but if a runtime answers that somebody else started, then saying that it
    /// is down would be a lie.
    fn respect_strangers(&self, service: &ManagedService<'_>) -> Result<(), ServiceError> {
        let observed = self.look_at(service, Past::nothing(), LOOK_LIMIT);
        match observed.state {
            State::External | State::Unhealthy => Err(ServiceError::NotOurs {
                runtime: service.runtime.name(),
                address: observed.address,
                listener: observed.listener,
            }),
            _ => Ok(()),
        }
    }

    /// Ends every process of what was recorded, and returns when they are all gone; whether something had to be
    /// killed.
    pub(super) fn end(
        &self,
        service: &ManagedService<'_>,
        record: &Record,
        grace: Duration,
        force: bool,
    ) -> Result<bool, ServiceError> {
        // Looked for first, because looking at every process takes a while, and the end shall be told at once.
        let rotators = rotator::find(self.driver, record.instance.as_str())?;
        let forced = self.end_instance(service, record.as_instance(), grace, force)?;
        // What keeps the log has nothing left to do.
        let log = record.log.as_ref().unwrap_or(&service.files.log);
        rotator::stop(self.driver, log, &rotators)?;
        Ok(forced)
    }

    fn end_instance(
        &self,
        service: &ManagedService<'_>,
        instance: Instance<'_>,
        grace: Duration,
        force: bool,
    ) -> Result<bool, ServiceError> {
        let runtime = service.runtime.name();
        let mut living = self.driver.members(instance)?;
        let Some(pid) = instance.leader.map(|leader| leader.pid).or(living.first().map(|first| first.pid))
        else {
            return Ok(false);
        };
        if living.is_empty() {
            return Ok(false);
        }
        self.events.event(&Event::Stopping { runtime, pid });
        if !force {
            if self.end_with(instance, &mut living, StopSignal::Terminate, grace)? {
                return Ok(false);
            }
            self.events.event(&Event::Killing { runtime, pid });
        }
        if self.end_with(instance, &mut living, StopSignal::Kill, KILL_PATIENCE)? {
            return Ok(true);
        }
        Err(ServiceError::Undead { runtime, pids: living.iter().map(|process| process.pid).collect() })
    }

    /// Signals all of `living` and those that they start meanwhile; whether all were gone in time.
    fn end_with(
        &self,
        instance: Instance<'_>,
        living: &mut Vec<ProcessId>,
        signal: StopSignal,
        patience: Duration,
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
                // Those that were started since the last full look.
                *living = self.driver.members(instance)?;
                if living.is_empty() {
                    return Ok(true);
                }
                self.signal_each(living, signal)?;
            }
            let waited = begin.elapsed();
            if waited >= patience {
                *living = self.driver.members(instance)?;
                return Ok(living.is_empty());
            }
            self.heed()?;
            std::thread::sleep(if waited < Duration::from_millis(200) { FIRST_TICK } else { TICK });
        }
    }

    /// Signals the leader's group as a whole, and each of `living` that is outside of it: twice would count as
    /// impatience with some servers.
    fn signal_once(
        &self,
        instance: Instance<'_>,
        living: &[ProcessId],
        signal: StopSignal,
    ) -> Result<(), ServiceError> {
        let group = match instance.leader {
            Some(leader) if self.driver.signal_group(leader, signal)? => Some(leader),
            _ => None,
        };
        let is_outside =
            |process: &&ProcessId| !group.is_some_and(|leader| self.driver.is_in_group(process, leader));
        let outside: Vec<ProcessId> = living.iter().filter(is_outside).cloned().collect();
        self.signal_each(&outside, signal)
    }

    /// One that may not be signalled does not keep the others from it.
    fn signal_each(&self, processes: &[ProcessId], signal: StopSignal) -> Result<(), ServiceError> {
        let results: Vec<_> = processes.iter().map(|process| self.driver.signal(process, signal)).collect();
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    /// Waits until the address can be listened at again. Somebody else may have been waiting for it, too.
    fn await_release(&self, service: &ManagedService<'_>, address: &Address) {
        let begin = Instant::now();
        while !is_free(address) {
            let is_late = begin.elapsed() >= RELEASE_PATIENCE;
            match self.driver.listener(address, None) {
                // The sockets of a process that is just ending belong to nobody that can be seen.
                Ok(Listener::Hidden) if !is_late => {}
                Ok(listener @ (Listener::Other { .. } | Listener::Hidden)) => {
                    let runtime = service.runtime.name();
                    self.events.event(&Event::AddressTakenOver { runtime, address, listener: &listener });
                    return;
                }
                _ if is_late => return,
                _ => {}
            }
            std::thread::sleep(TICK);
        }
    }
}

/// Whether nobody is bound to the address.
fn is_free(address: &Address) -> bool {
    let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    attempts_to_listen(address)
        .is_ok_and(|attempts| !attempts.iter().filter_map(|attempt| attempt.as_ref().err()).any(is_taken))
}
