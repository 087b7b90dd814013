//! `up`: look, decide, start.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::endpoint::{Endpoint, endpoint, external};
use super::launch::Plan;
use super::observe::{LOOK_LIMIT, Observed, attempts_to_listen};
use super::ready::{Sight, Watch};
use super::record::Record;
use super::wait::{Begun, deadline};
use super::{ManagedService, ServiceError, ServiceManager, State};
use crate::core::address::Address;
use crate::core::events::Event;
use crate::core::logs::rotator::{self, LogRotator};
use crate::core::logs::{self, Limits};
use crate::core::process::{Listener, ProcessId};

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// How long it may take to be ready; by default as long as the configuration says.
    pub timeout: Option<Duration>,
    /// Return as soon as it is started.
    pub no_wait: bool,
    /// The model it is started with instead of the configured one, for runtimes whose server serves one model: its
    /// name as [`aliases::resolve`](crate::core::aliases::resolve) gives it. Means
    /// nothing for one that runs already.
    pub model: Option<String>,
}

/// What `up` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Where it answers.
    pub endpoint: Endpoint,
    /// What it took.
    pub kind: UpKind,
}

/// What it took to have a runtime up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpKind {
    /// It was started, and is ready.
    Started,
    /// It was started, and nobody waited for it.
    Launched,
    /// It ran already, and is ready.
    AlreadyUp,
    /// Somebody else had started it, and it is ready.
    External,
}

/// How long a server that is not fusion's may take to generate one token.
const EXTERNAL_LIMIT: Duration = Duration::from_secs(30);

/// How long one that was ready once may fail to answer before `up` says so.
const UNHEALTHY_PATIENCE: Duration = Duration::from_secs(5);

/// How soon an interruption is noticed while somebody else's server generates.
const TICK: Duration = Duration::from_millis(10);

/// What a command goes on with after it has released the lock.
pub(super) enum Next {
    /// It is to become ready.
    Wait(Box<Begun>),
    /// Somebody else has started it, and it is to be seen whether it works.
    Prove(Box<Observed>),
}

impl ServiceManager<'_> {
    /// Has the service up: returns only when a request would now succeed (except with `no_wait`).
    pub fn up(&self, service: &ManagedService<'_>, options: &UpOptions) -> Result<Up, ServiceError> {
        let lock = self.lock(service)?;
        let next = self.begin(service, options)?;
        drop(lock);
        self.go_on(service, options, next)
    }

    /// Decides, and starts what is to be started. The caller holds the lock.
    pub(super) fn begin(
        &self,
        service: &ManagedService<'_>,
        options: &UpOptions,
    ) -> Result<Next, ServiceError> {
        let past = self.settled_past(service)?;
        let limit = options.timeout.map_or(LOOK_LIMIT, |timeout| timeout.min(LOOK_LIMIT));
        let observed = self.look_at(service, past, limit);
        self.warn_of_exposure(service, &observed.address);
        let Observed { past, state, .. } = &observed;
        let begun = match (state, &past.record, &past.process) {
            (State::Ready | State::Starting, Some(record), Some(process)) => {
                self.tell_of_change(service, record);
                if rotator::find(self.driver, record.instance.as_str())?.is_empty() {
                    self.rotate_log(service, record, process);
                }
                let patience = record.patience(service.config.server.startup_timeout);
                let patience = options.timeout.unwrap_or(patience);
                Begun::running(record.clone(), process.clone(), *state, patience)
            }
            (State::Unhealthy, Some(_), Some(_)) if past.orphaned => {
                self.end_orphans(service, &observed)?;
                return self.begin(service, options);
            }
            (State::Unhealthy, Some(_), Some(_)) if observed.listener.is_other() => {
                return Err(taken(service, observed));
            }
            (State::Unhealthy, Some(record), Some(process)) => {
                let patience = options.timeout.unwrap_or(UNHEALTHY_PATIENCE);
                Begun::running(record.clone(), process.clone(), *state, patience)
            }
            (State::External, ..) => return Ok(Next::Prove(Box::new(observed))),
            _ => self.start(service, options, observed)?,
        };
        Ok(Next::Wait(Box::new(begun)))
    }

    /// After the lock was released: waits until what was begun is ready, unless that is not wanted.
    pub(super) fn go_on(
        &self,
        service: &ManagedService<'_>,
        options: &UpOptions,
        next: Next,
    ) -> Result<Up, ServiceError> {
        match next {
            // Whether one that does not answer will do so again must be waited for.
            Next::Wait(begun) if options.no_wait && !begun.is_unhealthy() => {
                let pid = begun.pid();
                Ok(Up { endpoint: endpoint(&begun.record, pid), kind: begun.kind_without_waiting() })
            }
            Next::Wait(begun) => self.wait(service, *begun),
            Next::Prove(observed) => {
                if !options.no_wait {
                    self.prove(service, &observed, options.timeout.unwrap_or(EXTERNAL_LIMIT))?;
                }
                Ok(Up { endpoint: external(&observed), kind: UpKind::External })
            }
        }
    }

    /// Neither server has any authentication.
    fn warn_of_exposure(&self, service: &ManagedService<'_>, address: &Address) {
        if !address.is_loopback() {
            self.events.event(&Event::Exposed { runtime: service.runtime.name(), address });
        }
    }

    fn tell_of_change(&self, service: &ManagedService<'_>, record: &Record) {
        if self.has_changed(service, record) == Some(true) {
            self.events.event(&Event::ConfigurationChanged { runtime: service.runtime.name() });
        }
    }

    /// The same kind of runtime, started by somebody else, is as good as one's own, if it works.
    fn prove(
        &self,
        service: &ManagedService<'_>,
        observed: &Observed,
        patience: Duration,
    ) -> Result<(), ServiceError> {
        let runtime = service.runtime;
        let Some(model) = runtime.resident_model().filter(|_| runtime.ready_needs_generation()) else {
            return Ok(());
        };
        let limit = deadline(patience);
        let mut watch = Watch::begin(runtime, observed.address.clone(), Some(model.to_owned()), limit);
        let mut sight = Sight::NotGenerated;
        // Its model may still be loading.
        while matches!(sight, Sight::NotGenerated | Sight::NotReady(_) | Sight::Silent)
            && Instant::now() < limit
        {
            self.heed()?;
            sight = watch.next(TICK).unwrap_or(sight);
        }
        match sight {
            Sight::Ready(_) => Ok(()),
            // It may have been started without a model, and load whichever it is asked for.
            Sight::ModelMissing(said) | Sight::Broken(said) => {
                self.events.event(&Event::WithoutModel { runtime: runtime.name(), said: &said });
                Ok(())
            }
            sight => Err(taken(service, Observed { sight, ..observed.clone() })),
        }
    }

    /// Ends what outlived a process that fusion had started, so that it can be started anew.
    fn end_orphans(&self, service: &ManagedService<'_>, observed: &Observed) -> Result<(), ServiceError> {
        let Some(record) = &observed.past.record else { return Ok(()) };
        self.events.event(&Event::Orphaned { runtime: service.runtime.name() });
        self.end(service, record, service.config.server.stop_timeout, false)?;
        Ok(Record::remove(&service.files)?)
    }

    fn start(
        &self,
        service: &ManagedService<'_>,
        options: &UpOptions,
        observed: Observed,
    ) -> Result<Begun, ServiceError> {
        if !matches!(observed.sight, Sight::NoConnection(_)) {
            return Err(taken(service, observed));
        }
        self.try_to_listen(service)?;
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let Plan { spec, mut record } = self.plan(service, options.model.as_deref(), started_at)?;
        let milliseconds = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        record.patience_ms = options.timeout.map(milliseconds);
        // From here on a crash leaves a record, by whose instance id the process is found.
        record.write(&service.files)?;
        let spawned = logs::rotate(&service.files.log, service.config.server.log_keep)
            .map_err(ServiceError::from)
            .and_then(|()| Ok(self.driver.spawn(&spec)?));
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                Record::remove(&service.files)?;
                return Err(error);
            }
        };
        let leader = child.id().clone();
        record.process = Some(leader.clone());
        let patience = options.timeout.unwrap_or(service.config.server.startup_timeout);
        let begun = Begun::started(record, child, patience);
        if let Err(error) = begun.record.write(&service.files) {
            // Without a record nobody would find it again.
            self.abandon_locked(service, &begun.record)?;
            return Err(error.into());
        }
        self.events.event(&Event::Started { runtime: service.runtime.name(), pid: leader.pid });
        self.rotate_log(service, &begun.record, &leader);
        Ok(begun)
    }

    /// Starts what keeps the log within bounds; without it only the bound is lost.
    fn rotate_log(&self, service: &ManagedService<'_>, record: &Record, leader: &ProcessId) {
        let Some(fusion) = &self.environment.program else { return };
        let rotator = LogRotator {
            log: service.files.log.clone(),
            limits: Limits::from(&service.config.server),
            instance: record.instance.as_str().to_owned(),
            leader: leader.clone(),
        };
        if let Err(error) = self.driver.spawn(&rotator.process(fusion, &service.files.directory)) {
            self.events.event(&Event::LogUnbounded { runtime: service.runtime.name(), error: &error });
        }
    }

    /// Nobody answers; but somebody may be bound and not listening yet, or the host may not be this machine's.
    fn try_to_listen(&self, service: &ManagedService<'_>) -> Result<(), ServiceError> {
        let (runtime, address) = (service.runtime.name(), service.config.server.address.clone());
        let attempts = match attempts_to_listen(&address) {
            Ok(attempts) => attempts,
            Err(source) => return Err(ServiceError::AddressUnusable { runtime, address, source }),
        };
        let is_possible = attempts.iter().any(Result::is_ok);
        for error in attempts.into_iter().filter_map(Result::err) {
            if error.kind() == std::io::ErrorKind::AddrInUse {
                let listener = self.driver.listener(&address, None).unwrap_or(Listener::Nobody);
                let said = error.to_string();
                return Err(ServiceError::AddressTaken { runtime, address, listener, said });
            }
            // `localhost` is often two addresses, one of which the machine does not have.
            if !is_possible {
                return Err(ServiceError::AddressUnusable { runtime, address, source: error });
            }
        }
        Ok(())
    }
}

pub(super) fn taken(service: &ManagedService<'_>, observed: Observed) -> ServiceError {
    ServiceError::AddressTaken {
        runtime: service.runtime.name(),
        address: observed.address,
        listener: observed.listener,
        said: observed.sight.words(),
    }
}
